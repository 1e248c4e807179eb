//! What is known of one cluster and of one endpoint of it, by all threads.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::{ArcSwap, Guard};

use super::balance::Tables;
use super::census::Changes;
use super::circuit::{Place, Socket};
use super::ejection::Judged;
use super::standing::{Counts, Standing};
use super::transition::Journal;
use super::{Bell, Change, Ewma, Gate, KeptOut, Limits, Moment, Outcome, Percentiles, Transition};
use crate::snapshot::{Cluster, ClusterName, Resilience};

/// One cluster.
#[derive(Debug)]
pub struct ClusterState {
    name: ClusterName,
    settings: ArcSwap<Resilience>,
    pub(super) counts: Counts,
    in_flight: AtomicU64,
    /// Of those who use them.
    tables: Mutex<Weak<Tables>>,
    /// Whether there was a request since somebody looked.
    asked: AtomicBool,
    /// In a box, because most clusters have no route that hedges.
    heads: OnceLock<Box<Percentiles>>,
    limits: Limits,
    /// Copies of requests for others, which are under way to it.
    pub(super) copies: Gate,
    journal: Journal,
    pub(super) changes: Changes,
    breaker: Socket,
    /// Calls that its breaker, and those of its endpoints, did not permit.
    pub(super) not_permitted: (Arc<AtomicU64>, Arc<AtomicU64>),
    /// When a breaker of an endpoint lets through again that keeps it out, at the earliest, in nanoseconds.
    look_again: AtomicU64,
}

impl ClusterState {
    pub(super) fn new(name: ClusterName, journal: Journal, bell: Bell) -> Self {
        let (settings, counts, in_flight, asked, tables, changes) = Default::default();
        let (breaker, not_permitted, look_again) = (Socket::default(), Default::default(), AtomicU64::new(u64::MAX));
        ClusterState {
            name,
            settings,
            counts,
            in_flight,
            asked,
            tables,
            heads: OnceLock::new(),
            limits: Limits::new(bell),
            copies: Gate::default(),
            journal,
            changes,
            breaker,
            not_permitted,
            look_again,
        }
    }

    /// Takes the settings of a new snapshot.
    pub(super) fn configure(&self, cluster: &Cluster, now: Moment) {
        self.counts.set_members(cluster.endpoints.len());
        self.limits.configure(cluster.resilience.limits.as_ref());
        self.breaker.configure(cluster.resilience.circuit_breaker.as_ref(), Place::Cluster(self), now);
        if !Arc::ptr_eq(&self.settings.load(), &cluster.resilience) {
            self.settings.store(Arc::clone(&cluster.resilience));
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> Guard<Arc<Resilience>> {
        self.settings.load()
    }

    /// How long the heads of answers take to come, where a route wants to know that.
    pub fn heads(&self) -> &Percentiles {
        self.heads.get_or_init(Box::default)
    }

    /// How much of it is in use, and who waits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Its identity.
    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// Changes whenever an endpoint is kept out or let in: what workers compute from that is theirs until then.
    pub fn version(&self) -> u32 {
        self.counts.version()
    }

    /// Requests and streams in flight to all its endpoints, of all workers.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The tables of a version of the cluster, if it is balanced by hashing. They are large: the first worker that asks makes them,
    /// and the others wait for it.
    pub fn tables(&self, cluster: &Cluster) -> Option<Arc<Tables>> {
        cluster.resilience.balancing.algorithm.hashing()?;
        let mut known = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = known.upgrade().filter(|tables| tables.are_of(cluster));
        let tables = tables.unwrap_or_else(|| Arc::new(Tables::build(cluster)));
        *known = Arc::downgrade(&tables);
        Some(tables)
    }

    /// There is a request for it.
    pub fn ask(&self) {
        // Most often that is known, and a load disturbs no other worker.
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there was a request since this was asked last.
    pub(super) fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }

    /// Its circuit breaker.
    pub fn breaker(&self) -> &Socket {
        &self.breaker
    }

    /// An endpoint is kept out by its breaker until then.
    pub(super) fn look_again(&self, at: Moment) {
        self.look_again.fetch_min(at.nanos(), Ordering::AcqRel);
    }

    /// Whether it is time to look whether breakers let their endpoints in again. Says so once.
    pub fn is_time_to_look(&self, now: Moment) -> bool {
        let at = self.look_again.load(Ordering::Relaxed);
        let take = || self.look_again.compare_exchange(at, u64::MAX, Ordering::AcqRel, Ordering::Relaxed);
        at <= now.nanos() && take().is_ok()
    }

    /// Lets people know of a change of the cluster as a whole.
    pub fn tell(&self, change: Change) {
        self.note(None, change);
    }

    fn note(&self, endpoint: Option<SocketAddr>, change: Change) {
        self.changes.count(&change);
        self.journal.note(Transition { cluster: self.name.clone(), endpoint, change });
    }
}

/// One endpoint of a cluster.
#[derive(Debug)]
pub struct EndpointState {
    cluster: Arc<ClusterState>,
    address: SocketAddr,
    in_flight: AtomicU64,
    connections: Gate,
    first_byte: Ewma,
    pub(super) standing: Standing,
    pub(super) judged: Judged,
    /// Whether it is new, or was out when a worker looked last, so that it is eased in from when one sees it in.
    fresh: AtomicBool,
    /// Since when it is eased in, in nanoseconds; 0 if it never was.
    eased_since: AtomicU64,
    breaker: Socket,
    /// Never looked at by requests. In a box, because most endpoints are not checked.
    checked: Mutex<Option<Box<Checked>>>,
}

/// The last health check of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whether it passed.
    pub passed: bool,
    /// How it went, in a few words: `passed`, `status 503`.
    pub reason: String,
    /// When.
    pub at: Moment,
}

impl EndpointState {
    pub(super) fn new(address: SocketAddr, cluster: Arc<ClusterState>) -> Self {
        EndpointState {
            cluster,
            address,
            in_flight: AtomicU64::new(0),
            connections: Gate::default(),
            first_byte: Ewma::default(),
            standing: Standing::new(),
            judged: Judged::default(),
            fresh: AtomicBool::new(false),
            eased_since: AtomicU64::new(0),
            checked: Mutex::new(None),
            breaker: Socket::default(),
        }
    }

    /// Takes other settings.
    pub(super) fn configure(&self, settings: &Resilience, now: Moment) {
        self.breaker.configure(settings.endpoint_circuit_breaker.as_ref(), Place::Endpoint(self), now);
        self.connections.resize(settings.limits.as_ref().and_then(|limits| limits.connections_per_endpoint));
    }

    /// Open connections to it, of all workers.
    pub fn connections(&self) -> &Gate {
        &self.connections
    }

    /// Its cluster.
    pub fn cluster(&self) -> &Arc<ClusterState> {
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
        self.cluster.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request, or the stream it became, is over.
    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.cluster.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// How long answers take to begin.
    pub fn first_byte(&self) -> &Ewma {
        &self.first_byte
    }

    /// Whether it may get requests.
    pub fn is_available(&self) -> bool {
        self.standing.is_available()
    }

    /// Whether it is an endpoint of its cluster; one that is not may have streams that run on.
    pub fn is_member(&self) -> bool {
        self.standing.is_member()
    }

    /// Whether it is kept out for this reason.
    pub fn is_kept_out(&self, why: KeptOut) -> bool {
        self.standing.has(why)
    }

    /// Notes whether it is in. If it was out before, or is new, it is eased in from now on: the first worker that sees it says so for
    /// all.
    pub fn ease_in(&self, now: Moment) {
        if !self.is_available() {
            self.fresh.store(true, Ordering::Relaxed);
        } else if self.fresh.load(Ordering::Relaxed) && self.fresh.swap(false, Ordering::Relaxed) {
            self.eased_since.store(now.nanos(), Ordering::Relaxed);
        }
    }

    /// It is new, and is eased in from when a worker sees it.
    pub(super) fn arrives(&self) {
        self.fresh.store(true, Ordering::Relaxed);
    }

    /// Since when it is eased in; `None` if it never was.
    pub fn eased_since(&self) -> Option<Moment> {
        Some(self.eased_since.load(Ordering::Relaxed)).filter(|since| *since > 0).map(Moment::from_nanos)
    }

    /// Keeps it out for a reason, or not any more. Returns whether that is news.
    pub fn keep_out(&self, why: KeptOut, out: bool) -> bool {
        self.standing.set(why, out, &self.cluster.counts)
    }

    /// Learns how a health check went. What follows from it is [`KeptOut::Unhealthy`].
    pub fn learn_check(&self, passed: bool, reason: &str, at: Moment) {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *checked {
            // Most often it is as it was.
            Some(before) if before.passed == passed && before.reason == reason => before.at = at,
            other => *other = Some(Box::new(Checked { passed, reason: reason.to_owned(), at })),
        }
    }

    /// Its last health check.
    pub fn checked(&self) -> Option<Checked> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).as_deref().cloned()
    }

    /// Its circuit breaker.
    pub fn breaker(&self) -> &Socket {
        &self.breaker
    }

    /// Lets people know of a change of this endpoint.
    pub fn tell(&self, change: Change) {
        self.cluster.note(Some(self.address), change);
    }

    /// Learns what became of an attempt.
    pub fn report(&self, outcome: Outcome, now: Moment) {
        if let Outcome::Answered { first_byte, .. } = outcome {
            self.first_byte.observe(first_byte, now);
            // Failures may be faster than answers ever are.
            if !outcome.is_failure() {
                self.cluster.limits.observe(first_byte, now);
            }
        }
        self.judge(outcome, now);
    }
}
