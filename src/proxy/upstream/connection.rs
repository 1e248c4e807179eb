//! Connections on loan: made or taken from the pool, used for one exchange, given back. What is spoken on them is `http1`'s
//! and `http2`'s.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::open::{dial, open};
use super::{Admitted, Host, InFlight, Pool, Upstream, admission};
use crate::proxy::body::{Body, Content};
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Error;
use crate::proxy::fields::Known;
use crate::proxy::http1::{Client, Received, ResponseBody};
use crate::proxy::http2::{Answered, Http2, Http2Body, Stream};
use crate::proxy::io::{Io, Pipe};
use crate::proxy::message::{RequestHead, Response, ResponseHead};
use crate::proxy::pipes::Piped;
use crate::resilience::{Connected, around};
use crate::snapshot::{Connections, Protocol};

/// How far the greatest ages of connections differ.
const AGE_SPREAD_PERCENT: u32 = 10;

/// A connection on loan to one exchange.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Connection,
    pool: Rc<Pool>,
    keeping: Keeping,
    /// Whether it carried a request before, so that its endpoint may have closed it meanwhile.
    pub reused: bool,
    in_flight: InFlight,
}

/// Whether a connection is kept after an exchange.
#[derive(Clone, Copy, Debug)]
struct Keeping {
    max_idle: u32,
    max_requests: Option<u64>,
}

impl From<&Connections> for Keeping {
    fn from(settings: &Connections) -> Self {
        // One that was introduced is its client's alone.
        let max_idle = if settings.proxy_protocol.is_some() { 0 } else { settings.max_idle_per_endpoint };
        Keeping { max_idle, max_requests: settings.max_requests }
    }
}

#[derive(Debug)]
enum Connection {
    Http1(Client),
    Http2(Stream),
}

/// An endpoint's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its head and content.
    pub response: Response,
    /// The way to take the connection over, if it switched protocols.
    pub takeover: Option<Takeover>,
}

/// An upstream connection that is no longer HTTP.
#[derive(Debug)]
pub(crate) struct Takeover {
    /// What carries the bytes.
    pub pipe: Box<dyn Pipe>,
    /// What was read ahead on it.
    pub early: Bytes,
    /// Whether an extension of the WebSocket was agreed on; `None` if it is no WebSocket.
    pub extended: Option<bool>,
    /// Counts it as in flight until dropped.
    pub in_flight: InFlight,
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) struct SendFailure {
    /// Why.
    pub error: Error,
    /// The request's content, if the request can be sent again: certainly nothing was made of it.
    pub unsent: Option<Body>,
}

impl Takeover {
    /// A new connection to `host` that carries what a client and the endpoint say to each other, whatever that is.
    ///
    /// # Errors
    /// [`Error::ConnectFailed`] or [`Error::ConnectTimeout`]; [`Error::UpstreamOverflow`] if it has no `place`, and there is none.
    pub(crate) async fn connect(
        upstream: &Upstream,
        host: &Rc<Host>,
        place: Option<Connected>,
        client: SocketAddr,
        timeout: Duration,
        admitted: Option<&Rc<Admitted>>,
    ) -> Result<Takeover, Error> {
        let mut in_flight = InFlight::new(host);
        in_flight.admitted = admitted.cloned();
        let place = place.or_else(|| upstream.place(host)).ok_or(Error::UpstreamOverflow)?;
        let dialled = tokio::time::timeout(timeout, dial(host, Some(client), upstream)).await;
        let io = Io::new(dialled.map_err(|_| Error::ConnectTimeout)??, upstream.room).counted(place);
        Ok(Takeover { pipe: Box::new(io), early: Bytes::new(), extended: None, in_flight })
    }
}

impl Lease {
    /// A waiting connection to `host`, or `None`.
    pub(crate) fn waiting(upstream: &Upstream, host: &Rc<Host>) -> Option<Lease> {
        let settings = &upstream.cluster().connections;
        let http1 = || host.pool.take_http1(settings.idle_timeout).map(Connection::Http1);
        let http2 = || host.pool.http2().map(|connection| Connection::Http2(connection.begin()));
        let connection = match upstream.cluster().protocol {
            Protocol::Http1 => http1(),
            Protocol::Http2 => http2(),
            Protocol::Agreed => http2().or_else(http1),
        }?;
        Some(Lease::new(connection, InFlight::new(host), settings, true))
    }

    /// A new connection to `host` for a client, or one that was opened for another request meanwhile.
    ///
    /// # Errors
    /// [`Error::ConnectFailed`], [`Error::ConnectTimeout`] or [`Error::UpstreamTls`]; [`Error::UpstreamOverflow`] if it has no `place` for a
    /// connection, and there is none.
    pub(crate) async fn connect(
        upstream: &Upstream,
        host: &Rc<Host>,
        place: Option<Connected>,
        client: SocketAddr,
        timeout: Duration,
    ) -> Result<Lease, Error> {
        // From here on it has something to do: one that hangs in connecting must not look idle.
        let in_flight = InFlight::new(host);
        let settings = &upstream.cluster().connections;
        let protocol = upstream.cluster().protocol;
        let connecting = async {
            let opening = async |place: Option<Connected>| {
                let place = place.or_else(|| upstream.place(host)).ok_or(Error::UpstreamOverflow)?;
                let (io, spoken) = open(host, Some(client), upstream).await?;
                Ok((io.counted(place), spoken))
            };
            let alone = settings.proxy_protocol.is_some();
            // Requests that come while a connection is being opened that many can share wait for it.
            let shared = !alone && (protocol == Protocol::Http2 || host.pool.shares());
            let _turn = if shared { Some(host.pool.turn().await) } else { None };
            if shared && let Some(opened) = host.pool.http2() {
                return Ok((Connection::Http2(opened.begin()), true));
            }
            let opens = shared.then(|| host.pool.opens());
            let (io, spoken) = opening(place).await?;
            if spoken == Protocol::Http1 {
                return Ok((Connection::Http1(Client::new(io, last_use(settings))), false));
            }
            let connection = open_http2(io, upstream).await?;
            if !alone {
                host.pool.share_http2(&connection);
                admission::opened(host.state.cluster());
            }
            drop(opens);
            Ok((Connection::Http2(connection.begin()), false))
        };
        let (connection, reused) =
            tokio::time::timeout(timeout, connecting).await.map_err(|_| Error::ConnectTimeout)??;
        Ok(Lease::new(connection, in_flight, settings, reused))
    }

    /// Holds the place of its request until the exchange with the endpoint is over.
    pub(crate) fn hold(&mut self, admitted: Option<&Rc<Admitted>>) {
        self.in_flight.admitted = admitted.cloned();
    }

    fn new(connection: Connection, in_flight: InFlight, settings: &Connections, reused: bool) -> Self {
        let (pool, keeping) = (Rc::clone(&in_flight.host.pool), Keeping::from(settings));
        Lease { connection, pool, keeping, reused, in_flight }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`SendFailure`], with the content if the request can be sent elsewhere.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice")]
    pub(crate) fn send(
        mut self,
        head: &RequestHead,
        body: Body,
        downstream: &Downstream,
    ) -> impl Future<Output = Result<Answer, SendFailure>> {
        async move {
            match &mut self.connection {
                Connection::Http1(client) => match client.send(head, body, downstream).await {
                    Ok(Received::Response(head, content)) => Ok(self.download(head, content)),
                    Ok(Received::Switched(head)) => {
                        let extended = head.fields.contains(Known::WebSocketExtensions);
                        let response = Response { head, body: Body::empty() };
                        Ok(Answer { response, takeover: self.into_takeover(extended) })
                    }
                    Err(error) => Err(SendFailure { error, unsent: None }),
                },
                Connection::Http2(stream) => match Box::pin(stream.send(head, body, downstream)).await {
                    Ok(Answered::Response(head, content)) => Ok(self.download(head, content)),
                    Ok(Answered::Switched(head, pipe)) => {
                        let extended = head.fields.contains(Known::WebSocketExtensions);
                        let (early, extended) = (Bytes::new(), Some(extended));
                        let takeover = Takeover { pipe, early, extended, in_flight: self.in_flight };
                        Ok(Answer { response: Response { head, body: Body::empty() }, takeover: Some(takeover) })
                    }
                    Err((error, unsent)) => Err(SendFailure { error, unsent }),
                },
            }
        }
    }

    fn into_takeover(self, extended: bool) -> Option<Takeover> {
        let Connection::Http1(client) = self.connection else { return None };
        let (io, early) = client.into_io()?;
        Some(Takeover { pipe: Box::new(io), early, extended: Some(extended), in_flight: self.in_flight })
    }

    fn download<B: Download>(self, head: ResponseHead, content: B) -> Answer {
        let body = if content.is_end_stream() {
            drop(content);
            self.give_back();
            Body::empty()
        } else {
            Body::stream(Lent(Some((content, self))))
        };
        Answer { response: Response { head, body }, takeover: None }
    }

    /// The exchange is over; the connection waits for another if it is fit for it.
    fn give_back(self) {
        let state = &self.in_flight.host.state;
        if let Connection::Http1(client) = self.connection
            && self.keeping.max_requests.is_none_or(|limit| client.requests() < limit)
            && client.is_reusable()
            && !client.is_old()
            && admission::may_keep(state.cluster())
        {
            self.pool.put_http1(client, self.keeping.max_idle);
        }
    }
}

/// Opens connections until enough of them wait. If one cannot be opened, the next round tries again.
pub(super) async fn warm(upstream: Rc<Upstream>, host: Rc<Host>) {
    let settings = &upstream.cluster().connections;
    let enough = settings.upkeep.min_idle_per_endpoint.min(settings.max_idle_per_endpoint);
    while let Some(_turn) = host.pool.turn_to_warm(upstream.cluster().protocol, enough) {
        let opening = async {
            let place = upstream.place(&host).ok_or(Error::UpstreamOverflow)?;
            let (io, spoken) = open(&host, None, &upstream).await?;
            let io = io.counted(place);
            match spoken {
                Protocol::Http1 | Protocol::Agreed => {
                    host.pool.put_http1(Client::new(io, last_use(settings)), settings.max_idle_per_endpoint);
                }
                Protocol::Http2 => {
                    host.pool.share_http2(&open_http2(io, &upstream).await?);
                }
            }
            // Somebody may wait by now.
            admission::opened(host.state.cluster());
            Ok::<(), Error>(())
        };
        if !matches!(tokio::time::timeout(settings.connect_timeout, opening).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// When a connection that is opened now is used for the last time. Chance spreads that, so that those that were opened together
/// do not end together.
fn last_use(settings: &Connections) -> Option<Instant> {
    let age = settings.upkeep.max_age?;
    Some(Instant::now() + around(age, AGE_SPREAD_PERCENT, fastrand::f64()))
}

async fn open_http2(io: Io, upstream: &Upstream) -> Result<Http2, Error> {
    let settings = &upstream.cluster().connections;
    let scheme = if settings.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let connection = Http2::open(io, scheme, upstream.room, last_use(settings)).await?;
    if let Some((interval, limit)) = settings.upkeep.http2_ping {
        connection.keep_asking(interval, limit);
    }
    Ok(connection)
}

/// The content of an answer, in either version.
trait Download: Content + Unpin + 'static {}

impl Download for ResponseBody {}
impl Download for Http2Body {}

/// Content that gives its connection back when it has been read to its end, and is empty from then on: the connection may
/// carry another exchange's by then.
struct Lent<B>(Option<(B, Lease)>);

impl<B: Download> http_body::Body for Lent<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some((content, _)) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *content).poll_frame(cx));
        if (frame.is_none() || content.is_end_stream())
            && let Some((content, lease)) = self.0.take()
        {
            drop(content);
            lease.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |(content, _)| content.size_hint())
    }
}

impl<B: Download> Content for Lent<B> {
    fn poll_piped(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        piped: &mut Piped,
    ) -> Option<Poll<Result<usize, Error>>> {
        // Never the end of it.
        Pin::new(&mut self.0.as_mut()?.0).poll_piped(cx, piped)
    }
}
