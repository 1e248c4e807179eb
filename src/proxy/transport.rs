//! What carries the bytes of a connection: TCP, or TLS above it, whichever side we are. Handshakes are `handshake`'s and
//! `upstream`'s; what is read ahead and how long queues may be is `io`'s.

use std::cell::Cell;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead as _, AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::certified::{self, Certified};
use crate::snapshot::{HostTls, Snapshot};

/// A socket, or TLS on one. TLS has a box, so that a connection without it has no room for it.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(TcpStream),
    Tls(Box<Tls>),
}

/// TLS on a socket. Dropping it tells the peer that nothing more comes (close_notify), unless it is [cut](Tls::cut).
#[derive(Debug)]
pub(super) struct Tls {
    stream: TlsStream<TcpStream>,
    agreed: Option<Rc<Agreed>>,
    cut: Cell<bool>,
}

/// What a client's handshake came to.
#[derive(Debug)]
pub(super) struct Agreed {
    /// The host that the client named (SNI).
    pub server_name: Option<Box<str>>,
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite, by its name at IANA.
    pub cipher: &'static str,
    /// What is spoken (ALPN), if the client asked.
    pub alpn: Option<&'static str>,
    /// On which terms.
    pub terms: Arc<HostTls>,
    /// Who the client is, if it showed a certificate.
    pub client: Option<Box<Certified>>,
}

impl Agreed {
    /// Whether requests for `host` may come this way. The host that was named may be asked for whatever the certificate says of it:
    /// the client has decided to bear with that. And a client that named none says for the first time which it wants. Whoever the
    /// client is, the host has to believe it by the same means, as `snapshot` has them now.
    pub(super) fn serves(&self, host: &str, snapshot: &Snapshot) -> bool {
        (self.server_name.as_deref().is_none_or(|name| name == host) || self.terms.covers(host))
            && certified::serves(self, host, snapshot)
    }
}

impl Transport {
    /// The socket below.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Transport::Tcp(socket) => socket,
            Transport::Tls(tls) => tls.stream.get_ref().0,
        }
    }

    /// What a client's handshake came to.
    pub(super) fn agreed(&self) -> Option<&Rc<Agreed>> {
        match self {
            Transport::Tcp(_) => None,
            Transport::Tls(tls) => tls.agreed.as_ref(),
        }
    }

    /// Makes the drop that follows look like a break, or not. TLS says nothing then.
    pub(super) fn cut(&self, cut: bool) {
        if let Transport::Tls(tls) = self {
            tls.cut.set(cut);
        }
    }

    /// Waits until something can be read, without a buffer to read it into.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Tcp(socket) => socket.poll_read_ready(cx),
            Transport::Tls(tls) => tls.poll_readable(cx),
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Transport::Tls(tls) => {
                tls.push();
                Pin::new(&mut tls.stream).poll_read(cx, buffer)
            }
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Transport::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Transport::Tls(tls) => Pin::new(&mut tls.stream).poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Transport::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Transport::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(cx, parts),
        }
    }

    /// Passes on some of what was taken and waits here: ready with its length, 0 if there is none. A socket keeps nothing; TLS may
    /// keep what it has encrypted.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Transport::Tcp(_) => Poll::Ready(Ok(0)),
            Transport::Tls(tls) => tls.poll_drain(cx),
        }
    }

    /// Ends the sending; TLS tells the peer so first.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }
}

impl Tls {
    /// A connection after its handshake, with what that came to if it was a client's.
    pub(super) fn new(stream: TlsStream<TcpStream>, agreed: Option<Rc<Agreed>>) -> Self {
        Tls { stream, agreed, cut: Cell::new(false) }
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.push();
        match Pin::new(&mut self.stream).poll_fill_buf(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            // Reading tells it again.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.stream.get_ref().1.wants_write() {
            return Poll::Ready(Ok(0));
        }
        match self.write_tls(Some(cx)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(written),
        }
    }

    /// Passes on what the kernel takes at once. Who reads must not wait for room to write: only the one who waits last for either is
    /// woken, and that is the writer's place.
    fn push(&mut self) {
        while self.stream.get_ref().1.wants_write() && matches!(self.write_tls(None), Ok(1..)) {}
    }

    fn write_tls(&mut self, cx: Option<&mut Context<'_>>) -> io::Result<usize> {
        match &mut self.stream {
            TlsStream::Client(stream) => {
                let (socket, session) = stream.get_mut();
                session.write_tls(&mut Writer { socket, cx })
            }
            TlsStream::Server(stream) => {
                let (socket, session) = stream.get_mut();
                session.write_tls(&mut Writer { socket, cx })
            }
        }
    }
}

impl Drop for Tls {
    /// RFC 8446 6.1: "Each party MUST send a "close_notify" alert before closing its write side of the connection, unless it has
    /// already sent some error alert." Whoever cuts has reason not to; and who takes nothing does not wait for it.
    fn drop(&mut self) {
        if !self.cut.get() {
            match &mut self.stream {
                TlsStream::Client(stream) => stream.get_mut().1.send_close_notify(),
                TlsStream::Server(stream) => stream.get_mut().1.send_close_notify(),
            }
            self.push();
        }
    }
}

/// Writes what the kernel takes at once. Whose context it has is woken when it takes more.
struct Writer<'a, 'b, 'c> {
    socket: &'a mut TcpStream,
    cx: Option<&'b mut Context<'c>>,
}

impl Write for Writer<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(cx) = &mut self.cx else { return self.socket.try_write_vectored(parts) };
        match Pin::new(&mut *self.socket).poll_write_vectored(cx, parts) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
