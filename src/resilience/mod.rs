//! The running side of clusters that the whole process shares: how loaded, how fast and how well each endpoint is. Keyed by
//! cluster and address, it outlives snapshots. Workers report what became of their attempts, and read whom to avoid.
//!
//! Not here: connections, which are a worker's own (`proxy::upstream`); configuration (`snapshot`); anything that waits or
//! speaks to the network.

mod adaptive;
mod backoff;
pub mod balance;
mod bell;
pub mod breaker;
mod census;
mod circuit;
mod copies;
mod ejection;
mod ewma;
mod limits;
mod moment;
mod outcome;
mod percentiles;
pub mod rate;
mod retries;
mod standing;
mod state;
mod transition;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use backoff::around;
pub use bell::Bell;
pub use census::Census;
pub use circuit::{Breakers, Circuit, Place, Socket};
pub use copies::Copying;
pub use ejection::Out;
pub use ewma::Ewma;
pub use limits::{Admission, Called, Connected, Gate, InLine, InUse, Limited, Limits, RETRIES, Waiting};
pub use moment::Moment;
pub use outcome::Outcome;
pub use percentiles::Percentiles;
pub use retries::{RetryUnderWay, TooMany};
pub use standing::KeptOut;
pub use state::{Checked, ClusterState, EndpointState};
pub use transition::{Change, State, Subject, Transition, Untold, Why};

use crate::snapshot::{Cluster, ClusterName, Map};
use rate::Limiters;
use transition::Journal;

/// Every cluster that a worker knows. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    entries: Arc<Mutex<Map<ClusterName, Entry>>>,
    journal: Journal,
    /// Rung when a worker may have to give up unused connections.
    bell: Bell,
    limiters: Limiters,
}

#[derive(Debug)]
struct Entry {
    cluster: Arc<ClusterState>,
    endpoints: Map<SocketAddr, Arc<EndpointState>>,
    /// When the endpoints were last compared with each other.
    compared: Option<Moment>,
}

impl Registry {
    /// The states of a cluster's endpoints, in their order. Its settings and its endpoints are now those of `cluster`. Those that are
    /// new to a cluster which has others are eased in.
    pub fn of(&self, cluster: &Cluster, now: Moment) -> Vec<Arc<EndpointState>> {
        let mut entries = self.entries();
        let Entry { cluster: shared, endpoints, .. } = self.entry(&mut entries, &cluster.name);
        shared.configure(cluster, now);
        let first = endpoints.is_empty();
        let check = cluster.resilience.health.as_ref();
        let states = cluster.endpoints.iter().map(|endpoint| {
            let state = endpoints.entry(endpoint.address).or_insert_with(|| {
                let new = EndpointState::new(endpoint.address, Arc::clone(shared));
                // Before anybody can pick it.
                new.keep_out(KeptOut::Untried, check.is_some_and(|check| check.before_use));
                Arc::new(new)
            });
            if check.is_none() {
                // Whoever checked it may have left it so.
                state.keep_out(KeptOut::Unhealthy, false);
                state.keep_out(KeptOut::Untried, false);
            }
            Arc::clone(state)
        });
        let states: Vec<_> = states.collect();
        for state in &states {
            if !first && !state.standing.is_member() {
                state.arrives();
            }
            state.join();
            state.configure(&cluster.resilience, now);
        }
        if endpoints.len() > states.len() {
            let present: HashSet<SocketAddr> = states.iter().map(|state| state.address()).collect();
            endpoints.values().filter(|state| !present.contains(&state.address())).for_each(|state| state.part());
        }
        // Last, because endpoints may have more room now, too.
        shared.limits().look_again();
        states
    }

    /// What time brings: endpoints whose ejection is over come in again, and from time to time they are compared with each
    /// other; breakers that may be asked again are. To be called often.
    pub fn sweep(&self, now: Moment) {
        for Entry { cluster, endpoints, compared } in self.entries().values_mut() {
            ejection::sweep(cluster, endpoints.values(), compared, now);
            circuit::sweep(cluster, endpoints.values(), now);
        }
        self.limiters.sweep(now);
    }

    /// Numbers for metrics, of each cluster.
    pub fn census(&self) -> Vec<Census> {
        let entries = self.entries();
        let census = |(name, entry): (&ClusterName, &Entry)| {
            Census::of(name.clone(), entry.endpoints.values(), &entry.cluster.changes)
        };
        entries.iter().map(census).collect()
    }

    /// Whether a cluster has requests or streams, or had one since this was asked last.
    pub fn was_asked(&self, cluster: &ClusterName) -> bool {
        let entries = self.entries();
        entries.get(cluster).is_some_and(|entry| entry.cluster.take_asked() || entry.cluster.in_flight() > 0)
    }

    /// The state of a cluster as a whole.
    pub fn cluster(&self, name: &ClusterName) -> Arc<ClusterState> {
        Arc::clone(&self.entry(&mut self.entries(), name).cluster)
    }

    fn entry<'a>(&self, entries: &'a mut Map<ClusterName, Entry>, name: &ClusterName) -> &'a mut Entry {
        entries.entry(name.clone()).or_insert_with(|| Entry {
            cluster: Arc::new(ClusterState::new(name.clone(), self.journal.clone(), self.bell.clone())),
            endpoints: Map::default(),
            compared: None,
        })
    }

    /// What is known of a cluster's endpoints, and of those that were some, in no order. Nothing before a worker knows it.
    pub fn known(&self, cluster: &ClusterName) -> Vec<Arc<EndpointState>> {
        self.entries().get(cluster).map(|entry| entry.endpoints.values().cloned().collect()).unwrap_or_default()
    }

    /// Requests in flight to all endpoints.
    pub fn in_flight(&self) -> u64 {
        let entries = self.entries();
        entries.values().flat_map(|entry| entry.endpoints.values()).map(|endpoint| endpoint.in_flight()).sum()
    }

    /// Forgets endpoints that no worker knows and no exchange uses any more, and clusters without any that nobody knows.
    pub fn prune(&self) {
        self.entries().retain(|_, entry| {
            entry.endpoints.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
            !entry.endpoints.is_empty() || Arc::strong_count(&entry.cluster) > 1
        });
    }

    /// Rung when a worker may have to give up unused connections.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// What is counted of the requests under policies.
    pub fn limiters(&self) -> &Limiters {
        &self.limiters
    }

    /// Every cluster.
    pub fn clusters(&self) -> Vec<Arc<ClusterState>> {
        self.entries().values().map(|entry| Arc::clone(&entry.cluster)).collect()
    }

    /// The breakers that there are, counted by state.
    pub fn breakers(&self, now: Moment) -> Vec<Breakers> {
        let mut all = Vec::new();
        for Entry { cluster, endpoints, .. } in self.entries().values() {
            all.extend(Breakers::count(cluster, endpoints.values(), now));
        }
        all.sort_by(|a, b| (&a.cluster, a.of_endpoints).cmp(&(&b.cluster, b.of_endpoints)));
        all
    }

    /// Takes the changes that nobody was told of yet.
    pub fn untold(&self) -> Untold {
        self.journal.take()
    }

    fn entries(&self) -> MutexGuard<'_, Map<ClusterName, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
