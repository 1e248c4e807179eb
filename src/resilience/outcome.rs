//! What became of an attempt at an endpoint. Who decides that is the exchange that made it.

use std::time::Duration;

/// What an attempt says of its endpoint. Every attempt has one outcome, and may have [`Outcome::Cut`] after
/// [`Outcome::Answered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It refused the connection, or did not accept it in time: nothing was sent to it.
    Unreachable,
    /// It gave no answer: it broke the connection, took too long, or said something that is not HTTP.
    Failed,
    /// Its answer began: its first byte of content came, or its head if it has none.
    Answered {
        /// The status.
        status: u16,
        /// How long that took since the attempt began.
        first_byte: Duration,
    },
    /// It broke off an answer that had begun.
    Cut,
    /// Nothing is known of it: the client left, or Floodway had reasons of its own.
    Unknown,
}

impl Outcome {
    /// Whether it is a failure of the endpoint.
    pub fn is_failure(self) -> bool {
        match self {
            Outcome::Unreachable | Outcome::Failed | Outcome::Cut => true,
            Outcome::Answered { status, .. } => status >= 500,
            Outcome::Unknown => false,
        }
    }
}
