//! The clients of `uncut`: each keeps a stream of one kind open and looks at every byte of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::clients::*;
use super::support::*;
use super::uncut::{CONTENT, DOWNLOAD, PACE, Shared, event};

/// Events as they come in, however they are cut into pieces.
#[derive(Default)]
pub struct Seen {
    next: u64,
    part: Vec<u8>,
}

impl Seen {
    /// The next bytes; panics unless each event is the one that is due.
    pub fn take(&mut self, bytes: &[u8], shared: &Shared) {
        self.part.extend_from_slice(bytes);
        while let Some(end) = self.part.windows(2).position(|pair| pair == b"\n\n") {
            let rest = self.part.split_off(end + 2);
            let seen = std::mem::replace(&mut self.part, rest);
            assert_eq!(String::from_utf8_lossy(&seen), event(self.next), "lost, repeated or out of order");
            self.next += 1;
            shared.got.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The end, after which nothing may be missing. How many there were.
    pub fn whole(self) -> u64 {
        assert!(self.part.is_empty(), "half an event at the end");
        self.next
    }
}

/// A connection with `path` asked for, and the head of its answer read.
pub async fn asked(address: SocketAddr, path: &str) -> BufReader<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    // Little is on its way, so that a slow client is felt by the endpoint.
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut client = Raw(socket.connect(address).await.unwrap());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    BufReader::with_capacity(2048, client.0)
}

/// An event stream over HTTP/1.1, chunk by chunk.
pub async fn stream_of_events(mut client: BufReader<TcpStream>, shared: Arc<Shared>) -> u64 {
    let (mut seen, mut line, mut chunk) = (Seen::default(), String::new(), Vec::new());
    loop {
        line.clear();
        assert!(client.read_line(&mut line).await.unwrap() > 0, "cut after {} events", seen.next);
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        chunk.resize(size + 2, 0);
        client.read_exact(&mut chunk).await.unwrap();
        if size == 0 {
            return seen.whole();
        }
        seen.take(&chunk[..size], &shared);
    }
}

/// Buffers that fit many WebSockets.
pub fn small() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(1024)
}

/// A WebSocket on which each message comes back before the next goes.
pub async fn web_socket(address: SocketAddr, shared: Arc<Shared>) -> JoinHandle<u64> {
    let stream = TcpStream::connect(address).await.unwrap();
    let opened = tokio_tungstenite::client_async_with_config("ws://a/ws", stream, Some(small()));
    let (mut socket, _) = within(opened).await.unwrap();
    tokio::spawn(async move {
        let mut number = 0;
        while !shared.is_over() {
            let message = Message::text(format!("message {number}"));
            socket.send(message.clone()).await.unwrap();
            assert_eq!(within(socket.next()).await.unwrap().unwrap(), message);
            number += 1;
            tokio::time::sleep(PACE).await;
        }
        socket.close(None).await.unwrap();
        while let Some(message) = within(socket.next()).await {
            assert!(message.unwrap().is_close());
        }
        number
    })
}

/// Half of the streams on this HTTP/2 connection are events, half are calls of both directions.
pub async fn http2_streams(address: SocketAddr, shared: &Arc<Shared>, each: usize) -> Vec<JoinHandle<u64>> {
    let mut client = http2(address).await;
    let mut running = Vec::new();
    for _ in 0..each {
        let mut body = ask(&client, get("/events")).await.into_body();
        let shared = Arc::clone(shared);
        running.push(tokio::spawn(async move {
            let mut seen = Seen::default();
            while let Some(bytes) = piece(&mut body).await {
                seen.take(&bytes.unwrap(), &shared);
            }
            seen.whole()
        }));
    }
    for _ in 0..each {
        let mut request = post("/call");
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        client = within(client.ready()).await.unwrap();
        let (answer, mut sending) = client.send_request(request, false).unwrap();
        let mut answer = within(answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        let shared = Arc::clone(shared);
        running.push(tokio::spawn(async move {
            let mut number = 0;
            while !shared.is_over() {
                let text = format!("call {number}");
                let message = [&[0, 0, 0, 0, text.len() as u8], text.as_bytes()].concat();
                sending.send_data(Bytes::from(message.clone()), false).unwrap();
                assert_eq!(piece(answer.body_mut()).await.unwrap().unwrap(), message);
                number += 1;
                tokio::time::sleep(PACE).await;
            }
            sending.send_data(Bytes::new(), true).unwrap();
            let (rest, trailers) = content(answer.body_mut()).await.unwrap();
            assert!(rest.is_empty());
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
            number
        }));
    }
    running
}

/// Downloads by a client that takes its time, one after another, until time is over.
pub async fn downloads(mut client: BufReader<TcpStream>, address: SocketAddr, shared: Arc<Shared>) -> u64 {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let mut start = 0;
        while start < DOWNLOAD {
            let size = if shared.is_over() { piece.len() } else { 8 * 1024 };
            let piece = &mut piece[..size.min(DOWNLOAD - start)];
            within(client.read_exact(piece)).await.unwrap();
            assert!(*piece == CONTENT[start..start + piece.len()], "other bytes after {start}");
            start += piece.len();
            if !shared.is_over() {
                tokio::time::sleep(PACE).await;
            }
        }
        if shared.is_over() {
            return u64::MAX;
        }
        client = asked(address, "/download").await;
    }
}

/// Asks again and again, on one connection or on a new one each time. No request may fail.
pub async fn asking(address: SocketAddr, shared: Arc<Shared>, answered: Arc<AtomicUsize>, keeps: bool) {
    let mut client = Raw(TcpStream::connect(address).await.unwrap());
    while !shared.is_over() {
        if !keeps {
            client = Raw(TcpStream::connect(address).await.unwrap());
        }
        client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        client.until("ok").await;
        answered.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
