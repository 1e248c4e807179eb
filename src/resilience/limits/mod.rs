//! How much of a cluster is in use at once, exactly, over all workers; who waits for more, and for how long. Places are
//! counters, the waiting is a line ([`line`]); the sockets and clocks are others' business.
//!
//! An order keeps it from locking up: who holds a place for a request or a stream may wait for a connection, and who waits for a
//! place holds nothing.

mod gate;
mod line;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::thread::ThreadId;
use std::time::Duration;

pub use gate::Gate;
pub use line::Called;
use line::Line;

use super::adaptive::Adaptive;
use super::state::{ClusterState, EndpointState};
use super::{Bell, Moment};
use crate::snapshot;

/// What is limited, and waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Exchanges that are not streams.
    Requests,
    /// Event streams and WebSockets.
    Streams,
    /// Open connections.
    Connections,
}

impl Limited {
    /// All of them.
    pub const ALL: [Limited; 3] = [Limited::Requests, Limited::Streams, Limited::Connections];

    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Limited::Requests => "requests",
            Limited::Streams => "streams",
            Limited::Connections => "connections",
        }
    }
}

/// The word for retries, which are limited, too, but never wait.
pub const RETRIES: &str = "retries";

/// Nobody wants a connection of another thread's.
const CONTENT: u8 = 0;
/// Somebody wants one.
const WANTED: u8 = 1;
/// A thread gives one up.
const PROMISED: u8 = 2;

/// The limits of one cluster, and what they are at.
#[derive(Debug, Default)]
pub struct Limits {
    lanes: [Lane; 3],
    adaptive: Adaptive,
    retries: Gate,
    pending: Gate,
    /// In nanoseconds.
    pending_timeout: AtomicU64,
    /// Whether who is first in the line wants a connection that another thread may have, and whether one gives it up.
    wish: AtomicU8,
    /// Calls all threads to look whether they have.
    bell: Bell,
}

/// One kind of place, and those who wait for it.
#[derive(Debug, Default)]
pub struct Lane {
    /// The places.
    pub gate: Gate,
    line: Line,
    refused: AtomicU64,
    given_up: AtomicU64,
}

impl Lane {
    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.line.length()
    }

    fn in_line(&self) -> InLine {
        let [refused, given_up] = [&self.refused, &self.given_up].map(|count| count.load(Ordering::Relaxed));
        InLine { waiting: self.waiting(), refused, given_up }
    }
}

/// How much of one kind is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// Of what: the name of its limit.
    pub what: &'static str,
    /// How much.
    pub active: u32,
    /// How much may be; `None` without a limit.
    pub most: Option<u32>,
    /// Who waits for more; `None` if nobody does for this kind.
    pub line: Option<InLine>,
}

/// Requests in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InLine {
    /// How many wait.
    pub waiting: u32,
    /// How many were turned away, because no more may wait.
    pub refused: u64,
    /// How many waited for too long.
    pub given_up: u64,
}

impl Limits {
    /// None yet; `bell` calls all threads.
    pub(super) fn new(bell: Bell) -> Self {
        Limits { bell, ..Limits::default() }
    }

    /// The state of one of them.
    pub fn lane(&self, what: Limited) -> &Lane {
        &self.lanes[what as usize]
    }

    /// Retries that are under way.
    pub fn retries(&self) -> &Gate {
        &self.retries
    }

    /// How much of each kind is in use.
    pub fn in_use(&self) -> impl Iterator<Item = InUse> {
        let of = |what, gate: &Gate, line| InUse { what, active: gate.taken(), most: gate.limit(), line };
        let lanes = Limited::ALL.into_iter().map(move |what| {
            let lane = self.lane(what);
            of(what.as_str(), &lane.gate, Some(lane.in_line()))
        });
        lanes.chain([of(RETRIES, &self.retries, None)])
    }

    /// Takes other settings. What is in use stays so.
    pub(super) fn configure(&self, settings: Option<&snapshot::Limits>) {
        let settings = settings.unwrap_or(&snapshot::Limits::NONE);
        let snapshot::Limits { connections, requests, streams, retries, pending, pending_timeout, .. } = *settings;
        let most = requests.unwrap_or(u32::MAX);
        let adaptive = settings.adaptive.as_ref().map(|given| snapshot::Adaptive {
            min: given.min.min(most),
            max: given.max.min(most),
            ..given.clone()
        });
        let requests = self.adaptive.configure(adaptive.as_ref()).or(requests);
        let nanos = u64::try_from(pending_timeout.as_nanos()).unwrap_or(u64::MAX);
        self.pending_timeout.store(nanos, Ordering::Relaxed);
        self.pending.resize(Some(pending));
        self.retries.resize(retries);
        for (what, limit) in
            [(Limited::Requests, requests), (Limited::Streams, streams), (Limited::Connections, connections)]
        {
            self.lane(what).gate.resize(limit);
        }
    }

    /// Learns how long an answer took to begin, by which the limit of requests may adapt itself.
    pub(super) fn observe(&self, first_byte: Duration, now: Moment) {
        let lane = self.lane(Limited::Requests);
        if let Some(limit) = self.adaptive.observe(first_byte, lane.gate.taken(), now) {
            lane.gate.resize(Some(limit));
            lane.line.call();
        }
    }

    /// There may be more room than before: who waits looks again.
    pub(super) fn look_again(&self) {
        self.lanes.iter().for_each(|lane| lane.line.call());
    }

    /// How long anyone waits.
    pub fn pending_timeout(&self) -> Duration {
        Duration::from_nanos(self.pending_timeout.load(Ordering::Relaxed))
    }

    /// Takes a place, unless all are taken or others wait for one.
    fn try_enter(&self, what: Limited) -> bool {
        let lane = self.lane(what);
        lane.line.length() == 0 && lane.gate.try_take()
    }

    fn leave(&self, what: Limited) {
        let lane = self.lane(what);
        lane.gate.give_back();
        if what == Limited::Connections {
            // Who is first gets it, and who is first then has a wish of its own.
            self.wish.store(CONTENT, Ordering::SeqCst);
        }
        lane.line.call();
    }

    /// Something that only `thread` can use, a connection or room on one, is free.
    pub fn freed(&self, thread: ThreadId) {
        self.lane(Limited::Connections).line.call_thread(thread);
    }

    /// A thread has a connection that nobody there needs, or that others can use, too: they may want it.
    pub fn opened(&self) {
        if self.wish.load(Ordering::SeqCst) == WANTED {
            self.bell.ring();
        }
    }

    /// Whether `thread` should keep a connection that became free, and not close it for others who wait longer.
    pub fn may_keep(&self, thread: ThreadId) -> bool {
        self.lane(Limited::Connections).line.is_for(thread)
    }

    /// Whether somebody wants a connection of another thread's. Who got `true` must give one up; the others need not.
    pub fn yields(&self) -> bool {
        let to = if self.lane(Limited::Connections).waiting() > 0 { PROMISED } else { CONTENT };
        let wanted = self.wish.compare_exchange(WANTED, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        wanted && to == PROMISED
    }
}

/// A place for a request or a stream, until dropped.
#[derive(Debug)]
pub struct Admission {
    cluster: Arc<ClusterState>,
    what: Limited,
}

impl Admission {
    /// A place, unless all are taken or others wait for one.
    pub fn try_new(cluster: &Arc<ClusterState>, what: Limited) -> Option<Self> {
        cluster.limits().try_enter(what).then(|| Admission { cluster: Arc::clone(cluster), what })
    }

    /// A place for who is first in the line, if there is one by now.
    pub fn of_first(waiting: &Waiting) -> Option<Self> {
        let gate = &waiting.lane().gate;
        gate.try_take().then(|| Admission { cluster: Arc::clone(&waiting.cluster), what: waiting.what })
    }

    /// A place for something else in its stead, unless there is none.
    pub fn exchanged(&self, what: Limited) -> Option<Self> {
        let other = Admission::try_new(&self.cluster, what);
        if other.is_none() {
            self.cluster.limits().lane(what).refused.fetch_add(1, Ordering::Relaxed);
        }
        other
    }

    /// What it is a place for.
    pub fn what(&self) -> Limited {
        self.what
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.cluster.limits().leave(self.what);
    }
}

/// An open connection to an endpoint, until dropped.
#[derive(Debug)]
pub struct Connected(Arc<EndpointState>);

impl Connected {
    /// Counts a connection, unless its endpoint or its cluster has as many as it may have. Who is not first in the line asks
    /// only while it is empty.
    pub fn try_new(endpoint: &Arc<EndpointState>) -> Option<Self> {
        if !endpoint.connections().try_take() {
            return None;
        }
        if !endpoint.cluster().limits().lane(Limited::Connections).gate.try_take() {
            endpoint.connections().give_back();
            // Somebody may have looked meanwhile.
            endpoint.cluster().limits().lane(Limited::Connections).line.call();
            return None;
        }
        Some(Connected(Arc::clone(endpoint)))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections().give_back();
        self.0.cluster().limits().leave(Limited::Connections);
    }
}

/// A request in the line, until dropped.
#[derive(Debug)]
pub struct Waiting {
    cluster: Arc<ClusterState>,
    what: Limited,
    ticket: u64,
    thread: ThreadId,
    since: Moment,
    /// It has made the wish for a connection, which ends with it.
    wished: bool,
}

impl Waiting {
    /// Joins the line; `None` if no more may wait.
    pub fn join(cluster: &Arc<ClusterState>, what: Limited, thread: ThreadId, now: Moment) -> Option<Self> {
        let limits = cluster.limits();
        if !limits.pending.try_take() {
            limits.lane(what).refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let ticket = limits.lane(what).line.join(thread, now);
        Some(Waiting { cluster: Arc::clone(cluster), what, ticket, thread, since: now, wished: false })
    }

    fn lane(&self) -> &Lane {
        self.cluster.limits().lane(self.what)
    }

    /// Ready when there may be what is waited for. Whoever does not get it then asks again.
    pub fn poll_called(&self, now: Moment, waker: &Waker) -> Poll<Called> {
        self.lane().line.poll(self.ticket, self.cluster.limits().pending_timeout(), now, waker)
    }

    /// Has another thread give up a connection, unless one does so already. For who is first, so that the place is its own.
    pub fn want_connection(&mut self) {
        self.wished = true;
        let limits = self.cluster.limits();
        if limits.wish.compare_exchange(CONTENT, WANTED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            limits.bell.ring();
        }
    }

    /// How long it may still wait.
    pub fn time_left(&self, now: Moment) -> Duration {
        self.since + self.cluster.limits().pending_timeout() - now
    }

    /// It waited for too long.
    pub fn give_up(&self) {
        self.lane().given_up.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A connection may be to be had at one endpoint and not at another: the next one looks for itself.
        let limits = self.cluster.limits();
        let lane = limits.lane(self.what);
        let connections = self.what == Limited::Connections;
        if self.wished {
            // Before somebody else is first, or nobody: a wish that outlived who made it would keep the next one from its own.
            limits.wish.store(CONTENT, Ordering::SeqCst);
        }
        let unheard = lane.line.quit(self.ticket, || connections || lane.gate.has_room());
        if connections {
            // What it got may have room for more of its thread.
            lane.line.call_thread(self.thread);
            if unheard {
                // What its thread kept for it is nobody's now.
                limits.opened();
            }
        }
        limits.pending.give_back();
    }
}

#[cfg(test)]
mod tests;
