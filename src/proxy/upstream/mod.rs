//! The running side of clusters, as one worker sees it: connections, by cluster and endpoint. They outlive snapshots: a snapshot
//! that changes a cluster's endpoints keeps those of endpoints that stay. Who these are is `snapshot::Cluster`'s to say; what
//! all workers know of them together is `resilience`'s.

mod admission;
mod choice;
mod connection;
mod open;
mod permission;
mod pool;

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

pub(super) use admission::{Admitted, Chosen, SparePlace, admit, choose, spare_place};
use choice::Choice;
pub(super) use choice::{Wanted, Wish};
pub(super) use connection::{Answer, Lease, SendFailure, Takeover};
pub(super) use permission::Permission;
pub(super) use pool::Pool;

use crate::clock;
use crate::resilience::{Circuit, ClusterState, Copying, EndpointState, Percentiles, Registry, RetryUnderWay, TooMany};
use crate::snapshot::{Cluster, ClusterName, Endpoint, Map, Snapshot};

/// One worker's upstreams.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    registry: Registry,
    room: usize,
    by_name: RefCell<Map<ClusterName, Rc<Upstream>>>,
}

/// One cluster, as one worker sees it.
#[derive(Debug)]
pub(super) struct Upstream {
    cluster: Arc<Cluster>,
    /// What the whole process knows of it.
    state: Arc<ClusterState>,
    /// How much of a stream's content is held at most.
    room: usize,
    hosts: Box<[Rc<Host>]>,
    choice: Choice,
}

/// One endpoint, as one worker sees it.
#[derive(Debug)]
pub(super) struct Host {
    /// Address and weight.
    pub endpoint: Endpoint,
    /// What the whole process knows of it.
    pub state: Arc<EndpointState>,
    /// The breaker of its cluster.
    cluster_circuit: Option<Arc<Circuit>>,
    /// Its own breaker.
    circuit: Option<Arc<Circuit>>,
    /// Unused connections.
    pub pool: Rc<Pool>,
}

/// Counts a request in flight until dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    host: Rc<Host>,
    /// What it holds of its cluster.
    admitted: Option<Rc<Admitted>>,
}

impl InFlight {
    fn new(host: &Rc<Host>) -> Self {
        host.state.enter();
        InFlight { host: Rc::clone(host), admitted: None }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.host.state.leave();
        // Its connection is in the pool by now, or has room for another stream.
        admission::freed(self.host.state.cluster());
    }
}

impl Upstream {
    /// The cluster.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// There is a request for it.
    pub(super) fn ask(&self) {
        if let Some(host) = self.hosts.first() {
            host.state.cluster().ask();
        }
    }

    /// The endpoint for the next request, not one of those tried already.
    pub(super) fn pick(&self, tried: &[SocketAddr], wish: &Wish) -> Option<&Rc<Host>> {
        self.choice.pick(tried, wish).map(|host| &self.hosts[host])
    }

    /// Where its endpoints listen.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.hosts.iter().map(|host| host.endpoint.address)
    }

    /// Whether there is an endpoint that was not tried yet.
    pub(super) fn has_another(&self, tried: &[SocketAddr], wish: &Wish) -> bool {
        self.choice.has_another(tried, wish)
    }

    /// Begins a retry.
    ///
    /// # Errors
    /// Why the cluster does not bear another one.
    pub(super) fn retry(&self) -> Result<RetryUnderWay, TooMany> {
        self.state.retry(self.cluster.resilience.retry_budget)
    }

    /// Begins an attempt beside another one. There is a budget for these in any case: a cluster that becomes slow as a whole must not
    /// get twice the load for it.
    ///
    /// # Errors
    /// Why the cluster does not bear another one.
    pub(super) fn hedge(&self) -> Result<RetryUnderWay, TooMany> {
        self.state.retry(Some(self.cluster.resilience.retry_budget.unwrap_or_default()))
    }

    /// Begins a copy of a request for somebody else, unless `most` are under way already.
    pub(super) fn copy(&self, most: u32) -> Option<Copying> {
        self.state.copy(most)
    }

    /// How long the heads of its answers take to come, of routes that hedge.
    pub(super) fn heads(&self) -> &Percentiles {
        self.state.heads()
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
    /// A worker's upstreams; `registry` is the process's. Of a stream's content they hold no more than `room` bytes.
    pub(super) fn new(registry: Registry, room: usize) -> Self {
        Upstreams { registry, room, by_name: RefCell::default() }
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
            .filter(|before| before.cluster.connections.proxy_protocol == cluster.connections.proxy_protocol)
            .filter(|before| before.cluster.connections.tls == cluster.connections.tls)
            .into_iter()
            .flat_map(|before| before.hosts.iter().map(|host| (host.endpoint.address, host)))
            .collect();
        let states = self.registry.of(cluster, clock::now());
        let state = self.registry.cluster(&cluster.name);
        let hosts = cluster.endpoints.iter().zip(states).map(|(endpoint, state)| {
            let pool = known.get(&endpoint.address).map(|host| Rc::clone(&host.pool)).unwrap_or_default();
            let (cluster_circuit, circuit) = (state.cluster().breaker().circuit(), state.breaker().circuit());
            Rc::new(Host { endpoint: endpoint.clone(), state, cluster_circuit, circuit, pool })
        });
        let hosts: Box<[Rc<Host>]> = hosts.collect();
        if let Some(before) = before {
            before.retire_absent(&hosts);
        }
        let choice = Choice::new(cluster, Arc::clone(&state), &hosts);
        Upstream { cluster: Arc::clone(cluster), state, room: self.room, hosts, choice }
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
        self.registry.prune();
    }

    /// Gives up connections that requests of other workers wait for, whenever there are such. Never ends.
    pub(super) async fn yield_connections(&self) {
        let mut heard = 0;
        loop {
            poll_fn(|cx| self.registry.bell().poll_rung(&mut heard, cx.waker())).await;
            for upstream in self.by_name.borrow().values() {
                upstream.yield_connections();
            }
        }
    }

    /// Closes connections that were unused for too long.
    pub(super) fn close_idle(&self) {
        for upstream in self.by_name.borrow().values() {
            for host in &upstream.hosts {
                host.pool.close_idle(upstream.cluster.connections.idle_timeout);
            }
        }
    }

    /// Opens connections where too few wait, to endpoints that may get requests.
    pub(super) fn warm(&self) {
        for upstream in self.by_name.borrow().values() {
            if upstream.cluster.connections.upkeep.min_idle_per_endpoint > 0 {
                for host in upstream.hosts.iter().filter(|host| host.state.is_available()) {
                    tokio::task::spawn_local(connection::warm(Rc::clone(upstream), Rc::clone(host)));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
