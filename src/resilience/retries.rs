//! Retries that are under way, and how many of them a cluster bears: they must not become the load that keeps it down.

use std::sync::Arc;

use super::ClusterState;
use crate::snapshot::RetryBudget;

/// A retry that is under way until dropped.
#[derive(Debug)]
pub struct RetryUnderWay(Arc<ClusterState>);

/// Why a retry is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// Too many are under way beside what else is in flight.
    ForBudget,
    /// As many are under way as there may be.
    ForLimit,
}

impl TooMany {
    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            TooMany::ForBudget => "over_budget",
            TooMany::ForLimit => "over_limit",
        }
    }
}

impl ClusterState {
    /// Begins a retry, if both the budget and the limit bear it. They are one count, so that both are exact.
    ///
    /// # Errors
    /// Which of them does not.
    pub fn retry(self: &Arc<Self>, budget: Option<RetryBudget>) -> Result<RetryUnderWay, TooMany> {
        let retries = self.limits().retries();
        let most = budget.map_or(u32::MAX, |RetryBudget { percent, min_concurrent }| {
            let part = self.in_flight().saturating_mul(u64::from(percent)) / 100;
            u32::try_from(part).unwrap_or(u32::MAX).max(min_concurrent)
        });
        match retries.try_take_of(most) {
            true => Ok(RetryUnderWay(Arc::clone(self))),
            false if retries.has_room() => Err(TooMany::ForBudget),
            false => Err(TooMany::ForLimit),
        }
    }
}

impl Drop for RetryUnderWay {
    fn drop(&mut self) {
        self.0.limits().retries().give_back();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;
    use crate::resilience::{EndpointState, Moment, Registry};
    use crate::snapshot::{Cluster, Limits, Resilience};

    fn limited(registry: &Registry, retries: Option<u32>) -> Arc<ClusterState> {
        let limits = Some(Limits { retries, ..Limits::NONE });
        let cluster =
            Cluster { resilience: Arc::new(Resilience { limits, ..Resilience::default() }), ..Cluster::plain() };
        registry.of(&cluster, Moment::default());
        registry.cluster(&cluster.name)
    }

    fn most(percent: u32, min_concurrent: u32, in_flight: u64) -> usize {
        let cluster = limited(&Registry::default(), None);
        let endpoint = EndpointState::new(([127, 0, 0, 1], 80).into(), Arc::clone(&cluster));
        (0..in_flight).for_each(|_| endpoint.enter());
        let budget = Some(RetryBudget { percent, min_concurrent });
        let begun: Vec<_> = std::iter::from_fn(|| cluster.retry(budget).ok()).take(1000).collect();
        assert_eq!(cluster.retry(budget).unwrap_err(), TooMany::ForBudget);
        let count = begun.len();
        drop(begun);
        assert!(count == 0 || cluster.retry(budget).is_ok(), "what is over counts no more");
        count
    }

    /// Envoy's retry budget: 20 % of what is active, and three in any case.
    #[test]
    fn a_part_of_what_is_in_flight_may_be_retries() {
        for (percent, min_concurrent, in_flight, expected) in
            [(20, 3, 0, 3), (20, 3, 10, 3), (20, 3, 100, 20), (20, 3, 104, 20), (100, 0, 7, 7), (0, 0, 1000, 0)]
        {
            assert_eq!(most(percent, min_concurrent, in_flight), expected, "{percent} % of {in_flight}");
        }
    }

    #[test]
    fn both_the_budget_and_the_limit_bound_them() {
        let registry = Registry::default();
        let cluster = limited(&registry, Some(2));
        let budget = |min_concurrent| Some(RetryBudget { percent: 0, min_concurrent });
        let first = cluster.retry(budget(1)).unwrap();
        assert_eq!(cluster.retry(budget(1)).unwrap_err(), TooMany::ForBudget);
        let second = cluster.retry(budget(100)).unwrap();
        assert_eq!(cluster.retry(budget(100)).unwrap_err(), TooMany::ForLimit);
        assert_eq!(cluster.retry(None).unwrap_err(), TooMany::ForLimit);
        // Another limit holds at once; what is under way stays so.
        limited(&registry, Some(3));
        let third = cluster.retry(None).unwrap();
        limited(&registry, Some(1));
        drop((first, second));
        assert_eq!(cluster.retry(None).unwrap_err(), TooMany::ForLimit);
        drop(third);
        assert!(cluster.retry(None).is_ok());
        limited(&registry, Some(0));
        assert_eq!(cluster.retry(None).unwrap_err(), TooMany::ForLimit);
    }

    #[test]
    fn threads_share_one_budget() {
        let cluster = limited(&Registry::default(), None);
        let budget = Some(RetryBudget { percent: 0, min_concurrent: 100 });
        let begun: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..100).filter_map(|_| cluster.retry(budget).ok()).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(begun.len(), 100);
    }

    #[test]
    fn threads_never_have_more_under_way_than_the_limit() {
        const MOST: u32 = 3;
        let cluster = limited(&Registry::default(), Some(MOST));
        let (under_way, made) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        if let Ok(_retry) = cluster.retry(None) {
                            assert!(under_way.fetch_add(1, Ordering::SeqCst) < MOST);
                            made.fetch_add(1, Ordering::SeqCst);
                            under_way.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(made.into_inner() > 0);
        assert_eq!(cluster.limits().retries().taken(), 0);
    }
}
