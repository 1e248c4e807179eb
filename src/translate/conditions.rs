//! What owners are told about their objects: problems, and the three conditions made of them.

use std::fmt;
use std::sync::Arc;

use crate::api::Condition;

/// Reasons of conditions, beside those that are the name of the condition itself.
pub(super) mod reason {
    pub(crate) const INVALID: &str = "Invalid";
    pub(crate) const UNSUPPORTED_VALUE: &str = "UnsupportedValue";
    pub(crate) const BACKEND_NOT_FOUND: &str = "BackendNotFound";
    pub(crate) const PORT_NOT_FOUND: &str = "PortNotFound";
    pub(crate) const BACKEND_INVALID: &str = "BackendInvalid";
    pub(crate) const TARGET_NOT_FOUND: &str = "TargetNotFound";
    pub(crate) const NAME_NOT_FOUND: &str = "NameNotFound";
    pub(crate) const PENDING: &str = "Pending";
    pub(crate) const REF_NOT_FOUND: &str = "RefNotFound";
    pub(crate) const INVALID_CERTIFICATE: &str = "InvalidCertificate";
    pub(crate) const CERTIFICATE_MISMATCH: &str = "CertificateMismatch";
    pub(crate) const INVALID_STAPLE: &str = "InvalidStaple";
    pub(crate) const POLICY_NOT_FOUND: &str = "PolicyNotFound";
    pub(crate) const POLICY_INVALID: &str = "PolicyInvalid";
    pub(crate) const KEYS_UNAVAILABLE: &str = "KeysUnavailable";
    pub(crate) const CONFLICTED: &str = "Conflicted";
    pub(crate) const PARTIALLY_CONFLICTED: &str = "PartiallyConflicted";
}

/// Something that is not as its owner wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// One of [`reason`].
    pub(super) reason: &'static str,
    /// The field: `spec.rules[0].timeouts.idle`.
    pub(super) path: String,
    /// What is wrong with it.
    pub(super) message: String,
}

impl Problem {
    pub(super) fn invalid(path: impl Into<String>, message: impl fmt::Display) -> Self {
        Problem { reason: reason::INVALID, path: path.into(), message: message.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// The value of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Verdict {
    /// All is well. The reason is the name of the condition, as Kubernetes has it.
    pub(super) fn good(reason: &'static str, message: &str) -> Self {
        Verdict { status: "True", reason, message: message.to_owned() }
    }

    /// Something is wrong.
    pub(super) fn bad(reason: &'static str, message: impl Into<String>) -> Self {
        Verdict { status: "False", reason, message: message.into() }
    }

    /// It is not known yet.
    pub(super) fn pending(message: impl Into<String>) -> Self {
        Verdict { status: "Unknown", reason: reason::PENDING, message: message.into() }
    }

    /// False by the first of these problems, if there is one; pending if they all are.
    pub(super) fn of_problems(problems: &[Problem]) -> Option<Self> {
        let worst = problems.iter().find(|problem| problem.reason != reason::PENDING).or(problems.first())?;
        let message = sentences(problems);
        Some(if worst.reason == reason::PENDING {
            Verdict::pending(message)
        } else {
            Verdict::bad(worst.reason, message)
        })
    }
}

/// As many problems as a reader wants at once.
const TOLD: usize = 5;

/// The problems as one message.
pub(super) fn sentences(problems: &[impl ToString]) -> String {
    let mut text = problems.iter().take(TOLD).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if problems.len() > TOLD {
        text.push_str(&format!("; and {} more", problems.len() - TOLD));
    }
    text
}

/// The three conditions of an object of this generation.
pub(super) fn conditions(
    generation: Option<i64>,
    accepted: Verdict,
    resolved: Verdict,
    programmed: Verdict,
) -> Arc<[Condition]> {
    let condition = |name: &str, Verdict { status, reason, message }: Verdict| Condition {
        type_: name.to_owned(),
        status: status.to_owned(),
        observed_generation: generation,
        reason: reason.to_owned(),
        message,
        last_transition_time: String::new(),
    };
    [condition("Accepted", accepted), condition("ResolvedRefs", resolved), condition("Programmed", programmed)].into()
}
