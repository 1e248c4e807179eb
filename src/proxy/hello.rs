//! The first words of a client of TLS, kept as they come: whoever passes TLS on has to say them again. What they mean, `handshake`
//! has rustls find out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustls::{Error, InvalidMessage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// As much as a client may say until it is known which host it wants: twice what one record has room for (RFC 8446 5.1).
pub(super) const MOST: usize = 2 * 16 * 1024;

/// A socket of which everything is kept that is read from it.
#[derive(Debug)]
pub(super) struct Heard {
    socket: TcpStream,
    bytes: Vec<u8>,
}

impl Heard {
    pub(super) fn new(socket: TcpStream) -> Self {
        Heard { socket, bytes: Vec::new() }
    }

    /// The socket, for who does not read from it.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The socket, and what was read from it.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.socket, self.bytes.into())
    }
}

impl AsyncRead for Heard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Heard { socket, bytes } = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(socket).poll_read(cx, buffer))?;
        let new = &buffer.filled()[before..];
        if bytes.len() + new.len() > MOST {
            let error = Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        bytes.extend_from_slice(new);
        Poll::Ready(Ok(()))
    }
}

/// Alerts go out this way.
impl AsyncWrite for Heard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_kept_up_to_a_bound() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut client, mut heard) = (client.unwrap(), Heard::new(server.unwrap().0));
        let all: Vec<u8> = (0..MOST + 1).map(|index| (index % 251) as u8).collect();
        client.write_all(&all).await.unwrap();
        let mut read = vec![0; MOST];
        heard.read_exact(&mut read).await.unwrap();
        assert!(heard.read_u8().await.unwrap_err().to_string().contains("TooLarge"), "one byte too many");
        let (_, kept) = heard.into_parts();
        assert!(kept[..] == all[..MOST] && read == all[..MOST]);
    }
}
