//! HTTP/1 with clients: a connection from its first byte to its last. Sending answers is `answer`'s.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::{Method, Version};
use tokio::time::Instant;

use super::answer::{After, Answer, linger, switch};
use super::conn::{Conn, RequestBody};
use super::head::{self, Head, HeadScan};
use crate::proxy::body::Body;
use crate::proxy::error::Error;
use crate::proxy::exchange::Exchange;
use crate::proxy::io::Io;
use crate::proxy::request;
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

/// What comes next on a connection.
enum Next {
    Head(Head),
    Http2,
    Closed,
    Refused(Error),
}

/// Serves a connection until it ends.
pub(in crate::proxy) async fn serve(io: Io, peer: Peer, worker: Rc<Worker>) -> Served {
    let conn = Rc::new(Conn::new(io));
    let timer = Rc::new(Timer::default());
    let mut draining = worker.leaving.drain.awaiting();
    let mut first = true;
    loop {
        let head = match next_head(&conn, &worker, &timer, &mut draining, first).await {
            Next::Head(head) => head,
            Next::Closed => return Served::Closed,
            Next::Http2 => {
                let Some(conn) = Rc::into_inner(conn) else { return Served::Closed };
                let mut io = conn.io.into_inner();
                io.unread([HTTP2_PREFACE, &conn.buffer.into_inner()].concat().into());
                return Served::Http2(io);
            }
            Next::Refused(error) => {
                let reply = request::refuse(&worker, &peer, &timer, error);
                let answer = Answer::new(&conn, &worker, reply, &Method::GET, Version::HTTP_11, false);
                if !matches!(Box::pin(answer.send(&conn, &worker)).await, After::Abandon) {
                    Box::pin(linger(&conn)).await;
                }
                return Served::Closed;
            }
        };
        first = false;
        let Head { request, framing, expects_continue, keep_alive } = head;
        let (method, version) = (request.method.clone(), request.version);
        conn.expect(framing, expects_continue);
        let body = if conn.content_read() { Body::empty() } else { Body::stream(RequestBody(Rc::clone(&conn))) };
        let reply = {
            let mut handling = Box::pin(request::handle(&worker, &peer, request, body, &timer));
            let read_ahead = worker.settings.limits.header_bytes;
            poll_fn(|cx| match handling.as_mut().poll(cx) {
                Poll::Ready(reply) => Poll::Ready(Some(reply)),
                Poll::Pending => conn.poll_gone(cx, read_ahead).map(|()| None),
            })
            .await
        };
        let Some(mut reply) = reply else {
            conn.hang_up();
            return Served::Closed;
        };
        if let Some(upstream) = reply.takeover.take() {
            if let Ok(exchange) = Box::pin(switch(&conn, &worker, reply)).await
                && let Some(conn) = Rc::into_inner(conn)
            {
                let early = conn.buffer.into_inner().freeze();
                return Served::Switched { client: conn.io.into_inner(), early, upstream, exchange };
            }
            return Served::Closed;
        }
        let answer = Answer::new(&conn, &worker, reply, &method, version, keep_alive);
        match answer.send(&conn, &worker).await {
            After::Reuse => continue,
            After::Close => Box::pin(linger(&conn)).await,
            After::Abandon => {}
        }
        conn.hang_up();
        return Served::Closed;
    }
}

/// Waits for a head. A connection that waits holds no buffer.
async fn next_head(conn: &Conn, worker: &Worker, timer: &Timer, draining: &mut Awaiting<'_>, first: bool) -> Next {
    let limits = &worker.settings.limits;
    let mut scan = HeadScan::default();
    let mut begun = first.then(Instant::now);
    let waiting_since = Instant::now();
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
        if !started && !first && draining.poll(cx).is_ready() {
            return Poll::Ready(Next::Closed);
        }
        let deadline = match begun {
            Some(begun) => begun + limits.header_timeout,
            None => waiting_since + limits.keep_alive_idle,
        };
        timer.poll_at(cx, deadline).map(|()| if started { Next::Refused(Error::SlowHead) } else { Next::Closed })
    })
    .await
}
