//! Readers that take nothing, hundreds of each kind: what they make the program hold is bounded, and the bound is a setting.
//! `make soak` runs the same with ten thousand.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use floodway::settings::Settings;
use h2::{RecvStream, client};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::clients::*;
use super::scale::{Scale, room_for};
use super::server::Server;
use super::support::*;

/// Readers of each kind.
const EACH: usize = 200;
/// What a stream takes beside its content: two sockets, two tasks, heads, and what the allocator wastes.
pub const BESIDE: usize = 32 * 1024;

/// What the systems of both sides and the proxy's own take besides: they tune their receive buffers up to some megabytes.
const SOCKETS: usize = 8 << 20;

const PIECE: usize = 4096;

/// An endpoint that tells without end, in the way of the path that it is asked for. Counts what is taken off its hands.
async fn teller(told: Arc<AtomicU64>) -> SocketAddr {
    backend(move |mut client| {
        let told = Arc::clone(&told);
        async move {
            let Some(head) = client.request().await else { return };
            // So that its own system is not what takes it.
            socket2::SockRef::from(&client.0).set_send_buffer_size(16 * 1024).unwrap();
            let piece = "x".repeat(PIECE);
            let (answer, piece) = match head.split(' ').nth(1).unwrap() {
                "/events" => {
                    let event = format!("data: {piece}\n\n");
                    let head =
                        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                    (head, format!("{:x}\r\n{event}\r\n", event.len()).into_bytes())
                }
                "/download" => ("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", piece.into_bytes()),
                _ => (
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                    [b"\x82\x7e\x10\x00", piece.as_bytes()].concat(),
                ),
            };
            client.send(answer).await;
            while let Ok(written) = client.0.write(&piece).await {
                told.fetch_add(written as u64, Ordering::Relaxed);
            }
        }
    })
    .await
}

/// A reader of little, and then of nothing. Its own system holds little for it.
async fn reader(address: SocketAddr, path: &str) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = Raw(within(socket.connect(address)).await.unwrap());
    let upgrade = match path {
        "/socket" => {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
        _ => "",
    };
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n")).await;
    let mut some = [0; 512];
    within(client.0.read_exact(&mut some)).await.unwrap();
    client
}

/// Streams of one connection whose windows let through what they let through.
async fn http2_readers(address: SocketAddr, count: usize) -> (client::SendRequest<Bytes>, Vec<RecvStream>) {
    let mut client = http2(address).await;
    let mut streams = Vec::new();
    for _ in 0..count {
        client = within(client.ready()).await.unwrap();
        let (answer, _) = client.send_request(get("/download"), true).unwrap();
        streams.push(within(answer).await.unwrap().into_body());
    }
    (client, streams)
}

pub fn resident(server: &Server) -> usize {
    let pages = std::fs::read_to_string(format!("/proc/{}/statm", server.pid())).unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Waits until endpoints get rid of nothing more.
async fn all_stand_still(told: &AtomicU64) {
    let mut before = u64::MAX;
    let mut still = 0;
    while still < 4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let now = told.load(Ordering::Relaxed);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
}

fn write_objects(folder: &Path, endpoint: SocketAddr) {
    let objects = format!(
        "apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: a, namespace: a}}\nspec:\n  rules:\n\
         \x20   - backends: [{{upstream: {{name: a}}}}]\n      timeouts: {{stall: 10m, idle: 10m}}\n---\n\
         apiVersion: floodway.dev/v1alpha1\nkind: ProxyUpstream\nmetadata: {{name: a, namespace: a}}\n\
         spec: {{endpoints: [{{address: \"{endpoint}\"}}]}}\n"
    );
    std::fs::write(folder.join("a.yaml"), objects).unwrap();
}

#[tokio::test]
async fn slow_readers_hold_no_more_than_is_set() {
    let each = EACH * Scale::asked().scale;
    room_for(each * 7 + 500);
    let told = Arc::new(AtomicU64::new(0));
    let folder = tempfile::tempdir().unwrap();
    write_objects(folder.path(), teller(Arc::clone(&told)).await);
    for room in [16 * 1024, Settings::default().limits.stream_buffer_bytes] {
        let server = Server::start(folder.path(), &["--stream-buffer-bytes", &room.to_string(), "--access-log", "off"]);
        // What the first streams bring along, the others do not.
        drop((reader(server.http, "/events").await, http2_readers(server.http, 1).await));
        let (mut readers, mut streams) = (Vec::new(), Vec::new());
        for path in ["/events", "/download", "/socket", "HTTP/2"] {
            let (held, told_before) = (resident(&server), told.load(Ordering::Relaxed));
            if path == "HTTP/2" {
                for begun in (0..each).step_by(100) {
                    streams.push(http2_readers(server.http, 100.min(each - begun)).await);
                }
            } else {
                for _ in 0..each {
                    readers.push(reader(server.http, path).await);
                }
            }
            all_stand_still(&told).await;
            let grown = resident(&server).saturating_sub(held) / each;
            let taken = (told.load(Ordering::Relaxed) - told_before) as usize / each;
            println!("{room}: {each} slow readers of {path} hold {grown} bytes each, of {taken} that endpoints told");
            assert!(grown <= room + BESIDE, "{path}: {grown} bytes for each with a bound of {room}");
            assert!(taken <= 4 * room + SOCKETS, "{path}: {taken} bytes for each with a bound of {room}");
        }
        assert!(server.admin("/metrics").1.contains("floodway_active_streams"), "it still answers");
    }
}
