//! A stream as one end of a tunnel (RFC 9113 8.5, RFC 8441): its two halves, read and written like a socket's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{Piece, poll_room};
use crate::proxy::io::Pipe;

/// What is below a stream that is one end of a tunnel, held as long as it lasts.
pub(super) trait Below: std::fmt::Debug + Unpin {
    /// What is written waits for room, or no longer.
    fn waits(&self, _: bool) {}
}

impl Below for () {}

/// A stream as one end of a tunnel.
#[derive(Debug)]
pub(super) struct Duplex<B> {
    send: SendStream<Piece>,
    recv: RecvStream,
    unread: Bytes,
    closed: bool,
    below: B,
}

impl<B> Duplex<B> {
    /// Both halves of a stream whose heads have passed.
    pub(super) fn new(send: SendStream<Piece>, recv: RecvStream, below: B) -> Self {
        Duplex { send, recv, unread: Bytes::new(), closed: false, below }
    }

    /// Ready when there is something unread, or with `false` at the end.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.unread.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => self.unread = data,
                Some(Err(_)) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl<B: Below> Pipe for Duplex<B> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unread(cx).map_ok(drop)
    }

    /// RFC 8441 5: "a TCP RST is represented as a RST_STREAM frame with error code CANCEL".
    fn abort(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

impl<B: Below> AsyncRead for Duplex<B> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if ready!(this.poll_unread(cx))? {
            let length = this.unread.len().min(buffer.remaining());
            buffer.put_slice(&this.unread.split_to(length));
            if this.unread.is_empty() {
                this.unread = Bytes::new();
            }
            let _ = this.recv.flow_control().release_capacity(length);
        }
        Poll::Ready(Ok(()))
    }
}

impl<B: Below> AsyncWrite for Duplex<B> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(bytes.len());
        let room = poll_room(&mut self.send, cx);
        self.below.waits(room.is_pending());
        let room = ready!(room)?.min(bytes.len());
        let piece = Piece::new(Bytes::copy_from_slice(&bytes[..room]), None);
        self.send.send_data(piece, false).map_err(|_| io::ErrorKind::ConnectionReset)?;
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// RFC 8441 5: an orderly close "is represented as an END_STREAM flag".
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closed, true) {
            self.send.send_data(Piece::end(), true).map_err(|_| io::ErrorKind::ConnectionReset)?;
        }
        Poll::Ready(Ok(()))
    }
}
