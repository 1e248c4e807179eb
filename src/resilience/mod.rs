//! The running side of clusters that the whole process shares: how loaded, how fast and how well each endpoint is. Keyed by
//! cluster and address, it outlives snapshots. Workers report what became of their attempts, and read whom to avoid.
//!
//! Not here: connections, which are a worker's own (`proxy::upstream`); configuration (`snapshot`); anything that waits or
//! speaks to the network.

mod ewma;
mod moment;
mod outcome;
mod state;
mod transition;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use ewma::Ewma;
pub use moment::Moment;
pub use outcome::Outcome;
pub use state::{ClusterState, EndpointState, KeptOut};
pub use transition::{Change, State, Subject, Transition, Untold, Why};

use crate::snapshot::{Cluster, ClusterName, Map};
use transition::Journal;

/// Every cluster that a worker knows. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    entries: Arc<Mutex<Map<ClusterName, Entry>>>,
    journal: Journal,
}

#[derive(Debug)]
struct Entry {
    cluster: Arc<ClusterState>,
    endpoints: Map<SocketAddr, Arc<EndpointState>>,
}

impl Registry {
    /// The states of a cluster's endpoints, in their order.
    pub fn of(&self, cluster: &Cluster) -> Vec<Arc<EndpointState>> {
        let mut entries = self.entries();
        let entry = entries.entry(cluster.name.clone()).or_insert_with(|| Entry {
            cluster: Arc::new(ClusterState::new(cluster.name.clone(), self.journal.clone())),
            endpoints: Map::default(),
        });
        let Entry { cluster: shared, endpoints } = entry;
        let states = cluster.endpoints.iter().map(|endpoint| {
            let state = endpoints.entry(endpoint.address);
            Arc::clone(state.or_insert_with(|| Arc::new(EndpointState::new(endpoint.address, Arc::clone(shared)))))
        });
        states.collect()
    }

    /// Requests in flight to all endpoints.
    pub fn in_flight(&self) -> u64 {
        let entries = self.entries();
        entries.values().flat_map(|entry| entry.endpoints.values()).map(|endpoint| endpoint.in_flight()).sum()
    }

    /// Forgets endpoints that no worker knows and no exchange uses any more, and clusters without any.
    pub fn prune(&self) {
        self.entries().retain(|_, entry| {
            entry.endpoints.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
            !entry.endpoints.is_empty()
        });
    }

    /// Takes the changes that nobody was told of yet.
    pub fn untold(&self) -> Untold {
        self.journal.take()
    }

    fn entries(&self) -> MutexGuard<'_, Map<ClusterName, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
