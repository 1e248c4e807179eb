//! Pieces on their way through slow and fast readers.

#![allow(clippy::unwrap_used)]
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;
use crate::proxy::http1::chunked::{Chunked, Decoded, Then};
use crate::proxy::http1::head::Framing;
use crate::proxy::http1::server::RequestBody;
use crate::proxy::io::Io;
use crate::proxy::lent::LENT;
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

/// What the byte at a place is, so that no two pieces are alike.
fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| (at / 7 + at / 65_536) as u8).collect()
}

/// A message of `length` bytes of which `sent` come before its sender closes. What the other side gets, how it ends, and how many
/// pieces nobody saw.
async fn bulk(length: usize, sent: usize) -> (Vec<u8>, Result<(), Error>, usize) {
    let (source, mut endpoint) = connection().await;
    source.expect(Framing::Length(length as u64), false);
    let writing = tokio::spawn(async move {
        endpoint.write_all(&pattern(0, sent)).await.unwrap();
        endpoint.shutdown().await.unwrap();
        // A close with something unread would be a reset, which overtakes what was written.
        let _ = endpoint.read(&mut [0]).await;
    });
    let (conn, mut client) = connection().await;
    let reading = tokio::spawn(async move {
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        got
    });
    let body = Body::stream(RequestBody(Rc::new(source)));
    let mut sender = Sender::new(Vec::new(), Outbound::Length(length as u64), body);
    let mut unseen = 0;
    let ended = poll_fn(|cx| {
        let polled = sender.poll(cx, &conn, &Patient::default());
        unseen += usize::from(sender.piped.is_some());
        polled
    })
    .await;
    drop((sender, conn));
    writing.await.unwrap();
    (reading.await.unwrap(), ended, unseen)
}

#[tokio::test]
async fn bulk_passes_unseen_and_unchanged() {
    let length = 20_000_001;
    let (got, ended, unseen) = bulk(length, length).await;
    assert_eq!(ended, Ok(()));
    assert!(got == pattern(0, length), "{} bytes", got.len());
    assert!(unseen > 0 || !cfg!(target_os = "linux"), "nothing went through a pipe");
}

#[tokio::test]
async fn bulk_that_ends_too_early_is_told_and_what_came_passes() {
    let (got, ended, _) = bulk(20_000_000, 9_000_000).await;
    assert_eq!(ended, Err(Error::BodyIncomplete));
    assert!(got == pattern(0, 9_000_000), "{} bytes", got.len());
}
