//! HTTP/1.0 and HTTP/1.1 with clients: our own, because what hyper's server reads without telling (a Content-Length
//! beside a Transfer-Encoding, bare LF, repeated lengths) is what a strict edge must refuse, and because an idle
//! connection of ours holds no buffer. Upstream connections are not here: see `upstream`.

mod answer;
mod chunked;
mod conn;
mod encode;
mod head;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::BytesMut;
use http::{Method, Version};
use tokio::time::Instant;

use self::answer::{After, answer, linger};
use self::conn::{Conn, HEAD_READ, RequestBody};
use self::head::{Head, HeadScan};
use super::body::Body;
use super::error::Error;
use super::io::{Io, poll_read_into};
use super::request;
use super::timer::Timer;
use super::tunnel;
use super::worker::{Peer, Worker};

/// RFC 9113 3.4, up to what looks like the end of a head.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// What came of a connection.
#[derive(Debug)]
pub(super) enum Served {
    /// It is over.
    Closed,
    /// The client speaks HTTP/2 with prior knowledge; nothing of it was consumed.
    Http2(Io),
}

/// What comes next on a connection.
enum Next {
    Head(Box<Head>),
    Http2,
    Closed,
    Refused(Error),
}

/// Serves a connection until it ends.
pub(super) async fn serve(io: Io, peer: Peer, worker: Rc<Worker>) -> Served {
    let conn = Rc::new(Conn::new(io));
    let timer = Rc::new(Timer::default());
    let mut first = true;
    loop {
        let head = match next_head(&conn, &worker, &timer, first).await {
            Next::Head(head) => head,
            Next::Closed => return Served::Closed,
            Next::Http2 => {
                let Some(conn) = Rc::into_inner(conn) else { return Served::Closed };
                let mut io = conn.io.into_inner();
                io.unread(conn.buffer.into_inner().freeze());
                return Served::Http2(io);
            }
            Next::Refused(error) => {
                let reply = request::refuse(&worker, &peer, &timer, error);
                if !matches!(answer(&conn, &worker, reply, &Method::GET, Version::HTTP_11, false).await, After::Abandon)
                {
                    linger(&conn).await;
                }
                return Served::Closed;
            }
        };
        first = false;
        let Head { request, framing, expects_continue, keep_alive } = *head;
        let (method, version) = (request.method().clone(), request.version());
        conn.expect(framing, expects_continue);
        let body = if conn.content_read() { Body::empty() } else { Body::stream(RequestBody(Rc::clone(&conn))) };
        let reply = {
            let mut handling = Box::pin(request::handle(&worker, &peer, request.map(|()| body), &timer));
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
            if let Ok(exchange) = answer::switch(&conn, &worker, reply).await
                && let Some(conn) = Rc::into_inner(conn)
            {
                let early = conn.buffer.into_inner().freeze();
                tunnel::run(&worker, conn.io.into_inner(), early, upstream, exchange).await;
            }
            return Served::Closed;
        }
        match answer(&conn, &worker, reply, &method, version, keep_alive).await {
            After::Reuse => {}
            After::Close => {
                linger(&conn).await;
                conn.hang_up();
                return Served::Closed;
            }
            After::Abandon => {
                conn.hang_up();
                return Served::Closed;
            }
        }
    }
}

/// Waits for a head. A connection that waits holds no buffer.
async fn next_head(conn: &Conn, worker: &Worker, timer: &Timer, first: bool) -> Next {
    let limits = &worker.settings.limits;
    let mut scan = HeadScan::default();
    let mut begun = first.then(Instant::now);
    let waiting_since = Instant::now();
    let mut draining = std::pin::pin!(worker.leaving.drain.happened());
    poll_fn(|cx| {
        let mut buffer = conn.buffer.borrow_mut();
        loop {
            match scan.find(&mut buffer) {
                Ok(Some(length)) => {
                    if first && buffer[..length] == *HTTP2_PREFACE {
                        return Poll::Ready(Next::Http2);
                    }
                    if length > limits.header_bytes {
                        return Poll::Ready(Next::Refused(Error::HeadersTooLarge));
                    }
                    let head = buffer.split_to(length).freeze();
                    if buffer.is_empty() {
                        *buffer = BytesMut::new();
                    }
                    return Poll::Ready(match head::parse(head, limits) {
                        Ok(head) => Next::Head(Box::new(head)),
                        Err(error) => Next::Refused(error),
                    });
                }
                Ok(None) if buffer.len() > limits.header_bytes => {
                    return Poll::Ready(Next::Refused(scan.too_large()));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Next::Refused(error)),
            }
            let started = !buffer.is_empty();
            if started && begun.is_none() {
                begun = Some(Instant::now());
            }
            let mut io = conn.io.borrow_mut();
            let read = match io.poll_readable(cx) {
                Poll::Ready(Ok(())) => poll_read_into(&mut io, cx, &mut buffer, HEAD_READ),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            };
            match read {
                Poll::Ready(Ok(1..)) => continue,
                Poll::Ready(_) => return Poll::Ready(Next::Closed),
                Poll::Pending => {}
            }
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
            if !started && !first && draining.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::Closed);
            }
            let deadline = match begun {
                Some(begun) => begun + limits.header_timeout,
                None => waiting_since + limits.keep_alive_idle,
            };
            return match timer.poll_at(cx, deadline) {
                Poll::Ready(()) if started => Poll::Ready(Next::Refused(Error::SlowHead)),
                Poll::Ready(()) => Poll::Ready(Next::Closed),
                Poll::Pending => Poll::Pending,
            };
        }
    })
    .await
}
