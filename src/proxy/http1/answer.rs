//! Answers on their way to the client: the head with what is there already, then each frame as it comes.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Version};
use tokio::io::AsyncWrite as _;

use super::conn::{Conn, HEAD_READ};
use super::encode::{self, Outbound, Persistence};
use super::send::{Sender, Taker};
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
    /// Whether the connection can be used again.
    keep: bool,
    sender: Sender,
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
        Answer { exchange, keep, sender: Sender::new(out, framing, body) }
    }

    /// Sends it, frame by frame.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice, and every exchange has room for this"
    )]
    pub(super) fn send(mut self, conn: &Conn, worker: &Worker) -> impl Future<Output = After> {
        async move {
            let until_close = self.sender.framing() == Outbound::UntilClose;
            if until_close {
                // Whatever drops this connection before the end of the answer cuts it visibly.
                conn.io.borrow().reset_on_close(true);
            }
            let client = Client { conn, exchange: &self.exchange, read_ahead: worker.settings.limits.header_bytes };
            match poll_fn(|cx| self.sender.poll(cx, conn, &client)).await {
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
}

/// A client, as who takes an answer. Its progress moves the exchange's clocks, and its standing still ends it.
struct Client<'a> {
    conn: &'a Conn,
    exchange: &'a Exchange,
    /// How much of its next request is read while it waits.
    read_ahead: usize,
}

impl Taker for Client<'_> {
    const TOO_LONG: Error = Error::UpstreamProtocol;
    const TOO_SHORT: Error = Error::UpstreamCut;

    fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<Error> {
        if self.conn.poll_gone(cx, self.read_ahead).is_ready() {
            return Poll::Ready(Error::ClientGone);
        }
        self.exchange.poll_expired(cx)
    }

    fn poll_stalled(&self, cx: &mut Context<'_>, begins: bool) -> Poll<Error> {
        if begins {
            self.exchange.download_waits(Flow::Sink);
        }
        self.exchange.poll_expired(cx)
    }

    fn moved(&self) {
        self.exchange.moved();
    }

    fn took(&self, content: usize, stalled: bool) {
        if stalled {
            self.exchange.download_waits(Flow::Source);
        }
        if content > 0 {
            self.exchange.sent(content);
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
                Poll::Pending => return Ok(()),
            }
        }
        match conn.poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
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
    let mut sender = Sender::bare(out);
    let client = Client { conn, exchange: &exchange, read_ahead: 0 };
    let sent = poll_fn(|cx| sender.poll(cx, conn, &client)).await;
    match sent {
        Ok(()) => Ok(exchange),
        Err(error) => {
            exchange.cut(error);
            Err(error)
        }
    }
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
