//! `limits` of a ProxyUpstream: how much of it may be in use at once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::TimeBounds;
use crate::api::rules::{duration_within, rules};

/// Of `limits.pendingTimeout`.
pub const PENDING_TIMEOUT: TimeBounds = ("10ms", "10m");

/// How much of an upstream may be in use at once, counted exactly over all threads of one Floodway. What is over a limit waits
/// in line, first come, first served, or is answered with 503 if no more may wait or it waited for too long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "has(self.connections) || has(self.connectionsPerEndpoint) || has(self.requests) || has(self.streams)",
        "limits need at least one of connections, connectionsPerEndpoint, requests and streams",
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
    /// Requests that may wait for any of these; 1024 when absent. With 0 none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub pending: Option<u32>,
    /// How long they wait at most, for example `2s`; `5s` when absent. Once there were always some waiting for so long, each
    /// waits for a tenth of it at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(PENDING_TIMEOUT)))]
    pub pending_timeout: Option<String>,
}
