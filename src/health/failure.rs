//! Why a check did not pass. Never a word of what the endpoint said: it goes to logs and to people's terminals.

use std::io;
use std::time::Duration;

use crate::snapshot::duration;

/// ENFILE, EMFILE and ENOBUFS of Linux, for which the standard library has no words.
const SHORTAGES: [i32; 3] = [23, 24, 105];

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Floodway could not ask: it says nothing of the endpoint.
    #[error("cannot ask: {0}")]
    Ours(io::ErrorKind),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(io::ErrorKind),
    /// A connection, but no TLS on it.
    #[error("no TLS: {0}")]
    Tls(&'static str),
    /// Too slow.
    #[error("no answer within {}", duration::format(*.0))]
    Timeout(Duration),
    /// The connection ended, or what came on it breaks the protocol.
    #[error("{0}")]
    Broken(&'static str),
    /// Another status than those that are expected.
    #[error("status {0}")]
    Status(u16),
    /// Another content than the one that is expected.
    #[error("the expected text is not in the content")]
    Content,
    /// The call did not succeed.
    #[error("grpc-status {0}")]
    GrpcStatus(u8),
    /// The endpoint says so itself.
    #[error("the service is {0}")]
    NotServing(&'static str),
}

/// How a check may go, as metrics tell it.
pub(super) const OUTCOMES: [&str; 6] = ["passed", "not_made", "unreachable", "timeout", "broken", "unexpected"];

impl Failure {
    /// What became of a check, as metrics tell it.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Failure::Ours(_) => "not_made",
            Failure::Connect(_) | Failure::Tls(_) => "unreachable",
            Failure::Timeout(_) => "timeout",
            Failure::Broken(_) => "broken",
            Failure::Status(_) | Failure::Content | Failure::GrpcStatus(_) | Failure::NotServing(_) => "unexpected",
        }
    }

    /// Why there is no connection. What this machine has too little of is no fault of the endpoint.
    pub(super) fn connect(error: &io::Error) -> Self {
        let (kind, code) = (error.kind(), error.raw_os_error());
        let lacks = matches!(kind, io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory);
        if lacks || code.is_some_and(|code| SHORTAGES.contains(&code)) {
            Failure::Ours(kind)
        } else {
            Failure::Connect(kind)
        }
    }
}
