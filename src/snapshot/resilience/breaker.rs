//! When a circuit breaker opens, how long it stays open, and what is answered meanwhile.

use std::time::Duration;

use serde::Serialize;

use crate::snapshot::{ClusterName, Redirect, Respond};

/// Settings of a circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CircuitBreaker {
    /// What it does with what it sees.
    pub mode: BreakerMode,
    /// Which calls it judges by.
    pub window: BreakerWindow,
    /// Calls in the window below which nothing is said of it.
    pub minimum_calls: u32,
    /// The share of failures from which on it opens, in percent.
    pub failure_rate_percent: u8,
    /// The share of slow calls from which on it opens, in percent.
    pub slow_call_rate_percent: u8,
    /// Calls whose first byte takes longer are slow.
    pub slow_call_duration: Duration,
    /// How long it stays open.
    pub wait: BreakerWait,
    /// Calls that are let through to find out whether it may close.
    pub permitted_in_half_open: u32,
    /// How long it may take to find out; `None` waits for as long as those calls take.
    pub half_open_limit: Option<HalfOpenLimit>,
    /// Which outcomes are failures.
    pub failures: Failures,
}

/// What a circuit breaker does with what it sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum BreakerMode {
    /// Opens and closes.
    #[default]
    Automatic,
    /// Only counts.
    MetricsOnly,
    /// Lets nothing through.
    ForcedOpen,
    /// Lets everything through and counts nothing.
    Disabled,
}

/// Which calls a circuit breaker judges by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum BreakerWindow {
    /// The last so many.
    Calls(u32),
    /// Those of the last so long.
    Time(Duration),
}

/// How long a circuit breaker stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BreakerWait {
    /// The first time.
    pub first: Duration,
    /// Each further time, in percent of the time before, until it closes; 100 does not grow.
    pub growth_percent: u32,
    /// At most.
    pub most: Duration,
    /// By how much it is made longer or shorter at random, in percent.
    pub jitter_percent: u8,
}

/// What becomes of a circuit breaker that does not find out whether it may close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HalfOpenLimit {
    /// How long it may take.
    pub time: Duration,
    /// Whether it closes then, instead of opening again.
    pub then_closes: bool,
}

/// Which outcomes are failures for a circuit breaker. That an endpoint cannot be reached or gives no answer always is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// Statuses that are, as ranges with both ends. Those of gRPC count as the statuses of HTTP that they are mapped to.
    pub statuses: Vec<(u16, u16)>,
    /// Whether an answer that is cut after it began is one more call, which failed.
    pub cut: bool,
}

impl Failures {
    /// Whether an answer with this status is a failure.
    pub fn has(&self, status: u16) -> bool {
        self.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

/// What a request gets that no endpoint may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Fallback {
    /// The answer of another cluster.
    Cluster(ClusterName),
    /// A direct answer.
    Respond(Respond),
    /// Another location.
    Redirect(Redirect),
}
