//! The facts and clocks of one exchange. Shared by everyone who carries a part of it; when the last one lets go, it is
//! written down, once, however it ended.

mod adorned;
mod attempt;
mod limited;
mod record;
mod shown;
mod signed_in;
mod waiting;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;

use self::adorned::Adorned;
use self::attempt::Attempt;
pub(super) use self::attempt::Beside;
use self::limited::Paced;
use super::clocks::{Clocks, Flow, Phase};
use super::downstream::Downstream;
use super::error::{CLIENT_CLOSED_REQUEST, Error};
use super::fields::Fields;
use super::headers::Vouched;
use super::streams::Stream;
pub(super) use super::streams::{Due, Farewell, Manner};
use super::trace::Trace;
use super::transport::Agreed;
use super::worker::Worker;
use crate::resilience::rate::Inside;
use crate::snapshot::{Action, ClusterName, Forward, Route, RouteName, Streaming};
use crate::telemetry::{End, Kind, Protocol};

/// What the client sent, as far as logs show it. Owned, so that a long stream does not hold its head's buffer.
#[derive(Debug)]
pub(super) struct Subject {
    /// The id that client and upstream see.
    pub request_id: Box<str>,
    /// The trace that it belongs to.
    pub trace: Trace,
    /// The client, found through trusted proxies.
    pub client: IpAddr,
    /// Its port; 0 if only the proxies know.
    pub client_port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Method.
    pub method: Method,
    /// Host as routed.
    pub host: Box<str>,
    /// Path as sent.
    pub path: Box<str>,
    /// What the client's handshake came to, if it speaks TLS.
    pub tls: Option<Rc<Agreed>>,
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    worker: Rc<Worker>,
    subject: Subject,
    downstream: Rc<Downstream>,
    pub clocks: Clocks,
    /// Which snapshot was in force when it began.
    version: u32,
    route: OnceCell<Arc<Route>>,
    attempt: Attempt,
    connect: Cell<Option<Duration>>,
    first_byte: Cell<Option<Duration>>,
    status: Cell<StatusCode>,
    reason: Cell<Option<&'static str>>,
    kind: Cell<Kind>,
    /// What most exchanges do not have: they are not streams.
    stream: OnceCell<Box<Stream>>,
    /// When the token expires that it was opened with, and how a WebSocket is closed then.
    expiry: OnceCell<Box<(Instant, u16)>>,
    end: Cell<End>,
    /// What policies make of the fields of the client's answer: few have any.
    adorned: RefCell<Option<Box<Adorned>>>,
    /// The most bytes of content that the client may send.
    most_content: Cell<u64>,
    /// Its places among those of its keys, where policies limit how many there are.
    #[allow(clippy::box_collection, reason = "nearly all have none, and have room for no more than a pointer")]
    inside: RefCell<Option<Box<Vec<Inside>>>>,
    /// How fast its sides may send, if it becomes a WebSocket that policies say so of.
    #[allow(clippy::box_collection, reason = "likewise")]
    paced: RefCell<Option<Box<Vec<Paced>>>>,
    /// What the endpoint is told of the client, in the place of what that says itself: few requests have any.
    vouched: RefCell<Vec<Vouched>>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Exchange {
    /// An exchange that begins now. `downstream` belongs to whoever polls the answer.
    pub(super) fn new(worker: Rc<Worker>, subject: Subject, downstream: Rc<Downstream>) -> Rc<Self> {
        let clocks = Clocks::start();
        Rc::new(Exchange {
            version: worker.streams.version(),
            most_content: Cell::new(worker.settings.limits.body_bytes.unwrap_or(u64::MAX)),
            worker,
            subject,
            downstream,
            attempt: Attempt::none(clocks.started),
            clocks,
            route: OnceCell::new(),
            connect: Cell::new(None),
            first_byte: Cell::new(None),
            status: Cell::new(CLIENT_CLOSED_REQUEST),
            reason: Cell::new(Some(Error::ClientGone.reason())),
            kind: Cell::new(Kind::Http),
            stream: OnceCell::new(),
            expiry: OnceCell::new(),
            end: Cell::new(End::ClientGone),
            adorned: RefCell::new(None),
            inside: RefCell::new(None),
            paced: RefCell::new(None),
            vouched: RefCell::default(),
            received: Cell::new(0),
            sent: Cell::new(0),
        })
    }

    /// The id that client and upstream see.
    pub(super) fn request_id(&self) -> &str {
        &self.subject.request_id
    }

    /// Tells whoever gets the request to which trace it belongs.
    pub(super) fn pass_trace_on(&self, fields: &mut Fields) {
        self.subject.trace.pass_on(fields, &self.subject.request_id, &self.worker.settings.tracing);
    }

    /// What whoever serves the client lends.
    pub(super) fn downstream(&self) -> &Downstream {
        &self.downstream
    }

    /// The host that was asked for, as routed.
    pub(super) fn host(&self) -> &str {
        &self.subject.host
    }

    fn forward(&self) -> Option<&Forward> {
        let Action::Forward(forward) = &self.route.get()?.action else { return None };
        Some(forward)
    }

    /// The client, found through trusted proxies, with port 0 if only these know.
    pub(super) fn client(&self) -> SocketAddr {
        SocketAddr::new(self.subject.client, self.subject.client_port)
    }

    /// What the client speaks.
    pub(super) fn protocol(&self) -> Protocol {
        self.subject.protocol
    }

    /// When its endpoint is given up that sent something at `heard` last, if more is sent than it sends.
    pub(super) fn give_up(&self, heard: Instant, begun: bool) -> (Instant, Error) {
        self.clocks.give_up(heard, begun, self.bounds())
    }

    /// What its route asks for streams.
    pub(super) fn streaming(&self) -> Option<&Arc<Streaming>> {
        self.forward()?.streaming.as_ref()
    }

    /// What it has as a stream, if it is one.
    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.get().map(|stream| &**stream)
    }

    /// The route it took.
    pub(super) fn route_name(&self) -> Option<&RouteName> {
        self.route.get().map(|route| &route.name)
    }

    /// The endpoint that answers, and its cluster.
    pub(super) fn endpoint(&self) -> Option<(ClusterName, SocketAddr)> {
        Some((self.attempt.cluster()?, self.attempt.endpoint()?))
    }

    pub(super) fn last_moved(&self) -> Instant {
        self.clocks.last_moved()
    }

    /// Asks the stream to end at the greatest age of its route, if that has one, and when its token expires.
    pub(super) fn mind_age(&self) {
        if let Some(&(at, code)) = self.expiry.get().map(|expiry| &**expiry)
            && let Some(stream) = self.stream()
        {
            stream.leave_at(at, Farewell::TokenExpired(code));
        }
        if let Some(age) = self.streaming().and_then(|streaming| streaming.max_age)
            && let Some(stream) = self.stream()
        {
            stream.leave_at(self.clocks.started + age, Farewell::MaxAge);
        }
    }

    /// How it can end as a stream, if it is one.
    pub(super) fn ends(&self, manner: Manner) {
        if let Some(stream) = self.stream() {
            stream.manner.set(manner);
        }
    }

    /// The stream ended as it was asked to: the last words were said.
    pub(super) fn left(&self, why: Farewell) {
        if let Some(stream) = self.stream() {
            stream.parted.set(true);
        }
        self.cut(why.error());
    }

    /// The route was found.
    pub(super) fn routed(&self, route: &Arc<Route>) {
        let _ = self.route.set(Arc::clone(route));
    }

    /// A connection to the endpoint is there, after so long.
    pub(super) fn connected(&self, after: Duration) {
        self.connect.set(Some(after));
        if !after.is_zero() {
            self.clocks.moved_up(Instant::now());
        }
        self.clocks.enter(Phase::Requesting);
    }

    /// The whole request is with the endpoint.
    pub(super) fn request_sent(&self) {
        self.clocks.upload(Flow::Done);
    }

    /// Whom the request's content waits for.
    pub(super) fn upload_waits(&self, flow: Flow) {
        if self.clocks.upload(flow) != flow {
            self.clocks.moved_up(Instant::now());
        }
    }

    /// Whom the answer waits for: the endpoint that has sent no more, or the client that takes no more.
    pub(super) fn download_waits(&self, flow: Flow) {
        if self.clocks.download(flow) != flow {
            self.clocks.moved_down(Instant::now());
        }
    }

    /// The answer's head is there, and is held back until its content begins.
    pub(super) fn awaits_content(&self) {
        self.clocks.moved_down(Instant::now());
        self.clocks.enter(Phase::FirstByte);
    }

    /// The endpoint gave nothing that the client could get: another one is asked.
    pub(super) fn begins_anew(&self) {
        self.clocks.moved_up(Instant::now());
        self.clocks.enter(Phase::Local);
    }

    /// The answer's head is there and will be sent to the client.
    pub(super) fn answered(self: &Rc<Self>, status: StatusCode, kind: Kind) {
        let now = Instant::now();
        self.first_byte.set(Some(now - self.clocks.started));
        self.status.set(status);
        self.kind.set(kind);
        self.worker.recorder.begins(kind);
        self.clocks.moved_down(now);
        // A WebSocket's endpoint may wait for its client to begin.
        let bounded =
            kind != Kind::WebSocket && self.forward().is_some_and(|forward| forward.timeouts.first_byte.is_some());
        self.clocks.enter(if bounded { Phase::FirstByte } else { Phase::Streaming });
        // From here a client that leaves is an end, not a reason.
        self.reason.set(None);
        // Its endpoint may say nothing until the client does.
        if kind == Kind::WebSocket {
            self.attempt_answered(now);
        }
        if kind != Kind::Http {
            self.attempt_begins(now);
            let stream = self.stream.get_or_init(Box::default);
            match kind {
                Kind::WebSocket => self.counts_events(),
                Kind::Tunnel => self.ends(Manner::Late),
                _ => {}
            }
            self.mind_age();
            self.worker.streams.enter(self, stream, self.version, &self.worker);
        }
    }

    /// What it is to be, whether it comes to that or not.
    pub(super) fn is_to_be(&self, kind: Kind) {
        self.kind.set(kind);
    }

    /// Floodway itself answers, with a status that tells of the failure or, to gRPC clients, does not.
    pub(super) fn refused(&self, error: Error, status: StatusCode) {
        self.attempt_failed(error);
        self.status.set(status);
        self.reason.set(Some(error.reason()));
        self.clocks.enter(Phase::Local);
    }

    /// Floodway itself answers, as configured.
    pub(super) fn replied(&self, status: StatusCode) {
        self.status.set(status);
        self.reason.set(None);
        self.clocks.enter(Phase::Local);
    }

    /// Body bytes came from the client.
    pub(super) fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
        self.clocks.moved_up(Instant::now());
    }

    /// Body bytes went to the client.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        let now = Instant::now();
        let gap = self.clocks.moved_down(now);
        self.attempt_answered(now);
        if self.clocks.phase() == Phase::FirstByte {
            self.clocks.enter(Phase::Streaming);
        }
        if self.kind.get() != Kind::Http {
            self.worker.recorder.gap(self.kind.get(), gap);
        }
    }

    /// Somebody follows where its events or messages end.
    pub(super) fn counts_events(&self) {
        self.events(0);
    }

    /// Events or messages went to the client whole. Those of WebSockets are counted each way where they pass.
    pub(super) fn events(&self, count: u64) {
        if let Some(stream) = self.stream() {
            stream.events.set(Some(stream.events.get().unwrap_or(0) + count));
            if self.kind.get() != Kind::WebSocket {
                self.worker.recorder.events(self.kind.get(), count);
            }
        }
    }

    /// The client took something.
    pub(super) fn moved(&self) {
        self.clocks.moved_down(Instant::now());
    }

    /// Body bytes came from the client, and wait for the endpoint to take them until the next are asked for.
    pub(super) fn uploaded(&self, bytes: usize) {
        self.clocks.upload(Flow::Sink);
        self.received(bytes);
    }

    /// Body bytes to the client so far.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.sent.get()
    }

    /// Body bytes from the client so far.
    pub(super) fn bytes_received(&self) -> u64 {
        self.received.get()
    }

    /// Everything was said and sent. A stream that left has said why before.
    pub(super) fn complete(&self) {
        self.attempt_answered(self.last_moved());
        if self.end.get() == End::ClientGone {
            self.end.set(if self.clocks.phase() == Phase::Local { End::Answered } else { End::Complete });
        }
    }

    /// It was cut after its head.
    pub(super) fn cut(&self, error: Error) {
        self.attempt_cut(error);
        self.reason.set(Some(error.reason()));
        self.end.set(error.end());
    }
}
