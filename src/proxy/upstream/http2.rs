//! HTTP/2 with endpoints, by hyper: one connection carries many exchanges. The only place that names hyper's client.

use std::cell::Cell;
use std::error::Error as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Uri, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::proxy::body::Body;
use crate::proxy::error::Error;
use crate::proxy::fields::Known;
use crate::proxy::io::Io;
use crate::proxy::message::{RequestHead, ResponseHead};
use crate::proxy::rt::LocalExecutor;

/// Streams that one connection carries before another is opened, unless the endpoint allows fewer. RFC 9113 6.5.2 recommends
/// that no peer allows fewer than 100.
const STREAMS: usize = 100;
/// Flow-control windows: how much an endpoint may send ahead of slow clients. The windows of the streams are the bound; that
/// of the connection is far above their sum, because h2 closes a connection whose unread frames cost more than half of it
/// beside their content, and an endpoint of many small events must not lose all its streams to a few slow readers.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
/// Bytes of a response head.
const MAX_HEAD: u32 = 64 * 1024;

/// A shared connection.
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

/// One of the connection's streams, until dropped.
#[derive(Debug)]
pub(super) struct Stream(Http2);

impl Http2 {
    /// Speaks HTTP/2 on a fresh connection, with prior knowledge.
    pub(super) async fn open(io: Io) -> Result<Self, Error> {
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|_| Error::ConnectFailed)?;
        let shared = Rc::new(Shared {
            streams: Cell::new(0),
            allowed: Cell::new(STREAMS),
            last_used: Cell::new(Instant::now()),
        });
        let told = Rc::clone(&shared);
        let mut connection = Box::pin(connection);
        tokio::task::spawn_local(poll_fn(move |cx| {
            let state = connection.as_mut().poll(cx);
            if state.is_pending() {
                told.allowed.set(connection.current_max_send_streams());
            }
            // How a connection ends, its streams are told by themselves.
            state.map(drop)
        }));
        Ok(Http2 { sender, shared })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn has_room(&self) -> bool {
        // An endpoint that allows none at all still gets its turn: a request then waits on the connection.
        self.shared.streams.get() < self.shared.allowed.get().clamp(1, STREAMS)
    }

    pub(super) fn idle_for(&self, time: Duration) -> bool {
        self.shared.streams.get() == 0 && self.shared.last_used.get().elapsed() >= time
    }

    /// Counts one more stream.
    pub(super) fn begin(&self) -> Stream {
        self.shared.streams.set(self.shared.streams.get() + 1);
        Stream(self.clone())
    }
}

impl Stream {
    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// The failure, and the content if certainly nothing of the request was sent.
    pub(super) async fn send(
        &mut self,
        head: &RequestHead,
        body: Body,
    ) -> Result<(ResponseHead, Http2Body), (Error, Option<Body>)> {
        if let Err(error) = self.0.sender.ready().await {
            return Err((failure(&error), Some(body)));
        }
        match self.0.sender.try_send_request(request(head, body)).await {
            Ok(response) => {
                let head = ResponseHead { status: response.status(), fields: response.headers().into() };
                Ok((head, Http2Body(response.into_body())))
            }
            Err(mut failed) => {
                let unsent = failed.take_message().map(Request::into_body);
                Err((failure(failed.error()), unsent))
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        shared.streams.set(shared.streams.get() - 1);
        shared.last_used.set(Instant::now());
    }
}

/// RFC 9113 8.3.1: clients that make HTTP/2 requests from other versions "MUST … use :authority instead of Host".
fn request(head: &RequestHead, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = head.path_and_query.as_str().try_into().ok();
    uri.authority = head.fields.get(Known::Host).and_then(|host| Authority::try_from(host).ok());
    uri.scheme = uri.authority.is_some().then_some(Scheme::HTTP);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    *request.headers_mut() = HeaderMap::from(&head.fields);
    request.headers_mut().remove(http::header::HOST);
    request
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

/// The content of an answer.
#[derive(Debug)]
pub(super) struct Http2Body(Incoming);

impl http_body::Body for Http2Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(|error| match failure(&error) {
            Error::UpstreamReset | Error::UpstreamProtocol => Error::UpstreamCut,
            own => own,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
