//! Compressed answers whose readers are slow: they stop the endpoint like any others, and what they make the program hold is bounded.

use std::net::SocketAddr;
use std::time::Duration;

use floodway::snapshot::{Compression, Protocol, Streaming};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::clients::{ask, get, http2, piece};
use super::policy_compression::{Reader, chunk, compressing, compression, to_endpoint};
use super::server::Server;
use super::slow::{BESIDE, resident};
use super::support::*;

/// More than the buffers of the system and of the proxy together ever are.
const BOUND: usize = 64 << 20;
/// What compressing takes for each answer, as docs/policies.md has it, and what an allocator makes of that.
const COMPRESSOR: usize = 256 * 1024;
/// Readers at a time.
const READERS: usize = 20;

const ENDLESS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n";

/// A text of which compression leaves most, so that a bound of what comes out bounds what goes in.
fn text() -> Vec<u8> {
    (0..16 * 1024).map(|_| fastrand::alphanumeric() as u8).collect()
}

/// Writes until nothing more is taken for a while; how much was.
async fn fill(endpoint: &mut Raw) -> usize {
    let mut written = 0;
    while let Ok(more) = timeout(Duration::from_millis(500), endpoint.0.write(&text())).await {
        written += more.unwrap();
    }
    written
}

/// A client whose own system holds little for it, and which has read the head of a compressed answer.
async fn reader(address: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut client = Raw(within(socket.connect(address)).await.unwrap());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
    client
}

#[tokio::test]
async fn a_slow_reader_of_something_endless_stops_the_endpoint_and_loses_nothing() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to_endpoint(address, compression()));
    let mut client = reader(plane.address).await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(ENDLESS).await;
    let head = client.head().await;
    assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
    let (mut unpacked, mut written, mut heard) = (Reader::new(), 0, 0);
    for _ in 0..2 {
        let more = fill(&mut endpoint).await;
        assert!((1..BOUND).contains(&more), "it stops, and goes on: {more}");
        written += more;
        while heard < written {
            heard += unpacked.read(&chunk(&mut client).await).0.len();
        }
        assert_eq!(heard, written);
    }
}

#[tokio::test]
async fn slow_readers_of_compressed_answers_hold_no_more_than_is_said() {
    let endpoint = backend(|mut client| async move {
        client.request().await;
        // So that its own system is not what takes it.
        socket2::SockRef::from(&client.0).set_send_buffer_size(16 * 1024).unwrap();
        client.send(ENDLESS).await;
        while client.0.write(&text()).await.is_ok() {}
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let objects = format!(
        "apiVersion: floodway.dev/v1alpha1\nkind: ProxyPolicy\nmetadata: {{name: a}}\nspec: {{compression: {{}}}}\n---\n\
         apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: a}}\nspec:\n  rules:\n\
         \x20   - policies: [{{name: a}}]\n      backends: [{{upstream: {{name: a}}}}]\n      timeouts: {{stall: 10m, idle: 10m}}\n---\n\
         apiVersion: floodway.dev/v1alpha1\nkind: ProxyUpstream\nmetadata: {{name: a}}\n\
         spec: {{endpoints: [{{address: \"{endpoint}\"}}]}}\n"
    );
    std::fs::write(folder.path().join("a.yaml"), objects).unwrap();
    let room = 64 * 1024;
    let server = Server::start(folder.path(), &["--stream-buffer-bytes", &room.to_string(), "--access-log", "off"]);
    // What the first one brings along, the others do not.
    reader(server.http).await.head().await;
    let held = resident(&server);
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = reader(server.http).await;
        assert!(reader.head().await.contains("content-encoding: gzip"));
        readers.push(reader);
    }
    // Once it grows no more.
    let mut before = 0;
    while std::mem::replace(&mut before, resident(&server)) != before {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let grown = resident(&server).saturating_sub(held) / READERS;
    println!("{READERS} slow readers of compressed answers hold {grown} bytes each");
    assert!(grown <= COMPRESSOR + room + BESIDE, "{grown} bytes for each");
}

/// One after the other, and two that come together.
#[tokio::test]
async fn events_are_flushed_one_by_one_over_http2() {
    let (address, mut arrivals) = played().await;
    let mut route = forward("", "backend");
    let floodway::snapshot::Action::Forward(action) = &mut route.action else { unreachable!() };
    action.streaming = Some(Streaming::default().into());
    let route = compressing(route, Compression { event_streams: true, ..compression() });
    let plane = Plane::start(snapshot(vec![route], vec![cluster("backend", Protocol::Http1, &[address])]));
    let client = http2(plane.address).await;
    let mut request = get("/events");
    request.headers_mut().insert("accept-encoding", http::HeaderValue::from_static("gzip"));
    let asked = tokio::spawn(async move { ask(&client, request).await });
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(EVENTS).await;
    let mut answer = asked.await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let mut unpacked = Reader::new();
    for events in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\ndata: 4\n\n"] {
        endpoint.send(format!("{:x}\r\n{events}\r\n", events.len())).await;
        let mut heard = String::new();
        while heard != events {
            assert!(events.starts_with(&heard), "{heard:?} instead of {events:?}");
            heard += &unpacked.read(&piece(answer.body_mut()).await.unwrap().unwrap()).0;
        }
    }
}
