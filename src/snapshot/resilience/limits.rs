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
    /// Retries that are under way.
    pub retries: Option<u32>,
    /// Requests that wait for any of these, retries aside.
    pub pending: u32,
    /// How long they wait at most.
    pub pending_timeout: Duration,
    /// How `requests` adapts itself, up to the limit that it has; `None` if it does not.
    pub adaptive: Option<Adaptive>,
}

/// A limit of requests that follows latency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adaptive {
    /// No fewer than these.
    pub min: u32,
    /// No more than these.
    pub max: u32,
    /// Latency that is borne, in percent of the long-term one.
    pub tolerance_percent: u32,
    /// How often the limit is thought over.
    pub window: Duration,
}

impl Limits {
    /// No limit but those of waiting.
    pub const NONE: Limits = Limits {
        connections: None,
        connections_per_endpoint: None,
        requests: None,
        streams: None,
        retries: None,
        pending: 1024,
        pending_timeout: Duration::from_secs(5),
        adaptive: None,
    };
}
