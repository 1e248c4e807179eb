//! The metrics of rate limits, read where they are when metrics are asked for.

use std::fmt;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::collect::{counter, family, gauge};
use super::metrics::{Metrics, RATE_LIMIT_CONNECTED, RATE_LIMIT_KEYS, RATE_LIMIT_QUESTIONS, RATE_LIMITED};

/// A rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// The policy that it is of.
    pub policy: Arc<str>,
    /// Its name.
    pub limit: Arc<str>,
    /// Requests that it refused.
    pub refused: u64,
    /// Keys that are counted.
    pub keys: u64,
}

/// Whether there is a connection to whoever counts for all replicas, and how many questions went how; if anybody does.
pub type Counted = Option<(bool, Vec<(&'static str, u64)>)>;

impl Metrics {
    /// From now on shows what `read` tells of rate limits.
    pub fn rate_limits(&self, read: impl Fn() -> (Vec<RateLimited>, Counted) + Send + Sync + 'static) {
        if let Err(error) = self.registry.register(Box::new(RateLimits::new(read))) {
            tracing::error!(%error, "the metrics of rate limits are not shown");
        }
    }
}

/// Collects what `read` tells.
pub(super) struct RateLimits<F> {
    read: F,
    descs: [Desc; 4],
}

impl<F> RateLimits<F> {
    pub(super) fn new(read: F) -> Self {
        let descs = [&RATE_LIMITED, &RATE_LIMIT_KEYS, &RATE_LIMIT_QUESTIONS, &RATE_LIMIT_CONNECTED];
        RateLimits { read, descs: descs.map(|declared| declared.desc()) }
    }
}

impl<F> fmt::Debug for RateLimits<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits").finish_non_exhaustive()
    }
}

impl<F: Fn() -> (Vec<RateLimited>, Counted) + Send + Sync> Collector for RateLimits<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (limits, elsewhere) = (self.read)();
        let (mut refusals, mut counted) = (Vec::new(), Vec::new());
        for RateLimited { policy, limit, refused, keys } in limits {
            let labels = [("policy", &*policy), ("limit", &*limit)];
            refusals.push(counter(&labels, refused as f64));
            counted.push(gauge(&labels, keys as f64));
        }
        let connected = elsewhere.iter().map(|(connected, _)| gauge(&[], f64::from(u8::from(*connected))));
        let questions = elsewhere.iter().flat_map(|(_, questions)| questions);
        let questions = questions.map(|(outcome, count)| counter(&[("outcome", outcome)], *count as f64));
        vec![
            family(&RATE_LIMITED, refusals),
            family(&RATE_LIMIT_KEYS, counted),
            family(&RATE_LIMIT_QUESTIONS, questions.collect()),
            family(&RATE_LIMIT_CONNECTED, connected.collect()),
        ]
    }
}
