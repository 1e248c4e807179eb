//! Answers on their way to the client: the head with what is there already, then each frame as it comes.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite as _;

use super::conn::{Conn, HEAD_READ};
use super::encode::{self, Outbound, Persistence};
use crate::proxy::body::Body;
use crate::proxy::clocks::Flow;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Error;
use crate::proxy::exchange::Exchange;
use crate::proxy::io::poll_read_into;
use crate::proxy::message::Response;
use crate::proxy::request::Reply;
use crate::proxy::worker::Worker;

/// How long a client may go on sending what nobody reads after its answer, so that it can read the answer.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it is read.
const LINGER_BYTES: usize = 1024 * 1024;

/// What becomes of a connection after an answer.
pub(super) enum After {
    Reuse,
    Close,
    Abandon,
}

/// An answer on its way.
pub(super) struct Answer {
    exchange: Rc<Exchange>,
    body: Body,
    framing: Outbound,
    /// Whether the connection can be used again.
    keep: bool,
    /// What is written and not sent yet.
    out: Vec<u8>,
}

impl Answer {
    /// An answer whose head is written behind `out`, which is still to be sent.
    pub(super) fn new(
        conn: &Conn,
        worker: &Worker,
        mut out: Vec<u8>,
        reply: Reply,
        method: &Method,
        version: Version,
        keep_alive: bool,
    ) -> Self {
        let Reply { response: Response { head, body }, exchange, local, last, .. } = reply;
        let framing = Outbound::of(method, version, head.status, &body);
        conn.answer_begins();
        // An answer of our own to a request whose content nobody reads cannot be followed by another request.
        let keep = keep_alive
            && !last
            && framing != Outbound::UntilClose
            && (!local || conn.content_read())
            && !worker.leaving.drain.has_happened();
        out.reserve(512);
        let persistence = Persistence { keep, tell: version == Version::HTTP_10 };
        worker.with_date(|date| encode::head(&mut out, &head, framing, persistence, date));
        Answer { exchange, body, framing, keep, out }
    }

    /// Sends it, frame by frame.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice, and every exchange has room for this"
    )]
    pub(super) fn send(mut self, conn: &Conn, worker: &Worker) -> impl Future<Output = After> {
        async move {
            let until_close = self.framing == Outbound::UntilClose;
            if until_close {
                // Whatever drops this connection before the end of the answer cuts it visibly.
                conn.io.borrow().reset_on_close(true);
            }
            match self.send_all(conn, worker).await {
                Ok(()) => {
                    if until_close {
                        conn.io.borrow().reset_on_close(false);
                    }
                    self.exchange.complete();
                    if self.keep && conn.content_read() { After::Reuse } else { After::Close }
                }
                Err(error) => {
                    self.exchange.cut(error);
                    After::Abandon
                }
            }
        }
    }

    async fn send_all(&mut self, conn: &Conn, worker: &Worker) -> Result<(), Error> {
        let Answer { exchange, body, framing, out, .. } = self;
        let framing = *framing;
        if framing == Outbound::None {
            return write(conn, exchange, out, &Bytes::new(), b"").await;
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
                None => write(conn, exchange, out, &Bytes::new(), b"").await?,
                Some(Some(Ok(data))) if data.is_empty() => continue,
                Some(Some(Ok(data))) => {
                    left = left.checked_sub(data.len() as u64).ok_or(Error::UpstreamProtocol)?;
                    if framing == Outbound::Chunked {
                        encode::chunk_size(out, &data);
                        if body.is_end_stream() {
                            write(conn, exchange, out, &data, b"\r\n0\r\n\r\n").await?;
                            return Ok(());
                        }
                        write(conn, exchange, out, &data, b"\r\n").await?;
                    } else {
                        write(conn, exchange, out, &data, b"").await?;
                    }
                }
                Some(Some(Err(frame))) => {
                    // RFC 9112 7.1.2: trailers exist in chunked content only; elsewhere they may be dropped.
                    if framing == Outbound::Chunked {
                        encode::last_chunk(out, frame.into_trailers().ok().as_ref());
                    }
                    return write(conn, exchange, out, &Bytes::new(), b"").await;
                }
                Some(None) => {
                    if framing == Outbound::Chunked {
                        encode::last_chunk(out, None);
                    }
                    if matches!(framing, Outbound::Length(_)) && left > 0 {
                        return Err(Error::UpstreamCut);
                    }
                    return write(conn, exchange, out, &Bytes::new(), b"").await;
                }
            }
            out.clear();
            if out.capacity() > 64 {
                *out = Vec::new();
            }
        }
    }
}

/// Interim responses on their way, while the answer is awaited.
pub(super) struct Interim<'a> {
    downstream: &'a Downstream,
    /// RFC 9110 15.2: "a server MUST NOT send a 1xx response to an HTTP/1.0 client".
    dropped: bool,
    /// What the client has not taken yet.
    out: Vec<u8>,
}

impl<'a> Interim<'a> {
    /// None yet.
    pub(super) fn new(downstream: &'a Downstream, version: Version) -> Self {
        Interim { downstream, dropped: version == Version::HTTP_10, out: Vec::new() }
    }

    fn write_told(&mut self) {
        while let Some(head) = self.downstream.told() {
            if !self.dropped {
                encode::interim(&mut self.out, &head);
            }
        }
    }

    /// Sends what can be sent.
    ///
    /// # Errors
    /// The client has left.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, conn: &Conn) -> Result<(), Error> {
        self.write_told();
        while !self.out.is_empty() {
            match conn.poll_write(cx, &[IoSlice::new(&self.out)]) {
                Poll::Ready(written) => drop(self.out.drain(..written?)),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// What goes out before the answer.
    pub(super) fn rest(mut self) -> Vec<u8> {
        self.write_told();
        self.out
    }
}

/// Tells the client that both sides switch protocols. Returns the exchange, which goes on.
///
/// # Errors
/// The client left, or took nothing for too long.
pub(super) async fn switch(
    conn: &Conn,
    worker: &Worker,
    mut out: Vec<u8>,
    reply: Reply,
) -> Result<Rc<Exchange>, Error> {
    let Reply { response, exchange, .. } = reply;
    let parts = response.head;
    let persistence = Persistence { keep: true, tell: false };
    worker.with_date(|date| encode::head(&mut out, &parts, Outbound::None, persistence, date));
    match write(conn, &exchange, &mut out, &Bytes::new(), b"").await {
        Ok(()) => Ok(exchange),
        Err(error) => {
            exchange.cut(error);
            Err(error)
        }
    }
}

/// Content up to this is copied behind what goes before it: one part is written faster than three.
const COPIED: usize = 2 * 1024;

/// Writes what is given, as one call where the kernel takes it. The client's progress moves the exchange's clocks, and its
/// standing still ends it.
async fn write(conn: &Conn, exchange: &Exchange, out: &mut Vec<u8>, data: &Bytes, after: &[u8]) -> Result<(), Error> {
    let copied = data.len() <= COPIED;
    if copied {
        out.extend_from_slice(data);
        out.extend_from_slice(after);
    }
    let mut parts = [IoSlice::new(out), IoSlice::new(data), IoSlice::new(after)];
    let mut parts = if copied { &mut parts[..1] } else { &mut parts[..] };
    IoSlice::advance_slices(&mut parts, 0);
    let mut stalled = false;
    poll_fn(|cx| {
        while !parts.is_empty() {
            match conn.poll_write(cx, parts) {
                Poll::Ready(Ok(written)) => {
                    IoSlice::advance_slices(&mut parts, written);
                    if stalled {
                        exchange.moved();
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if !std::mem::replace(&mut stalled, true) {
                        exchange.download_waits(Flow::Sink);
                        if let Some(patience) = exchange.longer_than_kernel() {
                            conn.io.borrow().bear_with(patience);
                        }
                    }
                    return exchange.poll_expired(cx).map(Err);
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    if stalled {
        exchange.download_waits(Flow::Source);
    }
    if !data.is_empty() {
        exchange.sent(data.len());
    }
    Ok(())
}

/// Closes so that the client can read its answer although it is still sending: RFC 9112 9.6, "a server typically closes the
/// connection in stages".
pub(super) async fn linger(conn: &Conn) {
    conn.give_up_content();
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
