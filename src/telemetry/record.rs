//! Writing exchanges down: counters and the access log. One [`Telemetry`] per process, one [`Recorder`] per worker.

use std::marker::PhantomData;

use super::{Exchange, Kind};

/// The process's telemetry.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {}

/// A worker's way to write exchanges down without locks.
#[derive(Debug, Default)]
pub struct Recorder {
    not_send: PhantomData<std::rc::Rc<()>>,
}

/// Counts an open downstream connection until dropped.
#[derive(Debug)]
pub struct ConnectionGuard;

/// Counts an active stream until dropped.
#[derive(Debug)]
pub struct ActiveGuard;

impl Telemetry {
    /// A recorder for the calling worker.
    pub fn recorder(&self) -> Recorder {
        Recorder::default()
    }
}

impl Recorder {
    /// Writes an exchange down.
    pub fn record(&self, _exchange: &Exchange<'_>) {
        let _ = self.not_send;
    }

    /// A downstream connection was opened.
    pub fn connection(&self) -> ConnectionGuard {
        ConnectionGuard
    }

    /// A downstream connection was closed for a reason of the connection itself (over the limit, head too slow,
    /// malformed request), from the closed set of reasons.
    pub fn connection_refused(&self, _reason: &'static str) {}

    /// A stream of this kind is active.
    pub fn active(&self, _kind: Kind) -> ActiveGuard {
        ActiveGuard
    }

    /// A connection to an endpoint of `upstream` was attempted.
    pub fn upstream_connect(&self, _upstream: &str, _succeeded: bool) {}
}
