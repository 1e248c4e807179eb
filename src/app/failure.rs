//! Why the program ends without success, and with which exit code.

use std::process::ExitCode;

use crate::settings::InvalidSettings;

/// Why the program ends without success.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was asked for makes no sense; exit code 2.
    #[error("{0}")]
    Configuration(String),
    /// What was wrong has been told already; exit code 2.
    #[error("something is wrong")]
    Told,
    /// What was looked at is not well, which has been told already; exit code 1.
    #[error("something is not well")]
    Unwell,
    /// What was asked for could not be done; exit code 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Failure {
    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Failure::Configuration(message.into())
    }

    /// The exit code of the program.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Configuration(_) | Failure::Told => ExitCode::from(2),
            Failure::Unwell | Failure::Failed(_) => ExitCode::from(1),
        }
    }
}

impl From<InvalidSettings> for Failure {
    fn from(InvalidSettings(message): InvalidSettings) -> Self {
        Failure::Configuration(message)
    }
}
