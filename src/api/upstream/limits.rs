//! `limits` of a ProxyUpstream: how much of it may be in use at once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::TimeBounds;
use crate::api::rules::{duration_within, rules};

/// Of `limits.pendingTimeout`.
pub const PENDING_TIMEOUT: TimeBounds = ("10ms", "10m");

/// Of `limits.adaptive.window`.
pub const ADAPTIVE_WINDOW: TimeBounds = ("100ms", "1m");

/// How much of an upstream may be in use at once, counted exactly over all threads of one Floodway. What is over a limit waits
/// in line, first come, first served, or is answered with 503 if no more may wait or it waited for too long; only retries do
/// not wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "has(self.connections) || has(self.connectionsPerEndpoint) || has(self.requests) || has(self.streams) || has(self.retries) || has(self.adaptive)",
        "limits need at least one of connections, connectionsPerEndpoint, requests, streams, retries and adaptive",
    ),
    (
        "!has(self.connections) || !has(self.connectionsPerEndpoint) || self.connectionsPerEndpoint <= self.connections",
        "connectionsPerEndpoint cannot be more than connections",
    ),
    (
        "!has(self.pendingTimeout) || !has(self.pending) || self.pending > 0",
        "nothing waits with pending 0: leave pendingTimeout out, or let some requests wait",
    ),
])))]
pub struct Limits {
    /// Open connections to all endpoints, unused ones included; no limit when absent. At least one per worker thread is wise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: Option<u32>,
    /// Open connections to each endpoint, unused ones included; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_endpoint: Option<u32>,
    /// Requests in flight that are not streams, gRPC calls included; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: Option<u32>,
    /// Event streams and WebSockets; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub streams: Option<u32>,
    /// Retries under way, of rules with `retry`; no limit when absent. With 0 none is made. One over it does not wait: clients get the
    /// failure at once. `retryBudget` bounds them beside other requests; both count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub retries: Option<u32>,
    /// Requests that may wait for any of these; 1024 when absent. With 0 none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub pending: Option<u32>,
    /// How long they wait at most, for example `2s`; `5s` when absent. Once there were always some waiting for so long, each
    /// waits for a tenth of it at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(PENDING_TIMEOUT)))]
    pub pending_timeout: Option<String>,
    /// Lets the limit of requests follow how fast answers begin, up to `requests` if that is there. For example
    /// `{minRequests: 10, maxRequests: 500}`. Off when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
}

/// A limit of requests that follows latency: it grows while answers begin as fast as in the long term, and shrinks when they
/// are slower than that by more than a tolerance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "(has(self.minRequests) ? self.minRequests : 1) <= (has(self.maxRequests) ? self.maxRequests : 1000)",
    "minRequests (1 when absent) cannot be more than maxRequests (1000 when absent)",
)])))]
pub struct Adaptive {
    /// No fewer than these; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<u32>,
    /// No more than these; 1000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<u32>,
    /// The time to the first byte that is borne, in percent of the long-term one; 150 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 1000))]
    pub tolerance_percent: Option<u32>,
    /// How often the limit is thought over; `1s` when absent. With fewer than ten answers in a window, it lasts longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(ADAPTIVE_WINDOW)))]
    pub window: Option<String>,
}
