//! HTTP/2 with clients, by hyper. Bounds and translation are ours: what RFC 9113 8.2 forbids is refused by the `h2` crate
//! below or by `request`.

use std::cell::{OnceCell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::body::Body;
use super::clocks::Flow;
use super::error::Error;
use super::exchange::Exchange;
use super::headers;
use super::io::Io;
use super::message::RequestHead;
use super::request::{self, Reply};
use super::timer::Timer;
use super::worker::{Activity, Peer, Worker};

/// Flow-control windows: how much a client may send ahead of a slow endpoint. h2 closes a connection whose unread frames cost
/// more than half of its window beside their content, so that one is no smaller than what several slow streams of small
/// messages need.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Written but not taken by the client, per stream.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves a connection until it ends.
pub(super) async fn serve(io: Io, peer: Peer, worker: Rc<Worker>) {
    let limits = &worker.settings.limits;
    let activity = Rc::new(Activity::default());
    let streams = Streams::default();
    let service = service_fn(|request: Request<Incoming>| {
        let worker = Rc::clone(&worker);
        let active = activity.begin();
        let answered = streams.begin();
        async move {
            let timer = Rc::new(Timer::default());
            let head_only = request.method() == Method::HEAD;
            let (head, incoming) = request.into_parts();
            let body = if incoming.is_end_stream() { Body::empty() } else { Body::stream(Inbound(incoming)) };
            let head = RequestHead::of_http2(head.method, &head.uri, &head.headers);
            let Reply { response, exchange, .. } = Box::pin(request::handle(&worker, &peer, head, body, &timer)).await;
            let _ = answered.set(Rc::clone(&exchange));
            let body = if head_only { Body::empty() } else { response.body };
            let mut answer = Response::new(Outbound { body, exchange: Rc::clone(&exchange), _active: active });
            *answer.status_mut() = response.head.status;
            *answer.headers_mut() = HeaderMap::from(&response.head.fields);
            let response = answer;
            if response.body().is_end_stream() {
                exchange.complete();
            }
            Ok::<Response<Outbound<_>>, Infallible>(response)
        }
    });
    let connection = http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_pending_accept_reset_streams(limits.http2_pending_resets)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.keep_alive_idle)
        .keep_alive_timeout(limits.header_timeout)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, "HTTP/2 connection");
            }
            return;
        }
        () = activity.idle_for(limits.keep_alive_idle) => {}
        () = worker.leaving.drain.happened() => {}
    }
    // RFC 9113 6.8: GOAWAY "allows an endpoint to gracefully stop accepting new streams while still finishing processing of
    // previously established streams".
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        // Nothing runs any more, but what was handed over last is not taken.
        () = activity.idle_for(limits.keep_alive_idle) => {}
    }
}

/// Runs the streams of one connection, each under the clocks of its exchange once that is answered. hyper does not look at
/// a body while the client's flow control holds back what came before, so the body cannot be the one to look at clocks.
#[derive(Clone, Debug, Default)]
struct Streams {
    /// The stream that hyper has asked a service for and not run yet.
    begun: Rc<RefCell<Answered>>,
}

type Answered = Rc<OnceCell<Rc<Exchange>>>;

impl Streams {
    /// A stream begins; the place to put its exchange.
    fn begin(&self) -> Answered {
        let answered = Answered::default();
        self.begun.replace(Rc::clone(&answered));
        answered
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let answered = self.begun.take();
        tokio::task::spawn_local(async move {
            let mut stream = pin!(stream);
            poll_fn(|cx| match (stream.as_mut().poll(cx), answered.get()) {
                (Poll::Pending, Some(exchange)) => exchange.poll_expired(cx).map(|error| exchange.cut(error)),
                (state, _) => state.map(drop),
            })
            .await;
            // A stream that is dropped before its end is reset.
        });
    }
}

/// A request's content.
struct Inbound(Incoming);

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(|_| Error::BodyIncomplete)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// An answer's content, which tells its exchange how it went.
struct Outbound<A> {
    body: Body,
    exchange: Rc<Exchange>,
    _active: A,
}

impl<A: Unpin> http_body::Body for Outbound<A> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(mut frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.exchange.download_waits(Flow::Source);
            return Poll::Pending;
        };
        match &mut frame {
            None => self.exchange.complete(),
            Some(Err(error)) => self.exchange.cut(*error),
            Some(Ok(frame)) => {
                headers::clean_trailers(frame);
                if let Some(data) = frame.data_ref() {
                    // hyper asks for more only when the client's flow control has room for it.
                    self.exchange.handed_on(data.len());
                }
                if self.body.is_end_stream() {
                    self.exchange.complete();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
