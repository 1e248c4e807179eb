//! What is known of one cluster and of one endpoint of it, by all threads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::ejection::Judged;
use super::standing::{Counts, Standing};
use super::transition::Journal;
use super::{Change, Ewma, KeptOut, Moment, Outcome, Transition};
use crate::snapshot::{Cluster, ClusterName, Resilience};

/// One cluster.
#[derive(Debug)]
pub struct ClusterState {
    name: ClusterName,
    settings: ArcSwap<Resilience>,
    pub(super) counts: Counts,
    journal: Journal,
}

impl ClusterState {
    pub(super) fn new(name: ClusterName, journal: Journal) -> Self {
        ClusterState { name, settings: ArcSwap::default(), counts: Counts::default(), journal }
    }

    /// Takes the settings of a new snapshot.
    pub(super) fn configure(&self, cluster: &Cluster) {
        self.counts.set_members(cluster.endpoints.len());
        if !Arc::ptr_eq(&self.settings.load(), &cluster.resilience) {
            self.settings.store(Arc::clone(&cluster.resilience));
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> Guard<Arc<Resilience>> {
        self.settings.load()
    }

    /// Its identity.
    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// Changes whenever an endpoint is kept out or let in: what workers compute from that is theirs until then.
    pub fn version(&self) -> u32 {
        self.counts.version()
    }

    /// Lets people know of a change of the cluster as a whole.
    pub fn tell(&self, change: Change) {
        self.journal.note(Transition { cluster: self.name.clone(), endpoint: None, change });
    }
}

/// One endpoint of a cluster.
#[derive(Debug)]
pub struct EndpointState {
    cluster: Arc<ClusterState>,
    address: SocketAddr,
    in_flight: AtomicU64,
    first_byte: Ewma,
    pub(super) standing: Standing,
    pub(super) judged: Judged,
}

impl EndpointState {
    pub(super) fn new(address: SocketAddr, cluster: Arc<ClusterState>) -> Self {
        EndpointState {
            cluster,
            address,
            in_flight: AtomicU64::new(0),
            first_byte: Ewma::default(),
            standing: Standing::new(),
            judged: Judged::default(),
        }
    }

    /// Its cluster.
    pub fn cluster(&self) -> &ClusterState {
        &self.cluster
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests and streams in flight, of all workers.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A request begins.
    pub fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request, or the stream it became, is over.
    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// How long answers take to begin.
    pub fn first_byte(&self) -> &Ewma {
        &self.first_byte
    }

    /// Whether it may get requests.
    pub fn is_available(&self) -> bool {
        self.standing.is_available()
    }

    /// Whether it is kept out for this reason.
    pub fn is_kept_out(&self, why: KeptOut) -> bool {
        self.standing.has(why)
    }

    /// Keeps it out for a reason, or not any more. Returns whether that is news.
    pub fn keep_out(&self, why: KeptOut, out: bool) -> bool {
        self.standing.set(why, out, &self.cluster.counts)
    }

    /// Lets people know of a change of this endpoint.
    pub fn tell(&self, change: Change) {
        let Self { cluster, address, .. } = self;
        cluster.journal.note(Transition { cluster: cluster.name.clone(), endpoint: Some(*address), change });
    }

    /// Learns what became of an attempt.
    pub fn report(&self, outcome: Outcome, now: Moment) {
        if let Outcome::Answered { first_byte, .. } = outcome {
            self.first_byte.observe(first_byte, now);
        }
        self.judge(outcome, now);
    }
}
