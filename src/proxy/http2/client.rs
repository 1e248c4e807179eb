//! HTTP/2 with endpoints: one connection carries many exchanges. Which connection is used when is `upstream`'s to say.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, SendStream};
use http::StatusCode;
use http::uri::Scheme;
use http_body::Body as _;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::answer::Http2Body;
use super::duplex::{Below, Duplex};
use super::room::{Room, Waiter};
use super::stream::{self, Inbound, Piece, Stopped, Watch as _};
use super::{connect, request, windows};
use crate::proxy::body::Body;
use crate::proxy::clocks::Flow;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Error;
use crate::proxy::fields::Known;
use crate::proxy::io::{Io, Pipe};
use crate::proxy::kept::Kept;
use crate::proxy::message::{RequestHead, ResponseHead};

/// Streams that one connection carries before another is opened, unless the endpoint allows fewer. RFC 9113 6.5.2 recommends
/// that no peer allows fewer than 100.
const STREAMS: usize = 100;
/// What the unread frames of an endpoint may cost beside their content, in bytes, before its connection is closed: an endpoint
/// of many small events must not lose all its streams to a few slow readers.
const FRAME_BUDGET: usize = 32 * 1024 * 1024;
/// Bytes of a request that are kept until it is answered, in case that it must be sent again.
const KEPT: usize = 64 * 1024;
/// Bytes of a response head.
const MAX_HEAD: u32 = 64 * 1024;
/// Interim responses to one request.
const MAX_INTERIM: usize = 16;
/// How long content is held back for a 100 (Continue): RFC 9110 10.1.1, a client "SHOULD NOT wait for an indefinite period
/// before sending the content".
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A shared connection.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Http2 {
    sender: SendRequest<Piece>,
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    streams: Cell<usize>,
    /// By the endpoint's settings.
    allowed: Cell<usize>,
    last_used: Cell<Instant>,
    pings: Mutex<Option<PingPong>>,
    /// Whether the endpoint's settings have certainly come.
    settled: Cell<bool>,
    last_use: Option<Instant>,
    /// The endpoint answers no ping: the connection is given up.
    silent: Notify,
    room: Rc<Room>,
    /// Of what is asked for: RFC 9113 8.3.1.
    scheme: Scheme,
}

/// One of the connection's streams, until dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Stream(Http2);

/// An endpoint's answer.
#[derive(Debug)]
pub(in crate::proxy) enum Answered {
    /// One with content, or without.
    Response(ResponseHead, Http2Body),
    /// 101, and the tunnel that begins.
    Switched(ResponseHead, Box<dyn Pipe>),
}

/// A request that got no answer: why, and its content if certainly nothing was made of the request and all of it is there.
pub(in crate::proxy) type Failed = (Error, Option<Body>);

impl Http2 {
    /// Speaks HTTP/2 on a fresh connection. A stream holds no more than `room` bytes each way, and none is
    /// begun after `last_use`.
    pub(in crate::proxy) async fn open(
        io: Io,
        scheme: Scheme,
        room: usize,
        last_use: Option<Instant>,
    ) -> Result<Self, Error> {
        let windows = windows(room, STREAMS);
        let handshake = client::Builder::new()
            .initial_max_send_streams(STREAMS)
            .initial_window_size(windows.0)
            .initial_connection_window_size(windows.1)
            .data_frame_budget(FRAME_BUDGET)
            .max_send_buffer_size(room)
            .max_header_list_size(MAX_HEAD)
            .enable_push(false)
            .handshake::<_, Piece>(io);
        let (sender, mut connection) = handshake.await.map_err(|_| Error::ConnectFailed)?;
        let shared = Rc::new(Shared {
            streams: Cell::new(0),
            allowed: Cell::new(STREAMS),
            last_used: Cell::new(Instant::now()),
            pings: Mutex::new(connection.ping_pong()),
            settled: Cell::new(false),
            last_use,
            silent: Notify::new(),
            room: Room::new(),
            scheme,
        });
        let told = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            let silent = told.silent.notified();
            let driving = poll_fn(|cx| {
                let state = Pin::new(&mut connection).poll(cx);
                if state.is_pending() {
                    told.allowed.set(connection.max_concurrent_send_streams());
                }
                // How a connection ends, its streams are told by themselves.
                state.map(drop)
            });
            tokio::select! {
                () = driving => {}
                () = silent => {}
            }
        });
        Ok(Http2 { sender, shared })
    }

    /// Whether no stream can be begun any more: the connection is closed, or going away (RFC 9113 6.8: "Receivers of a GOAWAY
    /// frame MUST NOT open additional streams on the connection").
    pub(in crate::proxy) fn is_closed(&mut self) -> bool {
        matches!(self.sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Streams that it carries.
    pub(in crate::proxy) fn streams(&self) -> usize {
        self.shared.streams.get()
    }

    /// Whether it has reached its greatest age: streams that run may run on.
    pub(in crate::proxy) fn is_old(&self) -> bool {
        self.shared.last_use.is_some_and(|last| Instant::now() >= last)
    }

    /// Pings the endpoint every `interval` as long as the connection lasts, and gives it up if an answer takes longer than
    /// `limit`. RFC 9113 6.7: PING is for "determining whether an idle connection is still functional".
    pub(in crate::proxy) fn keep_asking(&self, interval: Duration, limit: Duration) {
        let shared = Rc::downgrade(&self.shared);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(shared) = shared.upgrade() else { return };
                let mut pings = shared.pings.lock().await;
                let Some(pings) = pings.as_mut() else { return };
                match tokio::time::timeout(limit, pings.ping(Ping::opaque())).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_ended)) => return,
                    Err(_) => return shared.silent.notify_one(),
                }
            }
        });
    }

    pub(in crate::proxy) fn has_room(&self) -> bool {
        // An endpoint that allows none at all still gets its turn: a request then waits on the connection.
        self.shared.streams.get() < self.shared.allowed.get().clamp(1, STREAMS) && !self.shared.room.is_held_up()
    }

    pub(in crate::proxy) fn idle_for(&self, time: Duration) -> bool {
        self.shared.streams.get() == 0 && self.shared.last_used.get().elapsed() >= time
    }

    /// Counts one more stream.
    pub(in crate::proxy) fn begin(&self) -> Stream {
        self.shared.streams.set(self.shared.streams.get() + 1);
        Stream(self.clone())
    }

    /// Whether the endpoint takes extended CONNECT.
    ///
    /// # Errors
    /// It has told neither, and is gone.
    async fn allows_connect(&self) -> Result<bool, Error> {
        if !self.sender.is_extended_connect_protocol_enabled() && !self.shared.settled.get() {
            // RFC 9113 3.4: the endpoint's SETTINGS "MUST be the first frame" it sends, so that they come before its answer
            // to a ping.
            let mut pings = self.shared.pings.lock().await;
            if let Some(pings) = pings.as_mut().filter(|_| !self.shared.settled.get()) {
                pings.ping(Ping::opaque()).await.map_err(|error| meaning(&error))?;
                self.shared.settled.set(true);
            }
        }
        Ok(self.sender.is_extended_connect_protocol_enabled())
    }
}

impl Stream {
    /// Sends a request and waits for the head of the answer. The stream counts until it is dropped.
    ///
    /// # Errors
    /// The failure, and the content if the request can be sent again.
    pub(in crate::proxy) async fn send(
        &mut self,
        head: &RequestHead,
        body: Body,
        downstream: &Downstream,
    ) -> Result<Answered, Failed> {
        if let Err(error) = poll_fn(|cx| self.0.sender.poll_ready(cx)).await {
            return Err((meaning(&error), Some(body)));
        }
        if head.fields.contains(Known::Upgrade) {
            return self.connect(head, downstream).await;
        }
        let ends = body.is_end_stream();
        let (response, stream) = match self.0.sender.send_request(request(head, &self.0.shared.scheme), ends) {
            Ok(begun) => begun,
            Err(error) => return Err((meaning(&error), Some(body))),
        };
        if ends {
            let received = receive(response, &mut None, &Notify::new(), downstream).await;
            return match received {
                Ok((head, inbound)) => Ok(Answered::Response(head, Http2Body { inbound, _sending: None })),
                Err(unanswered) => Err(unanswered.failed()),
            };
        }
        let kept = Kept::new(body, KEPT);
        let wanted = Rc::new(Notify::new());
        let waits = head.fields.contains(Known::Expect).then(|| Rc::clone(&wanted));
        let mut sending: Option<Sending> =
            Some(Box::pin(upload(kept.share(), stream, waits, Waiter::new(&self.0.shared.room))));
        match receive(response, &mut sending, &wanted, downstream).await {
            Ok((head, inbound)) => {
                kept.forget();
                let sending = sending.map(|rest| AbortOnDropHandle::new(tokio::task::spawn_local(rest)));
                Ok(Answered::Response(head, Http2Body { inbound, _sending: sending }))
            }
            Err(Unanswered { error, unprocessed }) => {
                drop(sending);
                Err((error, if unprocessed { kept.again() } else { None }))
            }
        }
    }

    /// Asks for a WebSocket (RFC 8441).
    async fn connect(&mut self, head: &RequestHead, downstream: &Downstream) -> Result<Answered, Failed> {
        let mut request = request(head, &self.0.shared.scheme);
        let proof = connect::connect(&mut request).ok_or((Error::BadRequest("Sec-WebSocket-Key"), None))?;
        // RFC 8441 3: "A sender MUST NOT" ask for it "without first receiving" the setting that allows it.
        match self.0.allows_connect().await {
            Ok(true) => {}
            Ok(false) => return Err((Error::NoWebSocket, None)),
            Err(error) => return Err((error, Some(Body::empty()))),
        }
        let begun = self.0.sender.send_request(request, false);
        let (response, mut stream) = begun.map_err(|error| (meaning(&error), Some(Body::empty())))?;
        let received = receive(response, &mut None, &Notify::new(), downstream).await;
        let (mut head, inbound) = received.map_err(Unanswered::failed)?;
        if !head.status.is_success() {
            // Nothing follows. Fails on a stream that is over.
            let _ = stream.send_data(Piece::end(), true);
            return Ok(Answered::Response(head, Http2Body { inbound, _sending: None }));
        }
        connect::switch(&mut head, &proof);
        let below = Carried { _stream: self.0.begin(), waiter: Waiter::new(&self.0.shared.room) };
        Ok(Answered::Switched(head, Box::new(Duplex::new(stream, inbound.into_stream(), below))))
    }
}

/// What a tunnel takes of a connection.
#[derive(Debug)]
struct Carried {
    _stream: Stream,
    waiter: Waiter,
}

impl Below for Carried {
    fn waits(&self, waits: bool) {
        if waits { self.waiter.waits(Flow::Sink) } else { self.waiter.moves() }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        shared.streams.set(shared.streams.get() - 1);
        shared.last_used.set(Instant::now());
    }
}

/// A request's content on its way; it outlives the answer's head.
type Sending = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// Sends the content, once the endpoint wants it if it is asked.
async fn upload(
    mut body: Kept,
    mut stream: SendStream<Piece>,
    wanted: Option<Rc<Notify>>,
    waiter: Waiter,
) -> Result<(), Error> {
    if let Some(wanted) = wanted {
        let _ = tokio::time::timeout(CONTINUE_WAIT, wanted.notified()).await;
    }
    match stream::send(&mut body, &mut stream, &waiter).await {
        // RFC 9113 8.1: after a complete answer the endpoint may reset the stream to have no more content, and "clients MUST NOT
        // discard responses as a result of receiving such a RST_STREAM".
        Ok(()) | Err(Stopped::Sink) => Ok(()),
        Err(Stopped::Source(error)) => {
            stream.send_reset(Reason::CANCEL);
            Err(error)
        }
    }
}

/// Waits for the head of an answer, and sends the content meanwhile.
async fn receive(
    mut response: ResponseFuture,
    sending: &mut Option<Sending>,
    wanted: &Notify,
    downstream: &Downstream,
) -> Result<(ResponseHead, Inbound), Unanswered> {
    let mut interim = 0;
    let response = poll_fn(|cx| {
        if let Some(upload) = sending
            && let Poll::Ready(sent) = upload.as_mut().poll(cx)
        {
            *sending = None;
            if let Err(error) = sent {
                return Poll::Ready(Err(Unanswered { error, unprocessed: false }));
            }
        }
        while let Poll::Ready(Some(Ok(told))) = response.poll_informational(cx) {
            interim += 1;
            if interim > MAX_INTERIM {
                return Poll::Ready(Err(Unanswered { error: Error::UpstreamProtocol, unprocessed: false }));
            }
            if told.status() == StatusCode::CONTINUE {
                wanted.notify_one();
            } else {
                downstream.tell(ResponseHead { status: told.status(), fields: told.headers().into() });
            }
        }
        Pin::new(&mut response).poll(cx).map_err(|error| Unanswered::new(&error))
    });
    let (head, stream) = response.await?.into_parts();
    let inbound = Inbound::new(stream, &head.headers, Error::UpstreamCut);
    Ok((ResponseHead { status: head.status, fields: (&head.headers).into() }, inbound))
}

/// Why a request that was sent got no answer.
#[derive(Debug)]
struct Unanswered {
    error: Error,
    /// Whether the endpoint says that it made nothing of it.
    unprocessed: bool,
}

impl Unanswered {
    /// RFC 9113 8.7 has "two mechanisms to provide a guarantee to a client that a request has not been processed": a GOAWAY
    /// below the stream, and REFUSED_STREAM. "Requests that have not been processed have not failed; clients MAY
    /// automatically retry them, even those with non-idempotent methods."
    fn new(error: &h2::Error) -> Self {
        // h2 ends a stream with the GOAWAY that it received only if the stream is above it.
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM) || error.is_go_away();
        Unanswered { error: meaning(error), unprocessed: error.is_remote() && refused }
    }

    /// The failure of a request without content.
    fn failed(self) -> Failed {
        (self.error, self.unprocessed.then(Body::empty))
    }
}

fn meaning(error: &h2::Error) -> Error {
    if error.is_library() { Error::UpstreamProtocol } else { Error::UpstreamReset }
}
