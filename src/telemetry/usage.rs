//! How much of each upstream is in use, asked of whoever knows when metrics are asked for.

use std::fmt;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::collect::{counter, family, gauge};
use super::metrics::{
    Declared, Metrics, Type, UPSTREAM_ACTIVE, UPSTREAM_LIMIT, UPSTREAM_OVERFLOW, UPSTREAM_PENDING,
    UPSTREAM_QUEUE_TIMEOUTS,
};

const FAMILIES: [Declared; 5] =
    [UPSTREAM_ACTIVE, UPSTREAM_LIMIT, UPSTREAM_PENDING, UPSTREAM_OVERFLOW, UPSTREAM_QUEUE_TIMEOUTS];

/// How much of one kind is in use of an upstream.
#[derive(Clone, Debug)]
pub struct Usage {
    /// The name of the upstream.
    pub upstream: String,
    /// The kind, from a closed set: the name of its limit.
    pub limit: &'static str,
    /// How much is in use.
    pub active: u32,
    /// How much may be; `None` without a limit.
    pub most: Option<u32>,
    /// Requests that wait for more; `None` if none does for this kind.
    pub queue: Option<Queue>,
}

/// Requests that wait.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// How many do.
    pub pending: u32,
    /// Requests that were refused, because no more may wait.
    pub refused: u64,
    /// Requests that waited for too long.
    pub timed_out: u64,
}

impl Metrics {
    /// Has `ask` asked how much of upstreams is in use whenever somebody wants to know. Only the first who says so is asked.
    pub fn ask_usage(&self, ask: impl Fn() -> Vec<Usage> + Send + Sync + 'static) {
        if let Err(error) = self.registry.register(Box::new(Usages::new(ask))) {
            tracing::debug!(%error, "usage of upstreams");
        }
    }
}

/// Asks what is in use.
pub(super) struct Usages {
    ask: Box<dyn Fn() -> Vec<Usage> + Send + Sync>,
    descs: Vec<Desc>,
}

impl fmt::Debug for Usages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usages").finish_non_exhaustive()
    }
}

impl Usages {
    pub(super) fn new(ask: impl Fn() -> Vec<Usage> + Send + Sync + 'static) -> Self {
        Usages { ask: Box::new(ask), descs: FAMILIES.iter().map(Declared::desc).collect() }
    }
}

impl Collector for Usages {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut usages = (self.ask)();
        usages.sort_unstable_by(|a, b| (&a.upstream, a.limit).cmp(&(&b.upstream, b.limit)));
        let all = |declared: &Declared, value: fn(&Usage) -> Option<f64>| {
            let make = if declared.kind == Type::Counter { counter } else { gauge };
            let labelled =
                |usage: &Usage| Some(make(&[("upstream", &usage.upstream), ("limit", usage.limit)], value(usage)?));
            family(declared, usages.iter().filter_map(labelled).collect())
        };
        vec![
            all(&UPSTREAM_ACTIVE, |usage| Some(usage.active.into())),
            all(&UPSTREAM_LIMIT, |usage| usage.most.map(f64::from)),
            all(&UPSTREAM_PENDING, |usage| usage.queue.map(|queue| queue.pending.into())),
            all(&UPSTREAM_OVERFLOW, |usage| usage.queue.map(|queue| queue.refused as f64)),
            all(&UPSTREAM_QUEUE_TIMEOUTS, |usage| usage.queue.map(|queue| queue.timed_out as f64)),
        ]
    }
}
