//! A network connection as the data plane sees it, whatever is below: that is `transport`'s.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::listener::bound_unsent;
use super::pipes::Piped;
use super::transport::{Agreed, Tls, Transport};
use crate::resilience::Connected;

/// How often a peer takes what waits for it until it gets a longer queue. Each time is half of the short one at least, so that this
/// is 1 MiB by default.
const STEADY: u8 = 16;
/// How many times longer its queue is then: 1 MiB by default.
const STEADY_ROOM: usize = 8;

/// A connection, and bytes of it that were read already.
#[derive(Debug)]
pub(super) struct Io {
    transport: Transport,
    unread: Bytes,
    /// Bytes; in 32 bits, because connections that rest are many.
    room: u32,
    /// How often the peer took something after what was written had to wait for it; no further than [`STEADY`].
    waits: u8,
    /// Whether something was written since it last had to wait.
    moved: bool,
    /// Counts a connection to an endpoint for as long as it is open.
    _connected: Option<Connected>,
}

impl Io {
    /// A fresh connection, whose content is read into no more than `room` bytes while others are slow to take it.
    pub(super) fn new(stream: TcpStream, room: usize) -> Self {
        Io::over(Transport::Tcp(stream), room)
    }

    /// The same over TLS, after the handshake; with what that came to, if it was a client's.
    pub(super) fn tls(stream: impl Into<TlsStream<TcpStream>>, agreed: Option<Rc<Agreed>>, room: usize) -> Self {
        Io::over(Transport::Tls(Box::new(Tls::new(stream.into(), agreed))), room)
    }

    fn over(transport: Transport, room: usize) -> Self {
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        Io { transport, unread: Bytes::new(), room, waits: 0, moved: true, _connected: None }
    }

    /// What the client's handshake came to, if it speaks TLS.
    pub(super) fn agreed(&self) -> Option<&Rc<Agreed>> {
        self.transport.agreed()
    }

    /// The socket below.
    pub(super) fn socket(&self) -> &TcpStream {
        self.transport.socket()
    }

    /// Has a peer that reads take a few last words, which are lost otherwise.
    pub(super) fn say_at_once(&self, bytes: &[u8]) {
        let _ = self.transport.socket().try_write(bytes);
    }

    /// Counts as a connection to an endpoint until it is closed.
    pub(super) fn counted(self, connected: Connected) -> Self {
        Io { _connected: Some(connected), ..self }
    }

    /// How much content may be held.
    pub(super) fn room(&self) -> usize {
        self.room as usize
    }

    /// Looks at what became of a write. Once a peer was slow to take what waits for it, the kernel has to bear with it for as long
    /// as it answers: its clock (TCP_USER_TIMEOUT) counts from the moment at which the peer first took nothing, and does not
    /// notice what it takes later as long as something waits. Whoever is slow for that long would be cut, however steadily it
    /// reads. Our own clocks for those who take nothing do better.
    ///
    /// A peer that goes on taking a transfer which has to wait for it again and again is given a longer queue: keeping it short
    /// costs a third more processor time for each byte. Who never took much, as readers that are slow to hold us up, keeps the
    /// short one.
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let socket = self.transport.socket();
        if written.is_ready() {
            self.moved = true;
        } else if std::mem::take(&mut self.moved) && self.waits < STEADY {
            self.waits += 1;
            let set = match self.waits {
                1 => socket2::SockRef::from(socket).set_tcp_user_timeout(None),
                STEADY => bound_unsent(socket, self.room() * STEADY_ROOM),
                _ => Ok(()),
            };
            if let Err(error) = set {
                tracing::debug!(%error, "cannot set an option of a connection");
            }
        }
        written
    }

    /// Puts bytes back, so that they are read first.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.unread.is_empty(), "bytes are put back once");
        self.unread = bytes;
    }

    /// Waits until something can be read, without a buffer to read it into.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() { self.transport.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Has some of what was written and waits here go out: ready with its length, 0 if nothing waits. Without TLS nothing ever does.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self.transport.poll_drain(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(0)),
            drained => self.wrote(drained),
        }
    }

    /// Has what came go into `piped`, at most `most` bytes: 0 is the end. `None` if it cannot, because somebody has to decrypt it
    /// or has read some of it.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        piped: &mut Piped,
        most: usize,
    ) -> Option<Poll<io::Result<usize>>> {
        match &self.transport {
            Transport::Tcp(socket) if self.unread.is_empty() => piped.poll_fill(cx, socket, most),
            _ => None,
        }
    }

    /// Whether what is in a pipe can go out here as it is.
    pub(super) fn takes_pipes(&self) -> bool {
        matches!(self.transport, Transport::Tcp(_))
    }

    /// Has what is in `piped` go out: ready with how much of it did.
    pub(super) fn poll_empty(&mut self, cx: &mut Context<'_>, piped: &mut Piped) -> Poll<io::Result<usize>> {
        let written = piped.poll_empty(cx, self.transport.socket());
        self.wrote(written)
    }

    /// Makes the close that follows a reset, or not, so that a peer cannot take a cut for an end (RFC 9112 8: a
    /// close-delimited message ends with the connection; 9.8: over TLS such a message is complete only if a close_notify
    /// has come).
    pub(super) fn reset_on_close(&self, reset: bool) {
        self.transport.cut(reset);
        if let Err(error) = socket2::SockRef::from(self.transport.socket()).set_linger(reset.then_some(Duration::ZERO))
        {
            tracing::debug!(%error, "cannot reset a connection");
        }
    }

    /// A second look at the connection, for who does not read from it.
    pub(super) fn lookout(&self) -> io::Result<Lookout> {
        let same = socket2::SockRef::from(self.transport.socket()).try_clone()?;
        TcpStream::from_std(same.into()).map(Lookout)
    }

    /// Wakes whoever waits for something to read; nothing more will come.
    pub(super) fn end_reading(&self) {
        // Fails if the connection is gone, which wakes them, too.
        let _ = socket2::SockRef::from(self.transport.socket()).shutdown(std::net::Shutdown::Read);
    }
}

/// One end of a tunnel, whatever carries it: a connection, or a stream of one. What ends its sending is `poll_shutdown`.
pub(super) trait Pipe: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin {
    /// Waits until something can be read, without a buffer to read it into.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Has some of what was written go out, if it waits here: ready with its length, 0 if nothing waits.
    fn poll_drain(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }

    /// Makes the drop that follows look broken to the peer, and not like an end.
    fn abort(&mut self);
}

impl Pipe for Io {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Io::poll_readable(self, cx)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Io::poll_drain(self, cx)
    }

    fn abort(&mut self) {
        self.reset_on_close(true);
    }
}

/// Tells that the peer has left although bytes from before are unread. Who reads finds its end behind them, who waits for
/// room elsewhere does not. It has a descriptor of its own, so that it can forget that something is readable without
/// taking that from the reader.
#[derive(Debug)]
pub(super) struct Lookout(TcpStream);

impl Lookout {
    /// Ready when the peer has ended its stream or reset the connection.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        while ready!(self.0.poll_read_ready(cx)).is_ok() {
            let seen = ready!(pin!(self.0.ready(Interest::READABLE)).poll(cx));
            if !seen.is_ok_and(|seen| !seen.is_read_closed()) {
                break;
            }
            // Forgets that something is readable, so that the next poll waits for news.
            let _ = self.0.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            return this.transport.poll_read(cx, buffer);
        }
        let length = this.unread.len().min(buffer.remaining());
        buffer.put_slice(&this.unread[..length]);
        this.unread.advance(length);
        if this.unread.is_empty() {
            this.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.transport.poll_write(cx, bytes);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.transport.poll_write_vectored(cx, parts);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while ready!(this.poll_drain(cx))? > 0 {}
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().transport.poll_shutdown(cx)
    }
}

/// Reads what is there into `buffer`, at most what fits its capacity, which grows to at least `room`. 0 is the end.
pub(super) fn poll_read_into(
    io: &mut Io,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    room: usize,
) -> Poll<io::Result<usize>> {
    if buffer.capacity() - buffer.len() < room {
        buffer.reserve(room);
    }
    poll_read_room(io, cx, buffer)
}

/// Reads what is there into what room there is. 0 is the end.
pub(super) fn poll_read_room(io: &mut Io, cx: &mut Context<'_>, room: &mut impl BufMut) -> Poll<io::Result<usize>> {
    pin!(tokio::io::AsyncReadExt::read_buf(io, room)).poll(cx)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A queue that the kernel keeps for a peer is short until the peer has shown that it takes what is in it.
    #[tokio::test]
    async fn who_goes_on_taking_gets_a_longer_queue() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        const ROOM: usize = 64 * 1024;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (writer, reader) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (writer, mut reader) = (writer.unwrap(), reader.unwrap().0);
        bound_unsent(&writer, ROOM).unwrap();
        let queue = |io: &Io| socket2::SockRef::from(io.transport.socket()).tcp_notsent_lowat().unwrap() as usize;
        let mut io = Io::new(writer, ROOM);

        let sent = tokio::time::timeout(Duration::from_millis(100), io.write_all(&vec![0; 64 << 20])).await;
        assert!(sent.is_err(), "nobody reads");
        assert_eq!(queue(&io), 2 * ROOM, "who takes nothing");
        let (mut taken, mut buffer) = (0, vec![0; ROOM]);
        while queue(&io) == 2 * ROOM {
            assert!(taken < 64 << 20, "{} waits", io.waits);
            tokio::select! {
                read = reader.read(&mut buffer) => taken += read.unwrap(),
                _ = io.write(&[0; ROOM]) => {}
            }
        }
        assert_eq!(queue(&io), 2 * ROOM * STEADY_ROOM);
        assert!(taken >= 1 << 20, "{taken}");
    }
}
