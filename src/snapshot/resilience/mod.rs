//! How a cluster is balanced, checked and protected. What comes of it while traffic flows is `resilience`'s.

mod balancing;
mod breaker;
mod ejection;
mod health;
mod limits;
mod retry;

use std::sync::Arc;

use serde::Serialize;

use super::Retry;

pub use balancing::{Algorithm, Balancing, CookieKey, HashKey, Hashing, Locality, PANIC_PERCENT, SlowStart, Subset};
pub use breaker::{BreakerMode, BreakerWait, BreakerWindow, CircuitBreaker, Failures, Fallback, HalfOpenLimit};
pub use ejection::Ejection;
pub use health::{HealthCheck, HttpProbe, Probe, ProbeHeaders, ProbeMethod, Statuses};
pub use limits::{Adaptive, Limits};
pub use retry::RetryBudget;

/// How a cluster is balanced, checked and protected. The default is that of a Service without a ProxyUpstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resilience {
    /// The object that says so, as `namespace/name`.
    pub owner: Option<Arc<str>>,
    /// Who gets the next request.
    #[serde(skip_serializing_if = "Balancing::is_default")]
    pub balancing: Balancing,
    /// Passive health; `None` only leaves endpoints alone for a moment that refuse connections.
    pub ejection: Option<Ejection>,
    /// How its endpoints are asked whether they are well; `None` asks nothing.
    pub health: Option<HealthCheck>,
    /// What is asked for requests that an endpoint did not serve and whose route does not say; `None` asks for no more than is safe for everyone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Arc<Retry>>,
    /// How many retries it bears; `None` has no bound.
    pub retry_budget: Option<RetryBudget>,
    /// How much of it may be in use at once.
    pub limits: Option<Limits>,
    /// The breaker before all endpoints.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// The breaker that each endpoint has of its own.
    pub endpoint_circuit_breaker: Option<CircuitBreaker>,
    /// What requests get that no endpoint may have.
    pub fallback: Option<Fallback>,
}
