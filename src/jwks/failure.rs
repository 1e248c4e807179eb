//! Why keys could not be fetched. Never a word of what was answered: it goes to conditions, which whoever writes policies reads, and
//! what he has Floodway ask may be none of his business.

use std::io;

use crate::snapshot::InvalidKeys;

/// Why keys could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The name of the host has no address.
    #[error("the name of its host cannot be resolved")]
    Name,
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(io::ErrorKind),
    /// A connection, but no TLS on it.
    #[error("no TLS: {0}")]
    Tls(&'static str),
    /// Too slow.
    #[error("no answer within 10s")]
    Timeout,
    /// The connection ended, or what came on it is not HTTP.
    #[error("{0}")]
    Broken(&'static str),
    /// Not 200.
    #[error("status {0} instead of 200")]
    Status(u16),
    /// Somewhere else.
    #[error("it redirects (status {0}), which is not followed; name the URL that it leads to")]
    Redirect(u16),
    /// More than is read.
    #[error("the answer is longer than {} KiB", super::fetch::MOST_CONTENT / 1024)]
    TooLong,
    /// Packed.
    #[error("the answer has a content coding, which was not asked for")]
    Coded,
    /// What is no set of keys.
    #[error("{0}")]
    Keys(#[from] InvalidKeys),
    /// What is no document of the issuer.
    #[error("{0}")]
    Document(&'static str),
}

/// How a fetch may go, as metrics tell it: first, well.
pub(super) const FETCHED: &str = "fetched";
pub(super) const OUTCOMES: [&str; 6] = [FETCHED, "unreachable", "timeout", "broken", "status", "invalid"];

impl Failure {
    /// What became of a fetch, as metrics tell it.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Failure::Name | Failure::Connect(_) | Failure::Tls(_) => "unreachable",
            Failure::Timeout => "timeout",
            Failure::Broken(_) => "broken",
            Failure::Status(_) | Failure::Redirect(_) => "status",
            Failure::TooLong | Failure::Coded | Failure::Keys(_) | Failure::Document(_) => "invalid",
        }
    }
}
