//! Content into and out of streams, whichever side we are: no more of it is taken or given than the windows allow. What the
//! heads before it say is `server`'s and `client`'s.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};

use crate::proxy::clocks::Flow;
use crate::proxy::error::Error;
use crate::proxy::exchange::Exchange;
use crate::proxy::headers;

/// Content of a received message.
#[derive(Debug)]
pub(super) struct Inbound {
    stream: RecvStream,
    /// What is still to come, if the head says so; h2 holds the peer to it.
    left: Option<u64>,
    /// What it means that the peer breaks off.
    broken: Error,
}

impl Inbound {
    /// The content that follows a head with these fields.
    pub(super) fn new(stream: RecvStream, head: &HeaderMap, broken: Error) -> Self {
        let length = head.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Inbound { stream, left: length, broken }
    }

    /// A client that resets its stream or loses its connection has left; what h2 itself refuses is broken content.
    fn fault(&self, error: &h2::Error) -> Error {
        if self.broken == Error::BodyIncomplete && !error.is_library() { Error::ClientGone } else { self.broken }
    }

    /// Whatever comes, no longer as content.
    pub(super) fn into_stream(self) -> RecvStream {
        self.stream
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        // Whatever ends a stream but END_STREAM breaks it, a reset with CANCEL or NO_ERROR too: RFC 9113 8.1, "an HTTP response
        // is complete after the server sends -- or the client receives -- a frame with the END_STREAM flag set".
        match ready!(this.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // Fails on a stream that is over, whose window nobody needs.
                let _ = this.stream.flow_control().release_capacity(data.len());
                this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(this.fault(&error)))),
            None => match ready!(this.stream.poll_trailers(cx)) {
                Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
                Err(error) => Poll::Ready(Some(Err(this.fault(&error)))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// Content on its way out, which knows how far it went: h2 advances it as the connection takes its bytes.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    progress: Option<Rc<Progress>>,
}

/// How far the content of an answer went.
#[derive(Debug)]
pub(super) struct Progress {
    /// Not kept alive by what h2 still holds of an answer that was given up.
    exchange: Weak<Exchange>,
    /// Given to h2, and not taken by the connection yet.
    underway: Cell<usize>,
    /// Whether there is nothing else to send.
    drained: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Progress {
    /// Nothing is underway yet.
    pub(super) fn new(exchange: &Rc<Exchange>) -> Rc<Self> {
        let (underway, drained) = (Cell::new(0), Cell::new(false));
        Rc::new(Progress { exchange: Rc::downgrade(exchange), underway, drained, waiting: RefCell::default() })
    }

    /// Waits until the connection has taken everything that was sent. What comes after, the kernel keeps to itself.
    ///
    /// # Errors
    /// The peer gave it up.
    pub(super) async fn taken(self: &Rc<Self>, stream: &mut SendStream<Piece>) -> Result<(), Stopped> {
        poll_fn(|cx| {
            if self.underway.get() == 0 {
                return Poll::Ready(Ok(()));
            }
            self.waits(Flow::Sink);
            self.waiting.replace(Some(cx.waker().clone()));
            poll_stopped(stream, cx).map(Err)
        })
        .await
    }
}

/// Looks on while content is sent.
pub(super) trait Watch {
    /// What is waited for: room with the peer, or more to send.
    fn waits(&self, flow: Flow);

    /// There is room again.
    fn moves(&self) {}

    /// A piece that goes out.
    fn piece(&self, bytes: Bytes) -> Piece;
}

impl Watch for Rc<Progress> {
    /// When there is no more to send, too, it may be the client who has not taken all.
    fn waits(&self, flow: Flow) {
        self.drained.set(flow == Flow::Source);
        if let Some(exchange) = self.exchange.upgrade() {
            exchange.download_waits(if self.underway.get() > 0 { Flow::Sink } else { flow });
        }
    }

    fn piece(&self, bytes: Bytes) -> Piece {
        Piece::new(bytes, Some(self))
    }
}

impl Piece {
    pub(super) fn new(bytes: Bytes, progress: Option<&Rc<Progress>>) -> Self {
        if let Some(progress) = progress {
            progress.underway.set(progress.underway.get() + bytes.len());
        }
        Piece { bytes, progress: progress.cloned() }
    }

    /// No content, which only ends.
    pub(super) fn end() -> Self {
        Piece { bytes: Bytes::new(), progress: None }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(progress) = &self.progress {
            progress.underway.set(progress.underway.get() - count);
            if let Some(exchange) = progress.exchange.upgrade() {
                exchange.sent(count);
                if progress.underway.get() == 0 && progress.drained.get() {
                    exchange.download_waits(Flow::Source);
                }
            }
            if progress.underway.get() == 0
                && let Some(waiting) = progress.waiting.take()
            {
                waiting.wake();
            }
        }
    }
}

/// Why content was not sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// It broke off.
    Source(Error),
    /// The peer does not want it, or is gone.
    Sink,
}

/// Ready once the peer has given up the stream.
fn poll_stopped(stream: &mut SendStream<Piece>, cx: &mut Context<'_>) -> Poll<Stopped> {
    stream.poll_reset(cx).map(|_| Stopped::Sink)
}

/// Sends content to its end. No more of it is given to h2 than the peer's windows let go, so that what waits for a slow
/// peer waits where it came from.
///
/// # Errors
/// Who stopped it. The stream is not reset yet.
pub(super) async fn send(
    body: &mut (impl http_body::Body<Data = Bytes, Error = Error> + Unpin),
    stream: &mut SendStream<Piece>,
    watch: &impl Watch,
) -> Result<(), Stopped> {
    let stopped = |_| Stopped::Sink;
    loop {
        let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.transpose().map_err(Stopped::Source)),
            Poll::Pending => {
                watch.waits(Flow::Source);
                poll_stopped(stream, cx).map(Err)
            }
        });
        let Some(mut frame) = frame.await? else { return stream.send_data(Piece::end(), true).map_err(stopped) };
        headers::clean_trailers(&mut frame);
        let last = body.is_end_stream();
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => return stream.send_trailers(trailers).map_err(stopped),
                Err(_) => continue,
            },
        };
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let room = poll_fn(|cx| {
                let room = poll_room(stream, cx);
                match room {
                    Poll::Pending => watch.waits(Flow::Sink),
                    Poll::Ready(_) => watch.moves(),
                }
                room
            });
            let room = room.await.map_err(|_| Stopped::Sink)?;
            let piece = data.split_to(room.min(data.len()));
            stream.send_data(watch.piece(piece), last && data.is_empty()).map_err(stopped)?;
            if last && data.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Ready with how many bytes may be sent, at least one.
pub(super) fn poll_room(stream: &mut SendStream<Piece>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    loop {
        match stream.capacity() {
            // `poll_capacity` tells of changes only.
            0 => match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                _ => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            },
            room => return Poll::Ready(Ok(room)),
        }
    }
}
