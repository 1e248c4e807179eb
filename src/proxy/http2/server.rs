//! HTTP/2 with clients: a connection from its preface to its end, and each of its exchanges. What RFC 9113 8.2 forbids is
//! refused by the crate below or by `request`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE, EXPECT, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

use super::duplex::Duplex;
use super::stream::{self, Inbound, Piece, Progress, Stopped};
use super::{connect, header_map, windows};
use crate::proxy::body::{self, Body};
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Error;
use crate::proxy::exchange::Exchange;
use crate::proxy::fields::Known;
use crate::proxy::io::Io;
use crate::proxy::message::{self, RequestHead, ResponseHead};
use crate::proxy::request::{self, Reply};
use crate::proxy::tunnel;
use crate::proxy::worker::{Active, Activity, Peer, Worker};

/// What the unread frames of a client may cost beside their content, in bytes, before its connection is closed: what several
/// slow streams of small messages need.
const FRAME_BUDGET: usize = 2 * 1024 * 1024;

/// Serves a connection until it ends.
pub(in crate::proxy) async fn serve(io: Io, peer: Peer, worker: Rc<Worker>) {
    let limits = &worker.settings.limits;
    let windows = windows(limits.stream_buffer_bytes, limits.http2_streams as usize);
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(limits.http2_streams)
        .max_pending_accept_reset_streams(limits.http2_pending_resets)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_window_size(windows.0)
        .initial_connection_window_size(windows.1)
        .data_frame_budget(FRAME_BUDGET)
        .max_send_buffer_size(limits.stream_buffer_bytes)
        .enable_connect_protocol();
    let handshake = tokio::time::timeout(limits.header_timeout, builder.handshake::<_, Piece>(io));
    let mut connection = match handshake.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/2 handshake"),
        Err(_) => return,
    };
    let activity = Rc::new(Activity::default());
    let mut silent = pin!(silent(connection.ping_pong(), limits.keep_alive_idle, limits.header_timeout));
    let mut leave = pin!(async {
        tokio::select! {
            () = activity.idle_for(limits.keep_alive_idle) => {}
            () = worker.leaving.drain.happened() => {}
        }
    });
    let mut leaving = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let active = activity.begin();
                    tokio::task::spawn_local(exchange(Rc::clone(&worker), peer.clone(), request, respond, active));
                }
                Some(Err(error)) => return tracing::debug!(%error, "HTTP/2 connection"),
                None => return,
            },
            // RFC 9113 6.8: GOAWAY "allows an endpoint to gracefully stop accepting new streams while still finishing
            // processing of previously established streams"; a first one that refuses nothing, and after a round trip the
            // one that counts: "a server that is attempting to gracefully shut down a connection SHOULD send an initial
            // GOAWAY frame with the last stream identifier set to 2^31-1 and a NO_ERROR code".
            () = &mut leave, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            // The client does not answer the ping between the two.
            () = activity.idle_for(limits.header_timeout), if leaving => return,
            () = &mut silent => return,
        }
    }
}

/// Ready when the client does not answer any more.
async fn silent(pings: Option<PingPong>, interval: Duration, patience: Duration) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(interval).await;
        if !matches!(tokio::time::timeout(patience, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// The way to answer, until it is taken.
type Respond = Rc<RefCell<Option<SendResponse<Piece>>>>;

/// Carries one exchange.
async fn exchange(
    worker: Rc<Worker>,
    peer: Peer,
    request: Request<RecvStream>,
    respond: SendResponse<Piece>,
    _active: Active,
) {
    let downstream = Rc::new(Downstream::default());
    let respond: Respond = Rc::new(RefCell::new(Some(respond)));
    let head_only = request.method() == Method::HEAD;
    let websocket = connect::is_asked_by(&request);
    let (parts, content) = request.into_parts();
    let mut head = RequestHead::of_http2(parts.method, &parts.uri, &parts.headers);
    let (body, tunnelled) = match content {
        tunnelled if websocket => {
            connect::handshake(&mut head);
            (Body::empty(), Some(tunnelled))
        }
        content if content.is_end_stream() => (Body::empty(), None),
        content => (Body::stream(Content::new(content, &parts.headers, &respond)), None),
    };
    drop(parts.headers);
    let handled = {
        let mut handling = Box::pin(request::handle(&worker, &peer, head, body, &downstream));
        poll_fn(|cx| {
            let handled = handling.as_mut().poll(cx);
            let mut respond = respond.borrow_mut();
            let Some(respond) = respond.as_mut() else { return handled.map(Some) };
            while let Some(interim) = downstream.told() {
                let mut response = Response::new(());
                *response.status_mut() = interim.status;
                *response.headers_mut() = header_map(&interim.fields);
                // Fails on a stream that is over.
                let _ = respond.send_informational(response);
            }
            match handled {
                Poll::Ready(reply) => Poll::Ready(Some(reply)),
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            }
        })
        .await
    };
    // Whoever leaves before its answer is written down as gone when its exchange is dropped.
    let (Some(reply), Some(mut respond)) = (handled, respond.take()) else { return };
    let Reply { response, exchange, takeover, .. } = reply;
    let message::Response { mut head, mut body } = response;
    if takeover.is_some() {
        connect::answer(&mut head);
    }
    let head = finish(&worker, &head, &body);
    if head_only {
        body = Body::empty();
    }
    let ends = takeover.is_none() && body.is_end_stream();
    let mut stream = match respond.send_response(head, ends) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "HTTP/2 answer");
            return exchange.cut(Error::ClientGone);
        }
    };
    match (takeover, tunnelled) {
        (Some(takeover), Some(received)) => {
            let client = Duplex::new(stream, received, ());
            tunnel::run(worker, client, Bytes::new(), takeover, exchange).await;
        }
        _ if ends => exchange.complete(),
        (_, _unread) => answer(&mut stream, &mut body, exchange).await,
    }
}

/// Makes a head one of HTTP/2.
fn finish(worker: &Worker, head: &ResponseHead, body: &Body) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    let mut fields = header_map(&head.fields);
    if !head.fields.contains(Known::ContentLength)
        && !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !head.fields.contains(Known::Date)
        && let Ok(date) = worker.with_date(HeaderValue::from_str)
    {
        fields.insert(DATE, date);
    }
    *response.headers_mut() = fields;
    response
}

/// Sends the content of an answer. It is complete once the connection has taken all of it.
async fn answer(stream: &mut SendStream<Piece>, body: &mut Body, exchange: Rc<Exchange>) {
    let progress = Progress::new(&exchange);
    let sending = async {
        let sent = async {
            stream::send(body, stream, &progress).await?;
            progress.taken(stream).await
        };
        sent.await.map_err(|stopped| match stopped {
            Stopped::Source(error) => error,
            Stopped::Sink => Error::ClientGone,
        })
    };
    let sent = exchange.within(pin!(sending)).await.flatten();
    match sent {
        Ok(()) => exchange.complete(),
        Err(error) => {
            // A reset overtakes what waits before it. What came before the break goes out before the reset.
            let _ = exchange.within(pin!(progress.taken(stream))).await;
            tokio::task::yield_now().await;
            exchange.cut(error);
            stream.send_reset(code(error));
        }
    }
}

/// How a client is told that its answer breaks off.
fn code(error: Error) -> Reason {
    match error {
        Error::UpstreamCut | Error::UpstreamReset | Error::UpstreamProtocol => Reason::INTERNAL_ERROR,
        _ => Reason::CANCEL,
    }
}

/// The content of a request. A client that waits for a 100 (Continue) gets it when someone wants the content.
struct Content {
    inbound: Inbound,
    waiting: Option<Respond>,
}

impl Content {
    fn new(stream: RecvStream, fields: &HeaderMap, respond: &Respond) -> Self {
        let waits = fields.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let inbound = Inbound::new(stream, fields, Error::BodyIncomplete);
        Content { inbound, waiting: waits.then(|| Rc::clone(respond)) }
    }
}

impl body::Content for Content {}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.inbound).poll_frame(cx);
        // RFC 9110 10.1.1: "A server MAY omit sending a 100 (Continue) response if it has already received some or all of the
        // content for the corresponding request".
        if let Some(respond) = self.waiting.take()
            && frame.is_pending()
            && let Some(respond) = respond.borrow_mut().as_mut()
        {
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            // Fails on a stream that is over.
            let _ = respond.send_informational(interim);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inbound.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inbound.size_hint()
    }
}
