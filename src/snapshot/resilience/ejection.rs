//! Passive health: who gets nothing for a while because of what became of its requests.

use std::time::Duration;

use serde::Serialize;

/// When an endpoint is ejected, and for how long. Envoy's outlier detection, and latency beside it. Zero turns a rule off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ejection {
    /// Failures in a row: statuses of 500 and above, no answer, no connection.
    pub consecutive_failures: u32,
    /// Those of them that a gateway would answer with 502, 503 or 504.
    pub consecutive_gateway_failures: u32,
    /// Connections in a row that could not be made.
    pub consecutive_connect_failures: u32,
    /// Percent of failures in an interval.
    pub failure_rate_percent: u8,
    /// How many hundredths of a standard deviation below the mean of all endpoints the rate of successes may lie.
    pub success_rate_stdev_percent: u32,
    /// Percent of the median of all endpoints that the mean time to the first byte may reach.
    pub latency_percent: u32,
    /// Requests in an interval without which an endpoint is not compared.
    pub minimum_requests: u32,
    /// Endpoints with so many requests without which none is compared.
    pub minimum_endpoints: u32,
    /// How often endpoints are compared.
    pub interval: Duration,
    /// How long the first ejection lasts. Further ones are so many times as long.
    pub base: Duration,
    /// How long an ejection lasts at most; [`Ejection::base`] if that is longer.
    pub longest: Duration,
    /// Up to so much is added, so that not all come back at once.
    pub jitter: Duration,
    /// How many of a cluster's endpoints may be ejected; one always may, unless it is the last.
    pub max_percent: u8,
}

/// Envoy's defaults.
impl Default for Ejection {
    fn default() -> Self {
        Ejection {
            consecutive_failures: 5,
            consecutive_gateway_failures: 0,
            consecutive_connect_failures: 5,
            failure_rate_percent: 0,
            success_rate_stdev_percent: 190,
            latency_percent: 0,
            minimum_requests: 100,
            minimum_endpoints: 5,
            interval: Duration::from_secs(10),
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            jitter: Duration::ZERO,
            max_percent: 10,
        }
    }
}
