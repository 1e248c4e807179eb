//! The metrics of rate limits, read where they are when metrics are asked for.

use std::fmt;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::collect::{counter, family, gauge};
use super::metrics::{RATE_LIMIT_KEYS, RATE_LIMITED};

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

/// Collects what `read` tells.
pub(super) struct RateLimits<F> {
    read: F,
    descs: [Desc; 2],
}

impl<F> RateLimits<F> {
    pub(super) fn new(read: F) -> Self {
        RateLimits { read, descs: [RATE_LIMITED.desc(), RATE_LIMIT_KEYS.desc()] }
    }
}

impl<F> fmt::Debug for RateLimits<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits").finish_non_exhaustive()
    }
}

impl<F: Fn() -> Vec<RateLimited> + Send + Sync> Collector for RateLimits<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (mut refusals, mut counted) = (Vec::new(), Vec::new());
        for RateLimited { policy, limit, refused, keys } in (self.read)() {
            let labels = [("policy", &*policy), ("limit", &*limit)];
            refusals.push(counter(&labels, refused as f64));
            counted.push(gauge(&labels, keys as f64));
        }
        vec![family(&RATE_LIMITED, refusals), family(&RATE_LIMIT_KEYS, counted)]
    }
}
