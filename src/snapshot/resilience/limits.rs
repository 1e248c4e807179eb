//! How much of a cluster may be in use at once. Who counts, and who waits, is `resilience`'s.

use std::time::Duration;

use serde::Serialize;

/// How much of a cluster may be in use at once, over all workers. `None` is without a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Open connections to all endpoints, unused ones included.
    pub connections: Option<u32>,
    /// Open connections to one endpoint, unused ones included.
    pub connections_per_endpoint: Option<u32>,
    /// Exchanges that are not streams.
    pub requests: Option<u32>,
    /// Event streams and WebSockets.
    pub streams: Option<u32>,
    /// Requests that wait for any of these.
    pub pending: u32,
    /// How long they wait at most.
    pub pending_timeout: Duration,
}

impl Limits {
    /// No limit but those of waiting.
    pub const NONE: Limits = Limits {
        connections: None,
        connections_per_endpoint: None,
        requests: None,
        streams: None,
        pending: 1024,
        pending_timeout: Duration::from_secs(5),
    };
}
