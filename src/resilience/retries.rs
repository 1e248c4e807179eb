//! Retries that are under way, and how many of them a cluster bears: they must not become the load that keeps it down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ClusterState;
use crate::snapshot::RetryBudget;

/// Retries that are under way to one cluster, of all workers.
#[derive(Debug, Default)]
pub(super) struct Retries(AtomicU64);

/// A retry that is under way until dropped.
#[derive(Debug)]
pub struct RetryUnderWay(Arc<ClusterState>);

impl ClusterState {
    /// Begins a retry; `None` if there would be too many beside what is in flight.
    pub fn retry(self: &Arc<Self>, budget: Option<RetryBudget>) -> Option<RetryUnderWay> {
        let most = budget.map_or(u64::MAX, |RetryBudget { percent, min_concurrent }| {
            (self.in_flight().saturating_mul(u64::from(percent)) / 100).max(u64::from(min_concurrent))
        });
        let begins = |under_way| (under_way < most).then_some(under_way + 1);
        let begun = self.retries.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, begins);
        begun.is_ok().then(|| RetryUnderWay(Arc::clone(self)))
    }
}

impl Drop for RetryUnderWay {
    fn drop(&mut self) {
        self.0.retries.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resilience::EndpointState;
    use crate::snapshot::ClusterName;

    fn most(percent: u32, min_concurrent: u32, in_flight: u64) -> usize {
        let cluster =
            Arc::new(ClusterState::new(ClusterName::new("shop/llm:80"), Default::default(), Default::default()));
        let endpoint = EndpointState::new(([127, 0, 0, 1], 80).into(), Arc::clone(&cluster));
        (0..in_flight).for_each(|_| endpoint.enter());
        let budget = Some(RetryBudget { percent, min_concurrent });
        let begun: Vec<_> = std::iter::from_fn(|| cluster.retry(budget)).take(1000).collect();
        let count = begun.len();
        drop(begun);
        assert!(count == 0 || cluster.retry(budget).is_some(), "what is over counts no more");
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
    fn threads_share_one_budget() {
        let cluster =
            Arc::new(ClusterState::new(ClusterName::new("shop/llm:80"), Default::default(), Default::default()));
        let budget = Some(RetryBudget { percent: 0, min_concurrent: 100 });
        let begun: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..100).filter_map(|_| cluster.retry(budget)).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        assert_eq!(begun.len(), 100);
    }
}
