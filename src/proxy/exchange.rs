//! The facts and clocks of one exchange. Shared by everyone who carries a part of it; when the last one lets go, it is
//! written down, once, however it ended.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::error::{CLIENT_CLOSED_REQUEST, Error};
use super::timer::Timer;
use super::worker::Worker;
use crate::snapshot::{Action, ClusterName, Route, Streaming, Timeouts};
use crate::telemetry::{self, ActiveGuard, End, Kind, Protocol};

/// What the client sent, as far as logs show it. Owned, so that a long stream does not hold its head's buffer.
#[derive(Debug)]
pub(super) struct Subject {
    /// The id that client and upstream see.
    pub request_id: Box<str>,
    /// The trace id of `traceparent`.
    pub trace_id: Option<Box<str>>,
    /// The client, found through trusted proxies.
    pub client: IpAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Method.
    pub method: Method,
    /// Host as routed.
    pub host: Box<str>,
    /// Path as sent.
    pub path: Box<str>,
}

/// Which clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No endpoint is involved.
    Local,
    /// The request is on its way.
    Sending,
    /// The request is sent since then; the head is awaited.
    AwaitingHead(Instant),
    /// The answer is on its way.
    Streaming,
}

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
}

impl Farewell {
    /// As an ending.
    pub(super) fn error(self) -> Error {
        match self {
            Farewell::MaxAge => Error::MaxAge,
            Farewell::Draining => Error::Draining,
            Farewell::EndpointGone => Error::EndpointGone,
            Farewell::RouteRemoved => Error::RouteRemoved,
        }
    }
}

/// When a stream is asked to end, and when it is cut if it has not.
#[derive(Clone, Copy, Debug)]
struct Leave {
    at: Instant,
    cut_at: Instant,
    why: Farewell,
    told: bool,
}

/// How long a stream that is asked to end may take to do so.
const PARTING: Duration = Duration::from_secs(5);

/// One exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    worker: Rc<Worker>,
    subject: Subject,
    started: Instant,
    timer: Rc<Timer>,
    phase: Cell<Phase>,
    last_moved: Cell<Instant>,
    clocks: Cell<Clocks>,
    leave: Cell<Option<Leave>>,
    route: OnceCell<Arc<Route>>,
    cluster: RefCell<Option<ClusterName>>,
    endpoint: Cell<Option<SocketAddr>>,
    attempts: Cell<u32>,
    connect: Cell<Option<Duration>>,
    first_byte: Cell<Option<Duration>>,
    status: Cell<StatusCode>,
    reason: Cell<Option<&'static str>>,
    kind: Cell<Kind>,
    active: RefCell<Option<ActiveGuard>>,
    end: Cell<End>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Clocks {
    head: Duration,
    idle: Duration,
    deadline: Option<Instant>,
}

impl Exchange {
    /// An exchange that begins now. `timer` belongs to whoever polls the answer.
    pub(super) fn new(worker: Rc<Worker>, subject: Subject, timer: Rc<Timer>) -> Rc<Self> {
        let now = Instant::now();
        let defaults = &worker.settings.defaults;
        let clocks = Clocks { head: defaults.response_head, idle: defaults.idle, deadline: None };
        Rc::new(Exchange {
            worker,
            subject,
            started: now,
            timer,
            phase: Cell::new(Phase::Local),
            last_moved: Cell::new(now),
            clocks: Cell::new(clocks),
            leave: Cell::new(None),
            route: OnceCell::new(),
            cluster: RefCell::new(None),
            endpoint: Cell::new(None),
            attempts: Cell::new(0),
            connect: Cell::new(None),
            first_byte: Cell::new(None),
            status: Cell::new(CLIENT_CLOSED_REQUEST),
            reason: Cell::new(Some(Error::ClientGone.reason())),
            kind: Cell::new(Kind::Http),
            active: RefCell::new(None),
            end: Cell::new(End::ClientGone),
            received: Cell::new(0),
            sent: Cell::new(0),
        })
    }

    /// The id that client and upstream see.
    pub(super) fn request_id(&self) -> &str {
        &self.subject.request_id
    }

    /// What its route asks for streams.
    pub(super) fn streaming(&self) -> Option<&Arc<Streaming>> {
        match &self.route.get()?.action {
            Action::Forward(forward) => forward.streaming.as_ref(),
            _ => None,
        }
    }

    /// Asks the stream to end at a time, for the first reason that comes; whoever carries it learns it from
    /// [`Exchange::poll_due`].
    pub(super) fn leave_at(&self, at: Instant, why: Farewell) {
        if self.leave.get().is_none_or(|before| !before.told && at < before.at) {
            self.leave.set(Some(Leave { at, cut_at: at + PARTING, why, told: false }));
        }
    }

    /// The stream ended as it was asked to: the last words were said.
    pub(super) fn left(&self, why: Farewell) {
        self.cut(why.error());
    }

    /// The route was found.
    pub(super) fn routed(&self, route: &Arc<Route>) {
        let _ = self.route.set(Arc::clone(route));
    }

    /// An endpoint is tried; its clocks begin.
    pub(super) fn attempt(&self, cluster: &ClusterName, endpoint: SocketAddr, timeouts: &Timeouts) {
        self.cluster.replace(Some(cluster.clone()));
        self.endpoint.set(Some(endpoint));
        self.attempts.set(self.attempts.get() + 1);
        self.clocks.set(Clocks {
            head: timeouts.response_head,
            idle: timeouts.idle,
            deadline: timeouts.request.map(|limit| self.started + limit),
        });
    }

    /// A connection to the endpoint is there, after so long.
    pub(super) fn connected(&self, after: Duration) {
        self.connect.set(Some(after));
        self.moved();
        self.phase.set(Phase::Sending);
    }

    /// The whole request is with the endpoint.
    pub(super) fn request_sent(&self) {
        if self.phase.get() == Phase::Sending {
            self.phase.set(Phase::AwaitingHead(Instant::now()));
        }
    }

    /// The answer's head is there and will be sent to the client.
    pub(super) fn answered(&self, status: StatusCode, kind: Kind) {
        self.first_byte.set(Some(self.started.elapsed()));
        self.status.set(status);
        self.kind.set(kind);
        self.active.replace(Some(self.worker.recorder.active(kind)));
        self.moved();
        self.phase.set(Phase::Streaming);
        // From here a client that leaves is an end, not a reason.
        self.reason.set(None);
        if kind != Kind::Http
            && let Some(age) = self.streaming().and_then(|streaming| streaming.max_age)
        {
            self.leave_at(self.started + age, Farewell::MaxAge);
        }
    }

    /// Floodway itself answers.
    pub(super) fn refused(&self, error: Error) {
        self.status.set(error.status());
        self.reason.set(Some(error.reason()));
        self.phase.set(Phase::Local);
    }

    /// Floodway itself answers, as configured.
    pub(super) fn replied(&self, status: StatusCode) {
        self.status.set(status);
        self.reason.set(None);
        self.phase.set(Phase::Local);
    }

    /// Body bytes came from the client.
    pub(super) fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
        self.moved();
    }

    /// Body bytes went to the client.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        self.moved();
    }

    /// Something moved in either direction.
    pub(super) fn moved(&self) {
        self.last_moved.set(Instant::now());
    }

    /// Body bytes from the client so far.
    pub(super) fn bytes_received(&self) -> u64 {
        self.received.get()
    }

    /// Everything was said and sent.
    pub(super) fn complete(&self) {
        self.end.set(if self.phase.get() == Phase::Local { End::Answered } else { End::Complete });
    }

    /// It was cut after its head.
    pub(super) fn cut(&self, error: Error) {
        self.reason.set(Some(error.reason()));
        self.end.set(match error {
            Error::Idle | Error::HeadTimeout => End::Idle,
            Error::RequestTimeout => End::TimedOut,
            Error::Draining => End::Drained,
            Error::MaxAge => End::MaxAge,
            Error::EndpointGone => End::EndpointGone,
            Error::RouteRemoved => End::RouteRemoved,
            Error::ClientGone | Error::BodyIncomplete => End::ClientGone,
            _ => End::UpstreamCut,
        });
    }

    /// Ready with the clock that ran out first; looks at clocks, moves no timer while the stream moves.
    pub(super) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let clocks = self.clocks.get();
        loop {
            let idle = (self.last_moved.get() + clocks.idle, Error::Idle);
            let mut next = match self.phase.get() {
                Phase::Local | Phase::Sending | Phase::Streaming => idle,
                Phase::AwaitingHead(since) => (since + clocks.head, Error::HeadTimeout),
            };
            if let Some(deadline) = clocks.deadline
                && deadline < next.0
            {
                next = (deadline, Error::RequestTimeout);
            }
            if let Some(leave) = self.leave.get().filter(|leave| leave.told && leave.cut_at < next.0) {
                next = (leave.cut_at, leave.why.error());
            }
            // The request's content is sent by another task: look again in time to begin waiting for the head.
            let look_at = match self.phase.get() {
                Phase::Sending => next.0.min(Instant::now() + clocks.head),
                _ => next.0,
            };
            if self.timer.poll_at(cx, look_at).is_pending() {
                return Poll::Pending;
            }
            // The stream may have moved since the deadline was computed, if the timer looked late.
            if next.1 != Error::Idle || self.last_moved.get() + clocks.idle <= Instant::now() {
                return Poll::Ready(next.1);
            }
        }
    }

    /// For whoever carries a stream and can end it politely: ready with what is due first, of the clocks, the time at which
    /// it is asked to end, and `beat`, a time of the caller's own.
    pub(super) fn poll_due(&self, cx: &mut Context<'_>, beat: Option<Instant>) -> Poll<Due> {
        if let Poll::Ready(error) = self.poll_expired(cx) {
            return Poll::Ready(Due::Expired(error));
        }
        if let Some(leave) = self.leave.get().filter(|leave| !leave.told)
            && self.timer.poll_at(cx, leave.at).is_ready()
        {
            self.leave.set(Some(Leave { told: true, cut_at: Instant::now() + PARTING, ..leave }));
            return Poll::Ready(Due::Leave(leave.why));
        }
        match beat {
            Some(beat) => self.timer.poll_at(cx, beat).map(|()| Due::Beat),
            None => Poll::Pending,
        }
    }

    /// Runs `work` unless a clock runs out first.
    ///
    /// # Errors
    /// The clock that ran out.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_expired(cx).map(Err),
        })
        .await
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.end.get() == End::ClientGone && self.worker.leaving.cut.has_happened() {
            self.cut(Error::Draining);
        }
        self.active.take();
        let cluster = self.cluster.take();
        let route = self.route.get().map(|route| &route.name);
        self.worker.recorder.record(&telemetry::Exchange {
            request_id: &self.subject.request_id,
            trace_id: self.subject.trace_id.as_deref(),
            client: self.subject.client,
            protocol: self.subject.protocol,
            method: self.subject.method.as_str(),
            host: &self.subject.host,
            path: &self.subject.path,
            route: route.map(|name| &*name.object),
            rule: route.map(|name| &*name.rule),
            upstream: cluster.as_ref().map(ClusterName::as_str),
            endpoint: self.endpoint.get(),
            status: self.status.get().as_u16(),
            reason: self.reason.get(),
            kind: self.kind.get(),
            end: self.end.get(),
            bytes_received: self.received.get(),
            bytes_sent: self.sent.get(),
            connect: self.connect.get(),
            first_byte: self.first_byte.get(),
            duration: self.started.elapsed(),
            attempts: self.attempts.get(),
        });
    }
}
