//! Connections to endpoints: made, used for one exchange at a time (HTTP/1.1) or many (HTTP/2), given back. The one place
//! that names hyper's client; phases see `http` types, [`Body`] and [`Takeover`].

use std::cell::Cell;
use std::error::Error as _;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Host, InFlight, Pool, Upstream};
use crate::proxy::body::Body;
use crate::proxy::error::Error;
use crate::proxy::io::Io;
use crate::proxy::rt::LocalExecutor;
use crate::snapshot::{Connections, Protocol};

/// Streams that one HTTP/2 connection carries before another is opened, unless the endpoint allows fewer. RFC 9113 6.5.2
/// recommends that no peer allows fewer than 100.
const HTTP2_STREAMS: usize = 100;
/// Bytes of a response head; it may have 100 fields, hyper's default, for which it needs no allocation.
const MAX_HEAD: usize = 256 * 1024;
/// Flow-control windows of HTTP/2: how much an endpoint may send ahead of a slow client.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct Http1 {
    sender: http1::SendRequest<Body>,
    requests: u64,
}

impl Http1 {
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether a request can be sent at once.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }
}

/// A shared HTTP/2 connection.
#[derive(Clone, Debug)]
pub(super) struct Http2 {
    sender: http2::SendRequest<Body>,
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    streams: Cell<usize>,
    /// By the endpoint's settings.
    allowed: Cell<usize>,
    last_used: Cell<Instant>,
}

impl Http2 {
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn has_room(&self) -> bool {
        // An endpoint that allows none at all still gets its turn: a request then waits on the connection.
        self.shared.streams.get() < self.shared.allowed.get().clamp(1, HTTP2_STREAMS)
    }

    pub(super) fn idle_for(&self, time: Duration) -> bool {
        self.shared.streams.get() == 0 && self.shared.last_used.get().elapsed() >= time
    }
}

/// A connection on loan to one exchange.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Connection,
    /// Gone with its endpoint: then the connection ends with its exchange.
    pool: Weak<Pool>,
    settings: Connections,
    /// Whether it carried a request before, so that its endpoint may have closed it meanwhile.
    pub reused: bool,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
enum Connection {
    Http1(Option<Http1>),
    Http2(Http2),
}

/// An endpoint's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its head and content.
    pub response: Response<Body>,
    /// The way to take the connection over, if it switched protocols.
    pub takeover: Option<Takeover>,
}

/// An upstream connection that is no longer HTTP.
#[derive(Debug)]
pub(crate) struct Takeover {
    upgraded: hyper::upgrade::OnUpgrade,
    in_flight: Option<InFlight>,
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) struct SendFailure {
    /// Why.
    pub error: Error,
    /// The request, if certainly nothing of it was sent.
    pub unsent: Option<Box<Request<Body>>>,
}

impl Takeover {
    /// The connection, what was read ahead on it, and what counts it as in flight until dropped.
    ///
    /// # Errors
    /// The connection broke meanwhile.
    pub(crate) async fn into_io(self) -> Result<(Io, Bytes, Option<InFlight>), Error> {
        let upgraded = self.upgraded.await.map_err(|_| Error::UpstreamReset)?;
        let parts = upgraded.downcast::<TokioIo<Io>>().map_err(|_| Error::UpstreamReset)?;
        Ok((parts.io.into_inner(), parts.read_buf, self.in_flight))
    }
}

impl Lease {
    /// A waiting connection to `host`, or `None`.
    pub(crate) fn waiting(upstream: &Upstream, host: &Host) -> Option<Lease> {
        let settings = &upstream.cluster().connections;
        let connection = match upstream.cluster().protocol {
            Protocol::Http1 => Connection::Http1(Some(host.pool.take_http1(settings.idle_timeout)?)),
            Protocol::Http2 => Connection::Http2(host.pool.http2()?),
        };
        Some(Lease::new(connection, host, settings, true))
    }

    /// A new connection to `host`, or one that was opened for another request meanwhile.
    ///
    /// # Errors
    /// [`Error::ConnectFailed`] or [`Error::ConnectTimeout`].
    pub(crate) async fn connect(upstream: &Upstream, host: &Host, timeout: Duration) -> Result<Lease, Error> {
        let settings = &upstream.cluster().connections;
        let protocol = upstream.cluster().protocol;
        let connecting = async {
            let _turn = match protocol {
                Protocol::Http1 => None,
                Protocol::Http2 => {
                    let turn = host.pool.turn().await;
                    if let Some(opened) = host.pool.http2() {
                        return Ok((Connection::Http2(opened), true));
                    }
                    Some(turn)
                }
            };
            Ok((open(host.endpoint.address, settings, protocol, &host.pool).await?, false))
        };
        let (connection, reused) =
            tokio::time::timeout(timeout, connecting).await.map_err(|_| Error::ConnectTimeout)??;
        Ok(Lease::new(connection, host, settings, reused))
    }

    fn new(connection: Connection, host: &Host, settings: &Connections, reused: bool) -> Self {
        if let Connection::Http2(connection) = &connection {
            connection.shared.streams.set(connection.shared.streams.get() + 1);
        }
        Lease {
            connection,
            pool: Rc::downgrade(&host.pool),
            settings: settings.clone(),
            reused,
            in_flight: Some(host.begin()),
        }
    }

    /// The version in which requests are sent.
    pub(crate) fn version(&self) -> Version {
        match self.connection {
            Connection::Http1(_) => Version::HTTP_11,
            Connection::Http2(_) => Version::HTTP_2,
        }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`SendFailure`], with the request if it can be sent elsewhere.
    pub(crate) async fn send(mut self, request: Request<Body>) -> Result<Answer, SendFailure> {
        let sent = match &mut self.connection {
            Connection::Http1(Some(connection)) => {
                connection.requests += 1;
                if let Err(error) = connection.sender.ready().await {
                    return Err(SendFailure { error: failure(&error), unsent: Some(Box::new(request)) });
                }
                connection.sender.try_send_request(request).await
            }
            Connection::Http1(None) => {
                return Err(SendFailure { error: Error::UpstreamReset, unsent: Some(Box::new(request)) });
            }
            Connection::Http2(connection) => {
                if let Err(error) = connection.sender.ready().await {
                    return Err(SendFailure { error: failure(&error), unsent: Some(Box::new(request)) });
                }
                connection.sender.try_send_request(request).await
            }
        };
        let mut response = match sent {
            Ok(response) => response,
            Err(mut failed) => {
                let unsent = failed.take_message().map(Box::new);
                return Err(SendFailure { error: failure(failed.error()), unsent });
            }
        };
        if !is_framed_once(response.headers()) {
            return Err(SendFailure { error: Error::UpstreamProtocol, unsent: None });
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgraded = hyper::upgrade::on(&mut response);
            let takeover = Takeover { upgraded, in_flight: self.in_flight.take() };
            return Ok(Answer { response: response.map(|_| Body::empty()), takeover: Some(takeover) });
        }
        let (head, incoming) = response.into_parts();
        let body = if incoming.is_end_stream() {
            self.give_back();
            Body::empty()
        } else {
            Body::stream(Download { incoming, lease: Some(self) })
        };
        Ok(Answer { response: Response::from_parts(head, body), takeover: None })
    }

    /// The exchange is over and the connection is fit for another.
    fn give_back(mut self) {
        if let Connection::Http1(connection) = &mut self.connection
            && let Some(connection) = connection.take()
            && self.settings.max_requests.is_none_or(|limit| connection.requests < limit)
            && !connection.is_closed()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.put_http1(connection, self.settings.max_idle_per_endpoint);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Connection::Http2(connection) = &self.connection {
            connection.shared.streams.set(connection.shared.streams.get() - 1);
            connection.shared.last_used.set(Instant::now());
        }
    }
}

async fn open(
    address: SocketAddr,
    settings: &Connections,
    protocol: Protocol,
    pool: &Pool,
) -> Result<Connection, Error> {
    let stream = TcpStream::connect(address).await.map_err(|error| {
        tracing::debug!(%address, %error, "connect");
        Error::ConnectFailed
    })?;
    prepare(&stream, settings);
    let io = TokioIo::new(Io::new(stream));
    match protocol {
        Protocol::Http1 => {
            let (sender, connection) =
                http1::Builder::new().max_buf_size(MAX_HEAD).handshake(io).await.map_err(|_| Error::ConnectFailed)?;
            tokio::task::spawn_local(async move {
                // How a connection ends, its exchange is told by its sender or its body.
                let _ = connection.with_upgrades().await;
            });
            Ok(Connection::Http1(Some(Http1 { sender, requests: 0 })))
        }
        Protocol::Http2 => {
            let (sender, connection) = http2::Builder::new(LocalExecutor)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(64 * 1024)
                .handshake(io)
                .await
                .map_err(|_| Error::ConnectFailed)?;
            let shared = Rc::new(Shared {
                streams: Cell::new(0),
                allowed: Cell::new(HTTP2_STREAMS),
                last_used: Cell::new(Instant::now()),
            });
            let told = Rc::clone(&shared);
            let mut connection = Box::pin(connection);
            tokio::task::spawn_local(poll_fn(move |cx| {
                let state = connection.as_mut().poll(cx);
                if state.is_pending() {
                    told.allowed.set(connection.current_max_send_streams());
                }
                state.map(drop)
            }));
            let connection = Http2 { sender, shared };
            pool.share_http2(&connection);
            Ok(Connection::Http2(connection))
        }
    }
}

fn prepare(stream: &TcpStream, settings: &Connections) {
    // Without this a small event waits for the acknowledgement of the one before (Nagle).
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    if let Some(interval) = settings.tcp_keep_alive {
        let probes = socket2::TcpKeepalive::new().with_time(interval).with_interval(interval);
        if let Err(error) = socket2::SockRef::from(stream).set_tcp_keepalive(&probes) {
            tracing::debug!(%error, "cannot set TCP keep-alive");
        }
    }
}

/// Whether everyone finds the end of an answer with these fields in the same place. RFC 9112 6.3 calls both framing fields
/// in one message an error, and lets a proxy discard an answer whose lengths are no single number; hyper takes the ones it
/// can make sense of. A coding other than chunked would have to be undone here, since it is not passed on.
fn is_framed_once(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    headers.get_all(TRANSFER_ENCODING).iter().count() + headers.get_all(CONTENT_LENGTH).iter().count() <= 1
        && codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        && lengths.all(|length| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit))
}

/// What hyper's error means. An error of our own request body comes back as itself.
fn failure(error: &hyper::Error) -> Error {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(own) = inner.downcast_ref::<Error>() {
            return *own;
        }
        source = inner.source();
    }
    if error.is_parse() { Error::UpstreamProtocol } else { Error::UpstreamReset }
}

/// The content of an answer; gives the connection back when it has been read to its end.
struct Download {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl Download {
    fn finished(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if frame.is_none() || self.incoming.is_end_stream() {
            self.finished();
        }
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| match failure(&error) {
                Error::UpstreamReset | Error::UpstreamProtocol => Error::UpstreamCut,
                own => own,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
