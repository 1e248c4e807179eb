//! The metrics of circuit breakers, read where they are when metrics are asked for.

use std::fmt;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::collect::{counter, family, gauge};
use super::metrics::{BREAKERS, Metrics, NOT_PERMITTED};

/// The breakers of an upstream: the one before all endpoints, or those of the endpoints together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerCount {
    /// The upstream.
    pub upstream: String,
    /// `upstream` or `endpoint`.
    pub scope: &'static str,
    /// How many are in which state.
    pub states: Vec<(&'static str, u64)>,
    /// Calls that they did not permit.
    pub not_permitted: u64,
}

impl Metrics {
    /// From now on shows what `read` tells of circuit breakers.
    pub fn breakers(&self, read: impl Fn() -> Vec<BreakerCount> + Send + Sync + 'static) {
        if let Err(error) = self.registry.register(Box::new(Breakers::new(read))) {
            tracing::error!(%error, "the metrics of circuit breakers are not shown");
        }
    }
}

/// Collects what `read` tells.
pub(super) struct Breakers<F> {
    read: F,
    descs: [Desc; 2],
}

impl<F> Breakers<F> {
    pub(super) fn new(read: F) -> Self {
        Breakers { read, descs: [BREAKERS.desc(), NOT_PERMITTED.desc()] }
    }
}

impl<F> fmt::Debug for Breakers<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breakers").finish_non_exhaustive()
    }
}

impl<F: Fn() -> Vec<BreakerCount> + Send + Sync> Collector for Breakers<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (mut states, mut not_permitted) = (Vec::new(), Vec::new());
        for BreakerCount { upstream, scope, states: of, not_permitted: calls } in (self.read)() {
            for (state, count) in of {
                states.push(gauge(&[("upstream", &upstream), ("scope", scope), ("state", state)], count as f64));
            }
            not_permitted.push(counter(&[("upstream", &upstream), ("scope", scope)], calls as f64));
        }
        vec![family(&BREAKERS, states), family(&NOT_PERMITTED, not_permitted)]
    }
}
