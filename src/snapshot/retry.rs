//! When a request is sent to another endpoint after one that did not serve it, as a route or its cluster asks for. How that is done is
//! `proxy::attempts`' to say, and how many may be under way at once the cluster's.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Retry {
    /// Attempts altogether, the first one included.
    pub attempts: u32,
    /// After which failures another one is made.
    pub on: RetryOn,
    /// Whether that holds for methods that are not idempotent, too.
    pub any_method: bool,
    /// Time for one attempt until its answer begins.
    pub per_try_timeout: Option<Duration>,
    /// What is waited before another attempt.
    pub backoff: Backoff,
    /// The longest Retry-After that is waited for.
    pub max_retry_after: Duration,
    /// Bytes of a request's content that are kept to be sent again. Longer ones are sent once.
    pub body_bytes: usize,
    /// Answers of a known length up to this one are passed on once they are whole; those of gRPC, too, if they soon are.
    pub hold_bytes: u64,
    /// When another endpoint is asked beside one that is slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
}

/// After how long another endpoint is asked beside one whose answer has not begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hedge {
    /// The time within which so many percent of the upstream's answers begin.
    pub percentile: u32,
    /// At least this.
    pub min_delay: Duration,
    /// At most this.
    pub max_delay: Option<Duration>,
}

/// The failures after which another attempt is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RetryOn {
    /// No connection, so that nothing was sent.
    pub connect_failure: bool,
    /// The connection or stream ended before an answer, or with one that breaks HTTP.
    pub reset: bool,
    /// An endpoint of HTTP/2 says that it made nothing of the request.
    pub refused_stream: bool,
    /// No answer in time.
    pub timeout: bool,
    /// Statuses from and to these.
    pub statuses: Arc<[(u16, u16)]>,
    /// Codes of gRPC, each a bit.
    pub grpc: u32,
}

impl RetryOn {
    /// Whether a status is one of them.
    pub fn has_status(&self, status: u16) -> bool {
        self.statuses.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }

    /// Whether a code of gRPC is one of them.
    pub fn has_grpc(&self, code: u32) -> bool {
        code < u32::BITS && self.grpc & 1 << code != 0
    }
}

/// Waits that grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backoff {
    /// The first one.
    pub base: Duration,
    /// By how much each one is longer than the one before, in percent: 200 doubles.
    pub factor_percent: u32,
    /// The longest one.
    pub max: Duration,
}
