//! The streams of a worker that can be asked to end: event streams, WebSockets, gRPC and other tunnels. Who asks, and when:
//! the drain, an endpoint or a route that is gone, a greatest age. How a stream ends politely, its carrier knows.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use super::exchange::Exchange;
use super::worker::Worker;
use crate::snapshot::{ClusterName, RouteName, Snapshot};

/// What a stream has to do although nothing arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A clock ran out: it is cut.
    Expired(Error),
    /// It is asked to end politely, by itself and soon; told once. What has not ended by a deadline expires.
    Leave(Farewell),
    /// The time that its carrier asked for has come.
    Beat,
}

/// Why a stream is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It has reached its route's greatest age.
    MaxAge,
    /// The process goes away.
    Draining,
    /// Its endpoint goes away.
    EndpointGone,
    /// Its route was removed.
    RouteRemoved,
    /// The token has expired that it was opened with. A WebSocket is closed with this status.
    TokenExpired(u16),
}

impl Farewell {
    /// As an ending.
    pub(super) fn error(self) -> Error {
        match self {
            Farewell::MaxAge => Error::MaxAge,
            Farewell::Draining => Error::Draining,
            Farewell::EndpointGone => Error::EndpointGone,
            Farewell::RouteRemoved => Error::RouteRemoved,
            Farewell::TokenExpired(code) => Error::TokenRanOut(code),
        }
    }
}

/// How long a stream that is asked to end may take to do so.
const PARTING: Duration = Duration::from_secs(5);

/// How a stream can end that is asked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Manner {
    /// Politely, in a while.
    #[default]
    Polite,
    /// Nobody knows where it could end: it is cut when it is asked, so that those who listen do not come back all at once.
    Cut,
    /// Nobody knows where it could end, nor what is lost with it: it is cut like those, but has all the time that there is.
    Late,
    /// It has an end of its own, and comes to it.
    ByItself,
}

/// When a stream is asked to end, or, once it was, when it is cut.
#[derive(Clone, Copy, Debug)]
struct Leave {
    at: Instant,
    why: Farewell,
    told: bool,
}

/// What a stream has beside what every exchange has.
#[derive(Debug, Default)]
pub(super) struct Stream {
    leave: Cell<Option<Leave>>,
    /// What its kind and its head say.
    pub(super) manner: Cell<Manner>,
    /// Whoever looked at the clocks last: it carries the stream.
    carrier: RefCell<Option<Waker>>,
    place: Cell<usize>,
    /// Events or messages so far; `None` if nobody follows where they end.
    pub(super) events: Cell<Option<u64>>,
    /// Whether it ended as it was asked to.
    pub(super) parted: Cell<bool>,
}

impl Stream {
    /// Remembers whom to wake.
    pub(super) fn carried_by(&self, waker: &Waker) {
        let mut carrier = self.carrier.borrow_mut();
        if !carrier.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *carrier = Some(waker.clone());
        }
    }

    /// Asks the stream to end at a time, for the first reason that comes. Whoever carries it learns it from
    /// [`Exchange::poll_due`], and is woken for it.
    pub(super) fn leave_at(&self, at: Instant, why: Farewell) {
        if self.leave.get().is_none_or(|before| !before.told && at < before.at) {
            self.leave.set(Some(Leave { at, why, told: false }));
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(carrier) = &*self.carrier.borrow() {
            carrier.wake_by_ref();
        }
    }

    /// Forgets an asking whose cause is gone, unless the stream was told. Returns whether it did.
    fn stay(&self, why: Farewell) -> bool {
        let undone = self.leave.get().is_some_and(|leave| leave.why == why && !leave.told);
        if undone {
            self.leave.set(None);
        }
        undone
    }

    /// When it is to be told, if it was not yet.
    pub(super) fn tell_at(&self) -> Option<Instant> {
        self.leave.get().filter(|leave| !leave.told).map(|leave| leave.at)
    }

    /// It is told now.
    pub(super) fn tell(&self) -> Option<Farewell> {
        let leave = self.leave.get()?;
        self.leave.set(Some(Leave { at: Instant::now() + PARTING, told: true, ..leave }));
        Some(leave.why)
    }

    /// When it is cut, if it has not ended by then.
    pub(super) fn cut_at(&self) -> Option<(Instant, Error)> {
        let leave = self.leave.get()?;
        let at = match self.manner.get() {
            Manner::Polite if !leave.told => leave.at + PARTING,
            Manner::Polite | Manner::Cut | Manner::Late => leave.at,
            Manner::ByItself => return None,
        };
        Some((at, leave.why.error()))
    }
}

/// The streams that run on a worker. One pointer each, and nothing to do while they run.
#[derive(Debug, Default)]
pub(super) struct Streams {
    running: RefCell<Vec<Weak<Exchange>>>,
    /// How many of them end when their route is removed.
    tied: Cell<usize>,
    /// How many snapshots were followed.
    version: Cell<u32>,
    /// While the worker drains.
    draining: Cell<Option<Window>>,
}

/// When streams are to have been asked to end.
#[derive(Clone, Copy, Debug)]
struct Window {
    most: Instant,
    late: Instant,
}

impl Window {
    fn end(self, stream: &Stream) -> Instant {
        if stream.manner.get() == Manner::Late { self.late } else { self.most }
    }
}

impl Streams {
    /// Which snapshot is in force, as a number.
    pub(super) fn version(&self) -> u32 {
        self.version.get()
    }

    /// A stream begins, of an exchange that began under the snapshot `version`. What has changed since it was not told.
    pub(super) fn enter(&self, exchange: &Rc<Exchange>, stream: &Stream, version: u32, worker: &Worker) {
        stream.place.set(self.running.borrow().len());
        self.running.borrow_mut().push(Rc::downgrade(exchange));
        self.tied.set(self.tied.get() + usize::from(removal_grace(exchange).is_some()));
        self.mind_drain(stream);
        if version != self.version.get()
            && let Some(now) = worker.snapshot()
        {
            self.check_endpoint(exchange, None, &now);
            self.check_routes(std::slice::from_ref(exchange), &now);
        }
    }

    /// A stream ends.
    pub(super) fn exit(&self, exchange: &Exchange, stream: &Stream) {
        let mut running = self.running.borrow_mut();
        let place = stream.place.get();
        running.swap_remove(place);
        if let Some(moved) = running.get(place).and_then(Weak::upgrade)
            && let Some(moved) = moved.stream()
        {
            moved.place.set(place);
        }
        self.tied.set(self.tied.get() - usize::from(removal_grace(exchange).is_some()));
    }

    /// All of them. Those that are woken may end and go meanwhile.
    fn all(&self) -> Vec<Rc<Exchange>> {
        self.running.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Asks every stream to end by `most`, those that have all the time by `late`, one after the other: first those that have been
    /// silent for longest, which are the least likely to be in the middle of something; with jitter, so that their clients do not
    /// come back in step.
    pub(super) fn drain(&self, most: Instant, late: Instant) {
        let window = Window { most, late };
        self.draining.set(Some(window));
        let mut streams = self.all();
        streams.sort_by_key(|stream| stream.last_moved());
        let now = Instant::now();
        let share = 1.0 / streams.len() as f64;
        for (position, stream) in streams.iter().filter_map(|exchange| exchange.stream()).enumerate() {
            let left = window.end(stream).saturating_duration_since(now);
            stream.leave_at(now + left.mul_f64((position as f64 + fastrand::f64()) * share), Farewell::Draining);
        }
    }

    /// A snapshot took the place of another: asks streams to end whose endpoint or route is gone, and lets those stay whose
    /// endpoint or route has come back. Looks at no stream that neither changed for.
    pub(super) fn follow(&self, before: &Snapshot, now: &Snapshot) {
        self.version.set(self.version.get().wrapping_add(1));
        if self.running.borrow().is_empty() {
            return;
        }
        let changed: HashSet<&ClusterName> = now.clusters.differing(&before.clusters, Arc::ptr_eq).collect();
        if !changed.is_empty() {
            for stream in self.all() {
                if stream.endpoint().is_some_and(|(cluster, _)| changed.contains(&cluster)) {
                    self.check_endpoint(&stream, Some(before), now);
                }
            }
        }
        if self.tied.get() > 0 && !now.router.is(&before.router) {
            self.check_routes(&self.all(), now);
        }
    }

    fn check_endpoint(&self, exchange: &Exchange, before: Option<&Snapshot>, now: &Snapshot) {
        let Some((name, endpoint)) = exchange.endpoint() else { return };
        let cluster = now.clusters.get(&name);
        let gone = !cluster.is_some_and(|cluster| cluster.has(endpoint));
        let cluster = cluster.or_else(|| before?.clusters.get(&name));
        self.judge(exchange, gone, cluster.and_then(|cluster| cluster.move_after), Farewell::EndpointGone);
    }

    fn check_routes(&self, exchanges: &[Rc<Exchange>], now: &Snapshot) {
        let tied = exchanges.iter().filter(|stream| removal_grace(stream).is_some());
        let mut gone: HashSet<&RouteName> = tied.clone().filter_map(|stream| stream.route_name()).collect();
        for (_, host) in now.router.hosts() {
            if gone.is_empty() {
                break;
            }
            for route in host.routes() {
                gone.remove(&route.name);
            }
        }
        for stream in tied {
            let gone = stream.route_name().is_some_and(|name| gone.contains(name));
            self.judge(stream, gone, removal_grace(stream), Farewell::RouteRemoved);
        }
    }

    /// Asks a stream to end if what it needs is gone, in the last quarter of the grace; lets it stay if that is back.
    fn judge(&self, exchange: &Exchange, gone: bool, grace: Option<Duration>, why: Farewell) {
        let Some(stream) = exchange.stream() else { return };
        match grace {
            Some(grace) if gone => {
                if !stream.leave.get().is_some_and(|leave| leave.why == why) {
                    stream.leave_at(Instant::now() + grace.mul_f64(1.0 - 0.25 * fastrand::f64()), why);
                }
            }
            _ => {
                if stream.stay(why) {
                    exchange.mind_age();
                    self.mind_drain(stream);
                }
            }
        }
    }

    /// While the worker drains, a stream is asked to end as all others were.
    fn mind_drain(&self, stream: &Stream) {
        if let Some(window) = self.draining.get() {
            let until = window.end(stream);
            let left = until.saturating_duration_since(Instant::now());
            stream.leave_at(until - left.mul_f64(fastrand::f64()), Farewell::Draining);
        }
    }
}

/// How long a stream may run on after its route was removed, if that has a bound.
fn removal_grace(exchange: &Exchange) -> Option<Duration> {
    exchange.streaming()?.removal_grace
}
