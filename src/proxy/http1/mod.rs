//! HTTP/1.0 and HTTP/1.1 with clients: our own, because what hyper's server reads without telling (a Content-Length
//! beside a Transfer-Encoding, bare LF, repeated lengths) is what a strict edge must refuse, and because an idle
//! connection of ours holds no buffer. Upstream connections are not here: see `upstream`.

mod chunked;
mod conn;
mod encode;
mod head;

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Version};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use self::conn::{Conn, HEAD_READ, RequestBody};
use self::encode::{Outbound, Persistence};
use self::head::{Head, HeadScan};
use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::io::{Io, poll_read_into};
use super::request::{self, Reply};
use super::timer::Timer;
use super::tunnel;
use super::worker::{Peer, Worker};

/// RFC 9113 3.4, up to what looks like the end of a head.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// How long a client may go on sending what nobody reads after its answer, so that it can read the answer.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it is read.
const LINGER_BYTES: usize = 1024 * 1024;

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

/// What becomes of a connection after an answer.
enum After {
    Reuse,
    Close,
    Abandon,
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
        let Some(mut reply) = reply else { return Served::Closed };
        if let Some(upstream) = reply.takeover.take() {
            let exchange = Rc::clone(&reply.exchange);
            if !matches!(answer(&conn, &worker, reply, &method, version, true).await, After::Reuse) {
                return Served::Closed;
            }
            let Some(conn) = Rc::into_inner(conn) else { return Served::Closed };
            let early = conn.buffer.into_inner().freeze();
            tunnel::run(&worker, conn.io.into_inner(), early, upstream, exchange).await;
            return Served::Closed;
        }
        match answer(&conn, &worker, reply, &method, version, keep_alive).await {
            After::Reuse => {}
            After::Close => {
                linger(&conn).await;
                return Served::Closed;
            }
            After::Abandon => return Served::Closed,
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
                    return Poll::Ready(Next::Refused(Error::HeadersTooLarge));
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

/// Sends an answer, frame by frame.
async fn answer(
    conn: &Conn,
    worker: &Worker,
    reply: Reply,
    method: &Method,
    version: Version,
    keep_alive: bool,
) -> After {
    let Reply { response, exchange, local, .. } = reply;
    let (parts, mut body) = response.into_parts();
    let framing = Outbound::of(method, version, parts.status, &body);
    conn.answer_begins();
    // An answer of our own to a request whose content nobody reads cannot be followed by another request.
    let keep = keep_alive
        && framing != Outbound::UntilClose
        && (!local || conn.content_read())
        && !worker.leaving.drain.has_happened();
    let mut out = Vec::with_capacity(512);
    let persistence = Persistence { keep, tell: version == Version::HTTP_10 };
    worker.with_date(|date| encode::head(&mut out, &parts, framing, persistence, date));
    drop(parts);

    let sent = send(conn, worker, &exchange, &mut body, framing, out).await;
    match sent {
        Ok(()) => {
            exchange.complete();
            if keep && conn.content_read() { After::Reuse } else { After::Close }
        }
        Err(error) => {
            exchange.cut(error);
            if framing == Outbound::UntilClose {
                conn.io.borrow().reset_on_close();
            }
            After::Abandon
        }
    }
}

async fn send(
    conn: &Conn,
    worker: &Worker,
    exchange: &Exchange,
    body: &mut Body,
    framing: Outbound,
    mut out: Vec<u8>,
) -> Result<(), Error> {
    if framing == Outbound::None {
        return write(conn, exchange, &out, &Bytes::new(), b"").await;
    }
    let mut left = match framing {
        Outbound::Length(length) => length,
        _ => u64::MAX,
    };
    let read_ahead = worker.settings.limits.header_bytes;
    loop {
        // What is there already goes out together with the head; what is not must not hold the head up.
        let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending if !out.is_empty() => Poll::Ready(Ok(None)),
            Poll::Pending => {
                if conn.poll_gone(cx, read_ahead).is_ready() {
                    return Poll::Ready(Err(Error::ClientGone));
                }
                exchange.poll_expired(cx).map(Err)
            }
            Poll::Ready(frame) => Poll::Ready(frame.transpose().map(Some)),
        })
        .await?;
        match frame.map(|frame| frame.map(Frame::into_data)) {
            None => write(conn, exchange, &out, &Bytes::new(), b"").await?,
            Some(Some(Ok(data))) if data.is_empty() => continue,
            Some(Some(Ok(data))) => {
                left = left.checked_sub(data.len() as u64).ok_or(Error::UpstreamProtocol)?;
                if framing == Outbound::Chunked {
                    encode::chunk_size(&mut out, &data);
                    if body.is_end_stream() {
                        write(conn, exchange, &out, &data, b"\r\n0\r\n\r\n").await?;
                        return Ok(());
                    }
                    write(conn, exchange, &out, &data, b"\r\n").await?;
                } else {
                    write(conn, exchange, &out, &data, b"").await?;
                }
            }
            Some(Some(Err(frame))) => {
                // RFC 9112 7.1.2: trailers exist in chunked content only; elsewhere they may be dropped.
                if framing == Outbound::Chunked {
                    encode::last_chunk(&mut out, frame.into_trailers().ok().as_ref());
                }
                return write(conn, exchange, &out, &Bytes::new(), b"").await;
            }
            Some(None) => {
                if framing == Outbound::Chunked {
                    encode::last_chunk(&mut out, None);
                }
                if matches!(framing, Outbound::Length(_)) && left > 0 {
                    return Err(Error::UpstreamCut);
                }
                return write(conn, exchange, &out, &Bytes::new(), b"").await;
            }
        }
        out.clear();
        if out.capacity() > 64 {
            out = Vec::new();
        }
    }
}

/// Writes what is given, as one call where the kernel takes it. The client's progress moves the exchange's clocks, and its
/// standing still ends it.
async fn write(conn: &Conn, exchange: &Exchange, before: &[u8], data: &Bytes, after: &[u8]) -> Result<(), Error> {
    let mut parts = [IoSlice::new(before), IoSlice::new(data), IoSlice::new(after)];
    let mut parts = &mut parts[..];
    IoSlice::advance_slices(&mut parts, 0);
    poll_fn(|cx| {
        while !parts.is_empty() {
            match conn.poll_write(cx, parts) {
                Poll::Ready(Ok(written)) => {
                    exchange.moved();
                    IoSlice::advance_slices(&mut parts, written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return exchange.poll_expired(cx).map(Err),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    if !data.is_empty() {
        exchange.sent(data.len());
    }
    Ok(())
}

/// Closes so that the client can read its answer although it is still sending: RFC 9112 9.6, "a server typically closes the
/// connection in stages".
async fn linger(conn: &Conn) {
    let discard = async {
        if poll_fn(|cx| Pin::new(&mut *conn.io.borrow_mut()).poll_shutdown(cx)).await.is_err() {
            return;
        }
        let mut buffer = conn.buffer.take();
        let mut left = LINGER_BYTES;
        while left > 0 {
            buffer.clear();
            let read = poll_fn(|cx| poll_read_into(&mut conn.io.borrow_mut(), cx, &mut buffer, HEAD_READ)).await;
            match read {
                Ok(read @ 1..) => left = left.saturating_sub(read),
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, discard).await;
}
