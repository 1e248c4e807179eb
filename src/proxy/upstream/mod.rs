//! The running side of clusters: connections and counters, by cluster and endpoint. They outlive snapshots: a snapshot that
//! changes a cluster's endpoints keeps the state of those that stay. Who they are is `snapshot::Cluster`'s to say.

mod balance;
mod connection;
mod pool;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) use connection::{Answer, Lease, SendFailure, Takeover};
pub(super) use pool::Pool;

use crate::snapshot::{Cluster, ClusterName, Endpoint, Map, Snapshot};

/// Requests in flight to each endpoint, counted for the whole process and shared by all workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters(Arc<Mutex<InFlightByEndpoint>>);

type InFlightByEndpoint = Map<(ClusterName, SocketAddr), Arc<AtomicU64>>;

impl Counters {
    fn of(&self, cluster: &ClusterName, endpoint: SocketAddr) -> Arc<AtomicU64> {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counters.entry((cluster.clone(), endpoint)).or_default())
    }

    /// Of all endpoints together.
    pub(super) fn total(&self) -> u64 {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.values().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// Forgets endpoints that no worker knows any more.
    fn prune(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, counter| Arc::strong_count(counter) > 1);
    }
}

/// One worker's upstreams.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    counters: Counters,
    room: usize,
    by_name: RefCell<Map<ClusterName, Rc<Upstream>>>,
}

/// One cluster, as one worker sees it.
#[derive(Debug)]
pub(super) struct Upstream {
    cluster: Arc<Cluster>,
    /// How much of a stream's content is held at most.
    room: usize,
    hosts: Box<[Rc<Host>]>,
}

/// One endpoint, as one worker sees it.
#[derive(Debug)]
pub(super) struct Host {
    /// Address and weight.
    pub endpoint: Endpoint,
    in_flight: Arc<AtomicU64>,
    /// Unused connections.
    pub pool: Rc<Pool>,
}

/// Counts a request in flight until dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<AtomicU64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Host {
    /// Requests in flight, of all workers.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more.
    pub(super) fn begin(&self) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.in_flight))
    }
}

impl Upstream {
    /// The cluster.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The endpoint for the next request, not one of those tried already.
    pub(super) fn pick(&self, tried: &[SocketAddr]) -> Option<&Rc<Host>> {
        balance::power_of_two(&self.hosts, tried)
    }

    /// Gives up the pools that none of `hosts` has taken over.
    fn retire_absent(&self, hosts: &[Rc<Host>]) {
        for host in &self.hosts {
            if !hosts.iter().any(|kept| Rc::ptr_eq(&kept.pool, &host.pool)) {
                host.pool.retire();
            }
        }
    }
}

impl Upstreams {
    /// A worker's upstreams; `counters` are the process's. Of a stream's content they hold no more than `room` bytes.
    pub(super) fn new(counters: Counters, room: usize) -> Self {
        Upstreams { counters, room, by_name: RefCell::default() }
    }

    /// The running side of `cluster`.
    pub(super) fn of(&self, cluster: &Arc<Cluster>) -> Rc<Upstream> {
        let mut by_name = self.by_name.borrow_mut();
        let before = by_name.get(&cluster.name);
        if let Some(upstream) = before
            && Arc::ptr_eq(&upstream.cluster, cluster)
        {
            return Rc::clone(upstream);
        }
        let upstream = Rc::new(self.build(cluster, before));
        by_name.insert(cluster.name.clone(), Rc::clone(&upstream));
        upstream
    }

    fn build(&self, cluster: &Arc<Cluster>, before: Option<&Rc<Upstream>>) -> Upstream {
        let known: Map<SocketAddr, &Rc<Host>> = before
            .filter(|before| before.cluster.protocol == cluster.protocol)
            .into_iter()
            .flat_map(|before| before.hosts.iter().map(|host| (host.endpoint.address, host)))
            .collect();
        let hosts = cluster.endpoints.iter().map(|endpoint| {
            let known = known.get(&endpoint.address);
            Rc::new(Host {
                endpoint: *endpoint,
                in_flight: match known {
                    Some(host) => Arc::clone(&host.in_flight),
                    None => self.counters.of(&cluster.name, endpoint.address),
                },
                pool: match known {
                    Some(host) => Rc::clone(&host.pool),
                    None => Rc::default(),
                },
            })
        });
        let hosts: Box<[Rc<Host>]> = hosts.collect();
        if let Some(before) = before {
            before.retire_absent(&hosts);
        }
        Upstream { cluster: Arc::clone(cluster), room: self.room, hosts }
    }

    /// Forgets clusters that a new snapshot does not have, with their unused connections. Exchanges that run keep theirs.
    pub(super) fn retain(&self, snapshot: &Snapshot) {
        self.by_name.borrow_mut().retain(|name, upstream| match snapshot.clusters.get(name) {
            Some(cluster) => {
                if !Arc::ptr_eq(cluster, &upstream.cluster) {
                    *upstream = Rc::new(self.build(cluster, Some(upstream)));
                }
                true
            }
            None => {
                upstream.retire_absent(&[]);
                false
            }
        });
        self.counters.prune();
    }

    /// Closes connections that were unused for too long.
    pub(super) fn close_idle(&self) {
        for upstream in self.by_name.borrow().values() {
            for host in &upstream.hosts {
                host.pool.close_idle(upstream.cluster.connections.idle_timeout);
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
