//! Copies of requests that are under way to a cluster: how many there are is counted for the process, apart from its requests.

use std::sync::Arc;

use super::ClusterState;

/// A copy that is under way until dropped.
#[derive(Debug)]
pub struct Copying(Arc<ClusterState>);

impl ClusterState {
    /// Begins a copy, unless `most` are under way already.
    pub fn copy(self: &Arc<Self>, most: u32) -> Option<Copying> {
        self.copies.try_take_of(most).then(|| Copying(Arc::clone(self)))
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.copies.give_back();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::resilience::{Moment, Registry};
    use crate::snapshot::Cluster;

    #[test]
    fn no_more_are_under_way_than_may_be_and_places_come_back() {
        let (registry, cluster) = (Registry::default(), Cluster::plain());
        registry.of(&cluster, Moment::default());
        let state = registry.cluster(&cluster.name);
        let (one, two) = (state.copy(2).unwrap(), state.copy(2).unwrap());
        assert!(state.copy(2).is_none());
        assert!(state.copy(3).is_some(), "who allows more gets more");
        drop(one);
        assert!(state.copy(2).is_some());
        drop(two);
    }
}
