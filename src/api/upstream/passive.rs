//! Passive health: which endpoints get nothing for a while because of what became of their requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::TimeBounds;
use crate::api::rules::{duration_within, rules};

/// Least and most of `interval`.
pub const EJECTION_INTERVAL: TimeBounds = ("1s", "1h");
/// Least and most of the times of an ejection.
pub const EJECTION: TimeBounds = ("100ms", "24h");

/// Which endpoints get nothing for a while because of what became of their requests, as this replica saw it. Without it, only
/// endpoints that refuse connections are left alone for a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "!has(self.baseEjection) || !has(self.maxEjection) || duration(self.baseEjection) <= duration(self.maxEjection)",
    "maxEjection bounds what baseEjection grows to: it cannot be shorter",
)])))]
pub struct Passive {
    /// Failures in a row: answers with 500 and above, no answer, no connection. 5 when absent, 0 for no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub consecutive_failures: Option<u32>,
    /// The same, of failures that mean 502, 503 or 504. No bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub consecutive_gateway_failures: Option<u32>,
    /// Connections in a row that were refused or not accepted in time. 5 when absent, 0 for no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub consecutive_connect_failures: Option<u32>,
    /// Percent of an endpoint's requests in an interval that fail, answers that break off included. No bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_rate_percent: Option<u32>,
    /// How far below the mean of all endpoints the rate of successes may lie, in hundredths of the standard deviation, as
    /// Envoy does. 190 when absent, 0 for no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub success_rate_stdev_percent: Option<u32>,
    /// How long an endpoint's mean time to the first byte may be, in percent of the median of all endpoints, for example
    /// 300. No bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 110, max = 100_000))]
    pub latency_percent: Option<u32>,
    /// Requests in an interval without which an endpoint is not compared with others; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minimum_requests: Option<u32>,
    /// Endpoints with so many requests without which none is compared; 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub minimum_endpoints: Option<u32>,
    /// How often endpoints are compared, for example `5s`; `10s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(EJECTION_INTERVAL)))]
    pub interval: Option<String>,
    /// How long the first ejection lasts, the second twice as long and so on; `30s` when absent. An interval without
    /// ejection takes one off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(EJECTION)))]
    pub base_ejection: Option<String>,
    /// How long an ejection lasts at most; `5m` when absent, or `baseEjection` if that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(EJECTION)))]
    pub max_ejection: Option<String>,
    /// Up to so much is added to each ejection, so that endpoints do not come back at once; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(EJECTION)))]
    pub ejection_jitter: Option<String>,
    /// How many of the endpoints may be ejected; 10 when absent. One always may, but never the last that gets requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejected_percent: Option<u32>,
}
