//! HTTP/1.1 with endpoints: one connection, one exchange at a time. It has no task of its own: whoever waits for the answer
//! sends the request, and whoever reads the answer's content reads the socket. Only content that is still being sent when
//! the answer begins gets a task. Which connection is used when is `upstream`'s to say.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::conn::Conn;
use super::encode::{self, Outbound};
use super::head::HeadScan;
use super::response::{self, ResponseHead};
use super::send::{Sender, Taker};
use crate::proxy::body::{Body, Content};
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Error;
use crate::proxy::fields::Known;
use crate::proxy::io::Io;
use crate::proxy::message::{self, RequestHead};
use crate::proxy::pipes::Piped;

/// Bytes of a response head.
const MAX_HEAD: usize = 256 * 1024;
/// Interim responses to one request.
const MAX_INTERIM: usize = 16;
/// How long content is held back for a 100 (Continue): RFC 9110 10.1.1, a client "SHOULD NOT wait for an indefinite period
/// before sending the content".
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A connection to an endpoint.
#[derive(Debug)]
pub(in crate::proxy) struct Client {
    conn: Rc<Conn>,
    requests: u64,
    last_use: Option<Instant>,
    /// Whether the last answer let the connection be used again.
    keep_alive: bool,
    upload: Rc<UploadState>,
}

#[derive(Debug, Default)]
struct UploadState {
    done: Cell<bool>,
    /// The endpoint wants the content.
    wanted: Notify,
}

/// An endpoint's answer.
#[derive(Debug)]
pub(in crate::proxy) enum Received {
    /// A final response. Its content is read through the connection that it came from.
    Response(message::ResponseHead, ResponseBody),
    /// 101: the connection is no longer HTTP.
    Switched(message::ResponseHead),
}

impl Client {
    /// A fresh connection, which carries no new request after `last_use`.
    pub(in crate::proxy) fn new(io: Io, last_use: Option<Instant>) -> Self {
        Client { conn: Rc::new(Conn::new(io)), requests: 0, last_use, keep_alive: true, upload: Rc::default() }
    }

    /// Requests that it has carried.
    pub(in crate::proxy) fn requests(&self) -> u64 {
        self.requests
    }

    /// Whether it has reached its greatest age.
    pub(in crate::proxy) fn is_old(&self) -> bool {
        self.last_use.is_some_and(|last| Instant::now() >= last)
    }

    /// Whether it can carry another request: everything was said on both sides, and nothing unasked was.
    pub(in crate::proxy) fn is_reusable(&self) -> bool {
        self.keep_alive && self.upload.done.get() && self.conn.content_read() && self.conn.buffer.borrow().is_empty()
    }

    /// Whether the endpoint closed it, or sent something that nobody asked for, while it waited.
    pub(in crate::proxy) fn is_stale(&self) -> bool {
        self.conn.io.borrow_mut().poll_readable(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// The socket and what was read ahead on it.
    pub(in crate::proxy) fn into_io(self) -> Option<(Io, Bytes)> {
        let conn = Rc::into_inner(self.conn)?;
        Some((conn.io.into_inner(), conn.buffer.into_inner().freeze()))
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// The endpoint's failure, or the client's to send its content.
    pub(in crate::proxy) async fn send(
        &mut self,
        head: &RequestHead,
        body: Body,
        downstream: &Downstream,
    ) -> Result<Received, Error> {
        self.requests += 1;
        match Rc::get_mut(&mut self.upload) {
            Some(unshared) => *unshared = UploadState::default(),
            None => self.upload = Rc::default(),
        }
        let mut out = Vec::with_capacity(1024);
        let framing = encode::request_head(&mut out, head, &body);
        if framing == Outbound::None {
            let mut sender = Sender::bare(out);
            poll_fn(|cx| sender.poll(cx, &self.conn, &Endpoint)).await?;
            self.upload.done.set(true);
            return self.receive(&head.method, None, downstream).await;
        }
        let waits = head.fields.contains(Known::Expect);
        let sender = Sender::new(out, framing, body);
        let sending = upload(Rc::clone(&self.conn), Rc::clone(&self.upload), sender, waits);
        self.receive(&head.method, Some(Box::pin(sending)), downstream).await
    }

    async fn receive(
        &mut self,
        method: &Method,
        mut sending: Option<Sending>,
        downstream: &Downstream,
    ) -> Result<Received, Error> {
        let mut interim = 0;
        loop {
            let mut scan = HeadScan::default();
            let head = poll_fn(|cx| {
                if let Some(upload) = &mut sending
                    && let Poll::Ready(sent) = upload.as_mut().poll(cx)
                {
                    sending = None;
                    match sent {
                        // An endpoint that answers early may refuse the rest: its answer may still be there.
                        Ok(()) | Err(Error::UpstreamReset) => {}
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                let head = self.conn.poll_head(cx, &mut scan, MAX_HEAD, |head| response::parse(head, method));
                head.map_err(|error| match error {
                    Error::ClientGone => Error::UpstreamReset,
                    _ => Error::UpstreamProtocol,
                })
            })
            .await?;
            let ResponseHead { response, framing, keep_alive } = head.map_err(|_| Error::UpstreamProtocol)?;
            match response.status {
                StatusCode::SWITCHING_PROTOCOLS => return Ok(Received::Switched(response)),
                status if status.is_informational() => {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Err(Error::UpstreamProtocol);
                    }
                    // A 100 (Continue) was asked for by us, or by the client, who gets one when its content is read.
                    if status == StatusCode::CONTINUE {
                        self.upload.wanted.notify_one();
                    } else {
                        downstream.tell(response);
                    }
                }
                _ => {
                    self.keep_alive = keep_alive;
                    self.conn.expect(framing, false);
                    let body = ResponseBody {
                        conn: Rc::clone(&self.conn),
                        _sending: sending.map(|rest| AbortOnDropHandle::new(tokio::task::spawn_local(rest))),
                    };
                    return Ok(Received::Response(response, body));
                }
            }
        }
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// An endpoint, as who takes a request. How long anything is waited for is looked at by whoever waits for the answer.
struct Endpoint;

impl Taker for Endpoint {
    const TOO_LONG: Error = Error::BodyIncomplete;
    const TOO_SHORT: Error = Error::BodyIncomplete;

    fn poll_idle(&self, _: &mut Context<'_>) -> Poll<Error> {
        Poll::Pending
    }

    fn poll_stalled(&self, _: &mut Context<'_>, _: bool) -> Poll<Error> {
        Poll::Pending
    }

    fn gone(&self, _: Error) -> Error {
        Error::UpstreamReset
    }
}

/// Sends a request. If the endpoint is asked first whether it wants the content, `waits`.
async fn upload(conn: Rc<Conn>, state: Rc<UploadState>, mut sender: Sender, waits: bool) -> Result<(), Error> {
    if waits {
        sender.flush();
        poll_fn(|cx| sender.poll_flushed(cx, &conn, &Endpoint)).await?;
        let _ = tokio::time::timeout(CONTINUE_WAIT, state.wanted.notified()).await;
    }
    poll_fn(|cx| sender.poll(cx, &conn, &Endpoint)).await?;
    state.done.set(true);
    Ok(())
}

/// The content of an answer. Dropping it ends the sending of the request's content, if that goes on.
#[derive(Debug)]
pub(in crate::proxy) struct ResponseBody {
    conn: Rc<Conn>,
    _sending: Option<AbortOnDropHandle<Result<(), Error>>>,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(ready!(self.conn.poll_content(cx)).map(|frame| frame.map_err(|_| Error::UpstreamCut)))
    }

    fn is_end_stream(&self) -> bool {
        self.conn.content_read()
    }

    fn size_hint(&self) -> SizeHint {
        self.conn.content_hint()
    }
}

impl Content for ResponseBody {
    fn poll_piped(self: Pin<&mut Self>, cx: &mut Context<'_>, piped: &mut Piped) -> Option<Poll<Result<usize, Error>>> {
        Some(self.conn.poll_piped(cx, piped)?.map_err(|_| Error::UpstreamCut))
    }
}
