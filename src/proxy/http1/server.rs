//! HTTP/1 with clients: a connection from its first byte to its last. Sending answers is `answer`'s.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::answer::{After, Answer, Interim, linger, switch};
use super::conn::Conn;
use super::head::{self, Head, HeadScan};
use crate::proxy::body::{Body, Content};
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Error;
use crate::proxy::exchange::Exchange;
use crate::proxy::io::Io;
use crate::proxy::pipes::Piped;
use crate::proxy::request::{self, Reply};
use crate::proxy::timer::Timer;
use crate::proxy::upstream::Takeover;
use crate::proxy::worker::{Awaiting, Peer, Worker};

/// RFC 9113 3.4, up to what looks like the end of a head.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What came of a connection.
#[derive(Debug)]
pub(in crate::proxy) enum Served {
    /// It is over.
    Closed,
    /// No request has come for a while. Whoever has it may wait with less than it takes to serve.
    Resting(Io),
    /// The client speaks HTTP/2 with prior knowledge; nothing of it was consumed.
    Http2(Io),
    /// Both sides have switched protocols.
    Switched {
        /// The client's connection.
        client: Io,
        /// What the client sent ahead of the switch.
        early: Bytes,
        /// The endpoint's side.
        upstream: Takeover,
        /// The exchange, which goes on.
        exchange: Rc<Exchange>,
    },
}

/// How long a connection without a request stays ready for the next one.
pub(in crate::proxy) const RESTS_AFTER: Duration = Duration::from_secs(1);

/// How long a connection without a request may go on waiting for one when the drain begins.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// What comes next on a connection.
enum Next {
    Head(Head),
    Rest,
    Http2,
    Closed,
    Refused(Error),
}

/// Serves a connection until it ends or rests. `fresh` is one that has had no request yet.
///
/// An `async` block instead of an `async fn`, here and where answers are sent: a stream that waits for a day keeps its arguments
/// once, not twice.
pub(in crate::proxy) fn serve(io: Io, fresh: bool, peer: Peer, worker: Rc<Worker>) -> impl Future<Output = Served> {
    let mut conn = Rc::new(Conn::new(io));
    let downstream = Rc::new(Downstream::default());
    async move {
        let mut draining = worker.leaving.drain.awaiting();
        let mut first = fresh;
        loop {
            let answer = match next_answer(&conn, &worker, &peer, &downstream, &mut draining, first).await {
                Ahead::Answer(answer) => answer,
                Ahead::Rest => match Rc::try_unwrap(conn) {
                    Ok(conn) => return Served::Resting(conn.io.into_inner()),
                    // An endpoint still holds on to what it read from.
                    Err(held) => {
                        conn = held;
                        continue;
                    }
                },
                Ahead::Switch(interim, reply, upstream) => {
                    let switched = Box::pin(switch(&conn, &worker, interim, reply)).await;
                    return match (switched, Rc::into_inner(conn)) {
                        (Ok(exchange), Some(conn)) => {
                            let early = conn.buffer.into_inner().freeze();
                            Served::Switched { client: conn.io.into_inner(), early, upstream, exchange }
                        }
                        _ => Served::Closed,
                    };
                }
                Ahead::Http2 => {
                    let Some(conn) = Rc::into_inner(conn) else { return Served::Closed };
                    let mut io = conn.io.into_inner();
                    io.unread([HTTP2_PREFACE, &conn.buffer.into_inner()].concat().into());
                    return Served::Http2(io);
                }
                Ahead::Nothing => return Served::Closed,
            };
            first = false;
            match answer.send(&conn, &worker).await {
                After::Reuse => continue,
                After::Close => Box::pin(linger(&conn)).await,
                After::Abandon => {}
            }
            conn.hang_up();
            return Served::Closed;
        }
    }
}

/// What is to be done with a connection after a request was handled.
enum Ahead {
    Answer(Answer),
    /// Both sides switch protocols, after interim responses that are not sent yet.
    Switch(Vec<u8>, Reply, Takeover),
    Http2,
    Rest,
    Nothing,
}

/// Waits for a request and for the head of its answer.
async fn next_answer(
    conn: &Rc<Conn>,
    worker: &Rc<Worker>,
    peer: &Peer,
    downstream: &Rc<Downstream>,
    draining: &mut Awaiting<'_>,
    first: bool,
) -> Ahead {
    let head = match next_head(conn, worker, &downstream.timer, draining, first).await {
        Next::Head(head) => head,
        Next::Closed => return Ahead::Nothing,
        Next::Rest => return Ahead::Rest,
        Next::Http2 => return Ahead::Http2,
        Next::Refused(error) => {
            let reply = request::refuse(worker, peer, downstream, error);
            return Ahead::Answer(Answer::new(conn, worker, Vec::new(), reply, &Method::GET, Version::HTTP_11, false));
        }
    };
    let Head { request, framing, expects_continue, keep_alive } = head;
    let (method, version) = (request.method.clone(), request.version);
    conn.expect(framing, expects_continue);
    let body = if conn.content_read() { Body::empty() } else { Body::stream(RequestBody(Rc::clone(conn))) };
    let mut interim = Interim::new(downstream, version);
    let mut handling = Box::pin(request::handle(worker, peer, request, body, downstream));
    let read_ahead = worker.settings.limits.header_bytes;
    let reply = poll_fn(|cx| match handling.as_mut().poll(cx) {
        Poll::Ready(reply) => Poll::Ready(Some(reply)),
        Poll::Pending if interim.poll(cx, conn).is_err() => Poll::Ready(None),
        Poll::Pending => conn.poll_gone(cx, read_ahead).map(|()| None),
    });
    match reply.await {
        None => {
            conn.hang_up();
            Ahead::Nothing
        }
        Some(mut reply) => match reply.takeover.take() {
            Some(upstream) => Ahead::Switch(interim.rest(), reply, upstream),
            None => Ahead::Answer(Answer::new(conn, worker, interim.rest(), reply, &method, version, keep_alive)),
        },
    }
}

/// Waits for a head. A connection that waits holds no buffer.
async fn next_head(conn: &Conn, worker: &Worker, timer: &Timer, draining: &mut Awaiting<'_>, first: bool) -> Next {
    let limits = &worker.settings.limits;
    let mut scan = HeadScan::default();
    let mut begun = first.then(Instant::now);
    let waiting_since = Instant::now();
    let mut leaving_since = None;
    poll_fn(|cx| {
        let read = |head: &[u8]| match head::parse(head, limits) {
            _ if first && head == HTTP2_PREFACE => Next::Http2,
            Ok(head) => Next::Head(head),
            Err(error) => Next::Refused(error),
        };
        match conn.poll_head(cx, &mut scan, limits.header_bytes, read) {
            Poll::Ready(Ok(next)) => return Poll::Ready(next),
            Poll::Ready(Err(Error::ClientGone)) => return Poll::Ready(Next::Closed),
            Poll::Ready(Err(error)) => return Poll::Ready(Next::Refused(error)),
            Poll::Pending => {}
        }
        let started = conn.buffer.borrow().len() > scan.skipped();
        if started && begun.is_none() {
            begun = Some(Instant::now());
        }
        // A request may be on its way: who asks again soon is answered, and told that the connection ends. Closing at once would reset it.
        if !first && leaving_since.is_none() && draining.poll(cx).is_ready() {
            leaving_since = Some(Instant::now());
        }
        let may_rest = begun.is_none() && conn.buffer.borrow().is_empty() && RESTS_AFTER < limits.keep_alive_idle;
        let deadline = match (begun, leaving_since) {
            (Some(begun), _) => begun + limits.header_timeout,
            (None, Some(since)) => (since + LAST_REQUEST).min(waiting_since + limits.keep_alive_idle),
            (None, None) if may_rest => waiting_since + RESTS_AFTER,
            (None, None) => waiting_since + limits.keep_alive_idle,
        };
        timer.poll_at(cx, deadline).map(|()| match started {
            true => Next::Refused(Error::SlowHead),
            false if may_rest && leaving_since.is_none() => Next::Rest,
            false => Next::Closed,
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    /// What a connection takes while it waits for a request, or its answer for more to send.
    #[test]
    fn a_connection_that_waits_is_small() {
        fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(super::serve) <= 1024, "{}", size(super::serve));
    }
}

/// The content of the current request.
#[derive(Debug)]
pub(super) struct RequestBody(pub(super) Rc<Conn>);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.poll_content(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.content_read()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.content_hint()
    }
}

impl Content for RequestBody {
    fn poll_piped(self: Pin<&mut Self>, cx: &mut Context<'_>, piped: &mut Piped) -> Option<Poll<Result<usize, Error>>> {
        self.0.poll_piped(cx, piped)
    }
}
