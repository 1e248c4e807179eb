//! The line of those who wait for a place: first come, first served, whichever thread they are on. Only who waits, or ends the
//! waiting of others, takes its lock; whether anyone waits is read without.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::ThreadId;
use std::time::Duration;

use crate::resilience::Moment;
use crate::snapshot::Map;

/// Once a line has stood for as long as its timeout, who waits in it has this part of the timeout.
const STANDING: u32 = 10;
/// How much longer another thread's request may have waited for a connection before it gets one that became free on this
/// thread, for the price of closing it: only a thread can use its connections.
const SKEW: Duration = Duration::from_millis(100);

/// Those who wait for one kind of place.
#[derive(Debug, Default)]
pub(super) struct Line {
    length: AtomicU32,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// By ticket: the first is the oldest.
    waiters: BTreeMap<u64, Waiter>,
    by_thread: Map<ThreadId, BTreeSet<u64>>,
    next_ticket: u64,
    /// Since when someone has always been waiting.
    standing: Moment,
}

#[derive(Debug)]
struct Waiter {
    thread: ThreadId,
    since: Moment,
    /// Whether something has changed for it since it looked last.
    called: bool,
    waker: Option<Waker>,
}

/// How somebody who waits is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// The oldest of all: there may be a place.
    First,
    /// The oldest of a thread: something of that thread's own may be free.
    FirstOfThread,
    /// Who waited for too long, and should give up.
    Stale,
}

impl Waiter {
    fn call(&mut self) -> Option<Waker> {
        self.called = true;
        self.waker.take()
    }
}

impl Line {
    /// How many wait.
    pub(super) fn length(&self) -> u32 {
        self.length.load(Ordering::SeqCst)
    }

    /// Joins the line at its end. The first in it should look at once: a place may have become free just before it came.
    pub(super) fn join(&self, thread: ThreadId, now: Moment) -> u64 {
        let mut queue = self.queue();
        if queue.waiters.is_empty() {
            queue.standing = now;
        }
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiters.insert(ticket, Waiter { thread, since: now, called: true, waker: None });
        queue.by_thread.entry(thread).or_default().insert(ticket);
        self.length.fetch_add(1, Ordering::SeqCst);
        ticket
    }

    /// Ready when the holder of a ticket should look whether it gets what it waits for. Who is not first may only use what is
    /// its thread's own.
    pub(super) fn poll(&self, ticket: u64, timeout: Duration, now: Moment, waker: &Waker) -> Poll<Called> {
        let mut queue = self.queue();
        let first = queue.waiters.first_key_value().is_some_and(|(first, _)| *first == ticket);
        let standing = now - queue.standing >= timeout;
        let Some(waiter) = queue.waiters.get_mut(&ticket) else { return Poll::Ready(Called::Stale) };
        if !std::mem::take(&mut waiter.called) {
            waiter.waker = Some(waker.clone());
            return Poll::Pending;
        }
        // "If the queue has not been empty for the last N ms", who waited for longer than a shorter time is not served
        // (B. Maurer, "Fail at Scale", ACM Queue 13(8), after CoDel): when all wait too long, it is better to serve some soon.
        Poll::Ready(match first {
            true if standing && now - waiter.since > timeout / STANDING => Called::Stale,
            true => Called::First,
            false => Called::FirstOfThread,
        })
    }

    /// The holder of a ticket waits no more; whether it had been called and has not looked. `may_be_room` says whether who is
    /// first now should look.
    pub(super) fn quit(&self, ticket: u64, may_be_room: impl FnOnce() -> bool) -> bool {
        let mut queue = self.queue();
        let Some(waiter) = queue.waiters.remove(&ticket) else { return false };
        self.length.fetch_sub(1, Ordering::SeqCst);
        if let Some(tickets) = queue.by_thread.get_mut(&waiter.thread) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                queue.by_thread.remove(&waiter.thread);
            }
        }
        // Under the lock: whoever gives a place back after this look calls whoever is first by then.
        let waker = match queue.waiters.first_entry() {
            Some(mut next) if *next.key() > ticket && may_be_room() => next.get_mut().call(),
            _ => None,
        };
        drop(queue);
        wake(waker);
        waiter.called
    }

    /// Calls the first: there may be a place.
    pub(super) fn call(&self) {
        if self.length() > 0 {
            let waker = self.queue().waiters.first_entry().and_then(|mut first| first.get_mut().call());
            wake(waker);
        }
    }

    /// Calls the first of a thread: something that only it can use may be free.
    pub(super) fn call_thread(&self, thread: ThreadId) {
        if self.length() > 0 {
            let mut queue = self.queue();
            let ticket = queue.by_thread.get(&thread).and_then(BTreeSet::first).copied();
            let waker = ticket.and_then(|ticket| queue.waiters.get_mut(&ticket)).and_then(Waiter::call);
            drop(queue);
            wake(waker);
        }
    }

    /// Whether something that only `thread` can use is best kept there, and not given up for others who wait.
    pub(super) fn is_for(&self, thread: ThreadId) -> bool {
        if self.length() == 0 {
            return true;
        }
        let queue = self.queue();
        let first = queue.waiters.first_key_value().map(|(_, first)| first.since);
        let own = queue.by_thread.get(&thread).and_then(BTreeSet::first);
        let own = own.and_then(|ticket| queue.waiters.get(ticket)).map(|waiter| waiter.since);
        match (first, own) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(first), Some(own)) => own - first <= SKEW,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// After the lock was given up, which the one who wakes may want next.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
