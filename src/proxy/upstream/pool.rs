//! Connections to one endpoint that wait for a request, of one worker. The balancer picks the endpoint first, so a pool
//! never chooses between endpoints. The connection that was used last is used next; the others age.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::proxy::http1::Client;
use crate::proxy::http2::Http2;
use crate::snapshot::Protocol;

/// How often failures of one endpoint are told of.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The waiting HTTP/1.1 connections and the shared HTTP/2 connections.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    http1: RefCell<Vec<(Client, Instant)>>,
    http2: RefCell<Vec<Http2>>,
    connecting: Mutex<()>,
    opening: Cell<bool>,
    /// The endpoint chose HTTP/2 where it could choose.
    shares: Cell<bool>,
    told: Cell<Option<Instant>>,
    retired: Cell<bool>,
}

/// An HTTP/2 connection is being opened, until dropped.
#[derive(Debug)]
pub(super) struct Opening<'a>(&'a Cell<bool>);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Pool {
    /// Takes an HTTP/1.1 connection that looks alive.
    pub(super) fn take_http1(&self, idle_timeout: Duration) -> Option<Client> {
        let mut waiting = self.http1.borrow_mut();
        while let Some((connection, since)) = waiting.pop() {
            if since.elapsed() >= idle_timeout {
                // The ones below waited even longer.
                waiting.clear();
                return None;
            }
            if !connection.is_stale() && !connection.is_old() {
                return Some(connection);
            }
        }
        None
    }

    /// The endpoint is gone: closes what waits, and keeps nothing any more. What runs holds its own connection.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.http1.take();
        self.http2.take();
    }

    /// Keeps an HTTP/1.1 connection for later, unless `limit` wait already.
    pub(super) fn put_http1(&self, connection: Client, limit: u32) {
        let mut waiting = self.http1.borrow_mut();
        if waiting.len() < limit as usize && !self.retired.get() {
            waiting.push((connection, Instant::now()));
        }
    }

    /// An HTTP/2 connection with room for a stream.
    pub(super) fn http2(&self) -> Option<Http2> {
        let mut connections = self.http2.borrow_mut();
        connections.retain_mut(|connection| !connection.is_closed() && !connection.is_old());
        connections.iter().find(|connection| connection.has_room()).cloned()
    }

    /// An HTTP/2 connection is being opened, until this is dropped.
    pub(super) fn opens(&self) -> Opening<'_> {
        self.opening.set(true);
        Opening(&self.opening)
    }

    /// The endpoint chose HTTP/2.
    pub(super) fn now_shares(&self) {
        self.shares.set(true);
    }

    /// Whether the next connection will probably be one that many share.
    pub(super) fn shares(&self) -> bool {
        self.shares.get()
    }

    /// Whether it is time to tell people of another failure.
    pub(super) fn may_tell(&self) -> bool {
        let may = self.told.get().is_none_or(|last| last.elapsed() >= TOLD_EVERY);
        if may {
            self.told.set(Some(Instant::now()));
        }
        may
    }

    /// Whether a connection waits for a request, or has room for one.
    pub(super) fn has_room(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Http1 => !self.http1.borrow().is_empty(),
            // Whoever opens one shares it.
            Protocol::Http2 => self.http2().is_some() || self.opening.get(),
            Protocol::Agreed => self.has_room(Protocol::Http1) || self.has_room(Protocol::Http2),
        }
    }

    /// Whether there is a connection that can be given up without cutting anything.
    pub(super) fn has_any(&self) -> bool {
        !self.http1.borrow().is_empty() || !self.http2.borrow().is_empty()
    }

    /// Gives up a connection: the one that was unused for longest, or, if all carry streams, the one with the fewest, which
    /// carries no others and ends with them.
    pub(super) fn give_up_one(&self) {
        let mut waiting = self.http1.borrow_mut();
        if !waiting.is_empty() {
            drop(waiting.remove(0));
            return;
        }
        let mut shared = self.http2.borrow_mut();
        if let Some((least, _)) = shared.iter().enumerate().min_by_key(|(_, connection)| connection.streams()) {
            drop(shared.swap_remove(least));
        }
    }

    /// Waits for the turn to open an HTTP/2 connection: requests that come while one is being opened share it.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.connecting.lock().await
    }

    /// Takes the turn to open a connection that nobody waits for, if it is free and fewer than `enough` are there.
    pub(super) fn turn_to_warm(&self, protocol: Protocol, enough: u32) -> Option<MutexGuard<'_, ()>> {
        let waiting = match protocol {
            Protocol::Http1 => self.http1.borrow().len(),
            // One carries many streams, once it is known to.
            Protocol::Http2 | Protocol::Agreed if !self.http2.borrow().is_empty() => enough as usize,
            Protocol::Http2 => 0,
            Protocol::Agreed => self.http1.borrow().len(),
        };
        let wanted = waiting < enough as usize && !self.retired.get();
        if wanted { self.connecting.try_lock().ok() } else { None }
    }

    /// Shares an HTTP/2 connection.
    pub(super) fn share_http2(&self, connection: &Http2) {
        if !self.retired.get() {
            self.http2.borrow_mut().push(connection.clone());
        }
    }

    /// Closes connections that were unused for too long.
    pub(super) fn close_idle(&self, idle_timeout: Duration) {
        let now = Instant::now();
        self.http1.borrow_mut().retain(|(connection, since)| {
            now.duration_since(*since) < idle_timeout && !connection.is_stale() && !connection.is_old()
        });
        self.http2.borrow_mut().retain_mut(|connection| {
            !connection.is_closed() && !connection.is_old() && !connection.idle_for(idle_timeout)
        });
    }
}
