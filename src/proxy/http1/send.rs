//! Messages on their way out, whichever side takes them: the head with what content is there already, then each piece as it
//! comes. What is waited with, and for how long, is the taker's to say.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::Body as _;

use super::conn::Conn;
use super::encode::{self, Outbound};
use crate::proxy::body::Body;
use crate::proxy::error::Error;
use crate::proxy::io::lending;

/// Content up to this is copied behind what goes before it: one part is written faster than three.
const COPIED: usize = 2 * 1024;
/// What is left of a piece up to this is copied when it has to wait, so that it does not keep a much larger buffer.
const LITTLE: usize = 16 * 1024;
/// What is kept from one piece to the next for their framing.
const FRAMING: usize = 64;

/// Whoever takes a message.
pub(super) trait Taker {
    /// What is wrong with content that is longer than was said.
    const TOO_LONG: Error;
    /// What is wrong with content that is shorter than was said.
    const TOO_SHORT: Error;

    /// There is no content at the moment. Ready if it is not waited for any longer.
    fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<Error>;

    /// It takes nothing at the moment. Ready if it is not waited for any longer. `begins` if it took something before.
    fn poll_stalled(&self, cx: &mut Context<'_>, begins: bool) -> Poll<Error>;

    /// It took something after it had taken nothing.
    fn moved(&self) {}

    /// It took all of a piece with so much content, after it had taken nothing, or at once.
    fn took(&self, _content: usize, _stalled: bool) {}

    /// It is gone.
    fn gone(&self, error: Error) -> Error {
        error
    }
}

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Sender {
    body: Body,
    framing: Outbound,
    /// Content that is still to come, if its length was said.
    left: u64,
    /// What goes before `data`, and how much of it went out.
    out: Vec<u8>,
    written: usize,
    data: Bytes,
    after: &'static [u8],
    /// Length of the content in this piece.
    content: usize,
    /// Whether the piece is to be written, and not to be added to.
    ready: bool,
    /// Whether nothing comes after it.
    last: bool,
    stalled: bool,
}

impl Sender {
    /// `out`, which has a head at its end, and then content.
    pub(super) fn new(out: Vec<u8>, framing: Outbound, body: Body) -> Self {
        let left = if let Outbound::Length(length) = framing { length } else { u64::MAX };
        let bare = framing == Outbound::None;
        Sender {
            body,
            framing,
            left,
            out,
            written: 0,
            data: Bytes::new(),
            after: b"",
            content: 0,
            ready: bare,
            last: bare,
            stalled: false,
        }
    }

    /// `out`, and no content.
    pub(super) fn bare(out: Vec<u8>) -> Self {
        Self::new(out, Outbound::None, Body::empty())
    }

    /// How the content is delimited.
    pub(super) fn framing(&self) -> Outbound {
        self.framing
    }

    /// Sends what is there, whether content has come or not.
    pub(super) fn flush(&mut self) {
        self.ready = true;
    }

    /// Ready when what was flushed has been sent.
    pub(super) fn poll_flushed<T: Taker>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &Conn,
        taker: &T,
    ) -> Poll<Result<(), Error>> {
        if self.ready {
            ready!(self.poll_write(cx, conn, taker))?;
            self.ready = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when everything has been sent.
    pub(super) fn poll<T: Taker>(&mut self, cx: &mut Context<'_>, conn: &Conn, taker: &T) -> Poll<Result<(), Error>> {
        loop {
            ready!(self.poll_flushed(cx, conn, taker))?;
            if self.last {
                return Poll::Ready(Ok(()));
            }
            // Content that is there already goes out together with the head; what is not must not hold the head up.
            self.ready = match lending(|| Pin::new(&mut self.body).poll_frame(cx)) {
                Poll::Pending if self.out.is_empty() => return taker.poll_idle(cx).map(Err),
                Poll::Pending => true,
                Poll::Ready(None) => self.end::<T>(None)?,
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) => self.piece::<T>(data)?,
                    Err(frame) => self.end::<T>(frame.into_trailers().ok().as_ref())?,
                },
            };
        }
    }

    /// Makes content the next piece. Whether there is anything to write.
    fn piece<T: Taker>(&mut self, data: Bytes) -> Result<bool, Error> {
        if data.is_empty() {
            return Ok(false);
        }
        self.left = self.left.checked_sub(data.len() as u64).ok_or(T::TOO_LONG)?;
        self.content = data.len();
        if data.len() <= COPIED {
            self.out.reserve(data.len() + FRAMING);
        }
        if self.framing == Outbound::Chunked {
            encode::chunk_size(&mut self.out, data.len());
            self.last = self.body.is_end_stream();
            self.after = if self.last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
        }
        if data.len() <= COPIED {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(std::mem::take(&mut self.after));
        } else {
            self.data = data;
        }
        Ok(true)
    }

    /// Makes the end the next piece.
    fn end<T: Taker>(&mut self, trailers: Option<&http::HeaderMap>) -> Result<bool, Error> {
        match self.framing {
            // RFC 9112 7.1.2: trailers exist in chunked content only; elsewhere they may be dropped.
            Outbound::Chunked => encode::last_chunk(&mut self.out, trailers),
            Outbound::Length(_) if self.left > 0 => return Err(T::TOO_SHORT),
            _ => {}
        }
        self.last = true;
        Ok(true)
    }

    /// Writes the piece, as one call where the kernel takes it.
    fn poll_write<T: Taker>(&mut self, cx: &mut Context<'_>, conn: &Conn, taker: &T) -> Poll<Result<(), Error>> {
        loop {
            let all = [&self.out[self.written..], &self.data, self.after];
            let mut parts = [IoSlice::new(&[]); 3];
            let mut count = 0;
            for part in all.into_iter().filter(|part| !part.is_empty()) {
                parts[count] = IoSlice::new(part);
                count += 1;
            }
            // TLS may hold back what it took, and then it is not with the kernel.
            let written = if count > 0 { conn.poll_write(cx, &parts[..count]) } else { conn.poll_drain(cx) };
            match written {
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(Ok(written)) => {
                    if count > 0 {
                        self.wrote(written);
                    }
                    if self.stalled {
                        taker.moved();
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(taker.gone(error))),
                Poll::Pending => {
                    let begins = !std::mem::replace(&mut self.stalled, true);
                    if self.data.is_empty() {
                        self.data = Bytes::new();
                    } else if begins && self.data.len() <= LITTLE {
                        self.data = Bytes::copy_from_slice(&self.data);
                    }
                    return taker.poll_stalled(cx, begins).map(Err);
                }
            }
        }
        taker.took(std::mem::take(&mut self.content), std::mem::take(&mut self.stalled));
        self.data = Bytes::new();
        self.written = 0;
        self.out.clear();
        if self.out.capacity() > FRAMING {
            self.out = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, mut written: usize) {
        let out = written.min(self.out.len() - self.written);
        self.written += out;
        written -= out;
        let data = written.min(self.data.len());
        self.data.advance(data);
        self.after = &self.after[written - data..];
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::*;
    use crate::proxy::http1::chunked::{Chunked, Decoded, Then};
    use crate::proxy::http1::conn::RequestBody;
    use crate::proxy::http1::head::Framing;
    use crate::proxy::io::{Io, LENT};
    use crate::proxy::listener::bound_unsent;

    /// A taker that is waited for without end.
    #[derive(Default)]
    struct Patient {
        stalled: Cell<bool>,
    }

    impl Taker for Patient {
        const TOO_LONG: Error = Error::BodyIncomplete;
        const TOO_SHORT: Error = Error::BodyIncomplete;

        fn poll_idle(&self, _: &mut Context<'_>) -> Poll<Error> {
            Poll::Pending
        }

        fn poll_stalled(&self, _: &mut Context<'_>, _: bool) -> Poll<Error> {
            self.stalled.set(true);
            Poll::Pending
        }
    }

    /// A connection, and its other end, whose kernel takes little before it is read from.
    async fn connection() -> (Conn, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let client = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        bound_unsent(&stream, LENT).unwrap();
        (Conn::new(Io::new(stream, LENT)), client)
    }

    /// Content on its way from one connection to another.
    struct Stream {
        sender: Sender,
        conn: Conn,
        client: TcpStream,
        taker: Patient,
    }

    impl Stream {
        /// Of so many equal bytes, in chunks or by its length.
        async fn begin(byte: u8, length: usize, chunked: bool) -> Self {
            let (source, mut endpoint) = connection().await;
            let (framing, outbound) = match chunked {
                true => (Framing::Chunked, Outbound::Chunked),
                false => (Framing::Length(length as u64), Outbound::Length(length as u64)),
            };
            source.expect(framing, false);
            tokio::spawn(async move {
                for _ in 0..length / 1000 {
                    if chunked {
                        endpoint.write_all(b"3e8\r\n").await.unwrap();
                    }
                    endpoint.write_all(&[byte; 1000]).await.unwrap();
                    if chunked {
                        endpoint.write_all(b"\r\n").await.unwrap();
                    }
                }
                endpoint.write_all(if chunked { b"0\r\n\r\n" } else { b"" }).await.unwrap();
            });
            let (conn, client) = connection().await;
            let sender = Sender::new(Vec::new(), outbound, Body::stream(RequestBody(Rc::new(source))));
            Stream { sender, conn, client, taker: Patient::default() }
        }

        fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            self.sender.poll(cx, &self.conn, &self.taker).map(|sent| sent.unwrap())
        }

        /// Sends it to its end, to a client that takes it. What that gets.
        async fn pass(mut self) -> Vec<u8> {
            let mut client = std::mem::replace(&mut self.client, connection().await.1);
            let reading = tokio::spawn(async move {
                let mut got = Vec::new();
                client.read_to_end(&mut got).await.unwrap();
                got
            });
            poll_fn(|cx| self.poll(cx)).await;
            drop(self);
            reading.await.unwrap()
        }
    }

    fn whole(byte: u8, length: usize, got: &[u8]) {
        assert_eq!(got.len(), length);
        assert!(got.iter().all(|other| *other == byte), "something else in the content of {byte}");
    }

    /// A reader that stands still holds a piece and no more, and nobody else's content gets in there.
    #[tokio::test]
    async fn slow_readers_hold_a_piece_each_and_others_pass() {
        let length = 8_000_000;
        let mut slow = Vec::new();
        for byte in 0..10 {
            let mut stream = Stream::begin(byte, length, false).await;
            poll_fn(|cx| match stream.poll(cx) {
                Poll::Pending if stream.taker.stalled.get() => Poll::Ready(()),
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => panic!("the kernel took everything"),
            })
            .await;
            assert!(stream.sender.out.capacity() + stream.sender.data.len() <= LENT);
            slow.push((byte, stream));
        }
        whole(100, 500_000, &Stream::begin(100, 500_000, false).await.pass().await);
        for (byte, stream) in slow {
            whole(byte, length, &stream.pass().await);
        }
    }

    #[tokio::test]
    async fn chunks_are_written_anew() {
        let mut raw = Stream::begin(b'x', 1_000_000, true).await.pass().await;
        let Decoded { content, used, then } = Chunked::default().decode(&mut raw).unwrap();
        whole(b'x', 1_000_000, &raw[content]);
        assert_eq!((used, then), (raw.len(), Then::End));
    }
}
