//! What is known of one cluster and of one endpoint of it, by all threads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::transition::Journal;
use super::{Change, Ewma, Moment, Outcome, Transition};
use crate::snapshot::ClusterName;

/// One cluster.
#[derive(Debug)]
pub struct ClusterState {
    name: ClusterName,
    version: AtomicU32,
    journal: Journal,
}

/// Why an endpoint gets no requests. Each reason comes and goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeptOut {
    /// Health checks fail.
    Unhealthy = 1,
    /// Its answers were failures, or much slower than those of others.
    Ejected = 2,
    /// Its circuit breaker is open.
    BreakerOpen = 4,
}

impl ClusterState {
    pub(super) fn new(name: ClusterName, journal: Journal) -> Self {
        ClusterState { name, version: AtomicU32::new(0), journal }
    }

    /// Its identity.
    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// Changes whenever an endpoint is kept out or let in: what workers compute from that is theirs until then.
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
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
    /// Bits of [`KeptOut`].
    kept_out: AtomicU8,
}

impl EndpointState {
    pub(super) fn new(address: SocketAddr, cluster: Arc<ClusterState>) -> Self {
        EndpointState {
            cluster,
            address,
            in_flight: AtomicU64::new(0),
            first_byte: Ewma::default(),
            kept_out: AtomicU8::new(0),
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
        self.kept_out.load(Ordering::Relaxed) == 0
    }

    /// Whether it is kept out for this reason.
    pub fn is_kept_out(&self, why: KeptOut) -> bool {
        self.kept_out.load(Ordering::Relaxed) & why as u8 != 0
    }

    /// Keeps it out for a reason, or not any more. Returns whether that is news.
    pub fn keep_out(&self, why: KeptOut, out: bool) -> bool {
        let bit = why as u8;
        let before = match out {
            true => self.kept_out.fetch_or(bit, Ordering::Relaxed),
            false => self.kept_out.fetch_and(!bit, Ordering::Relaxed),
        };
        let news = (before & bit != 0) != out;
        if news {
            self.cluster.version.fetch_add(1, Ordering::Release);
        }
        news
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_to_be_kept_out_come_and_go_by_themselves() {
        let cluster = Arc::new(ClusterState::new(ClusterName::new("shop/llm:80"), Journal::default()));
        let endpoint = EndpointState::new(([127, 0, 0, 1], 80).into(), cluster);
        assert!(endpoint.keep_out(KeptOut::Ejected, true));
        assert!(!endpoint.keep_out(KeptOut::Ejected, true), "no news");
        assert!(endpoint.keep_out(KeptOut::Unhealthy, true));
        assert_eq!(endpoint.cluster().version(), 2, "only news count");
        assert!(endpoint.keep_out(KeptOut::Ejected, false));
        assert!(!endpoint.is_available() && endpoint.is_kept_out(KeptOut::Unhealthy));
        assert!(endpoint.keep_out(KeptOut::Unhealthy, false) && endpoint.is_available());
    }
}
