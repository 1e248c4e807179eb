//! Numbers for metrics: how many endpoints of a cluster are in which state, and how often something changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Change, EndpointState, KeptOut, State, Why};
use crate::snapshot::ClusterName;

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Its name.
    pub cluster: ClusterName,
    /// How many of its endpoints are in each state.
    pub endpoints: [(&'static str, usize); STATES.len()],
    /// How often something became so, and why.
    pub changes: Vec<(State, Why, u64)>,
}

/// The first that holds counts: what the others say is of no consequence while it does.
const STATES: [(&str, &[KeptOut]); 4] = [
    ("unhealthy", &[KeptOut::Unhealthy, KeptOut::Untried]),
    ("ejected", &[KeptOut::Ejected, KeptOut::Refused]),
    ("breaker_open", &[KeptOut::BreakerOpen]),
    ("available", &[]),
];

/// How often something became so, and why. Changes are rare, so that a lock does no harm.
#[derive(Debug, Default)]
pub(super) struct Changes(Mutex<BTreeMap<(State, Why), u64>>);

impl Changes {
    pub(super) fn count(&self, change: &Change) {
        *self.counts().entry((change.to, change.why)).or_default() += 1;
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<(State, Why), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Census {
    pub(super) fn of<'a>(
        cluster: ClusterName,
        endpoints: impl Iterator<Item = &'a Arc<EndpointState>>,
        changes: &Changes,
    ) -> Self {
        let mut counts = STATES.map(|(state, _)| (state, 0));
        for endpoint in endpoints.filter(|endpoint| endpoint.is_member()) {
            let is_so =
                |(_, why): &(&str, &[KeptOut])| why.is_empty() || why.iter().any(|why| endpoint.is_kept_out(*why));
            if let Some(at) = STATES.iter().position(is_so) {
                counts[at].1 += 1;
            }
        }
        let changes = changes.counts().iter().map(|((to, why), count)| (*to, *why, *count)).collect();
        Census { cluster, endpoints: counts, changes }
    }
}
