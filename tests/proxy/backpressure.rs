//! Whoever does not read stops whoever writes, and loses nothing by it.

use floodway::snapshot::Protocol;
use tokio::io::AsyncReadExt as _;

use super::clients;
use super::support::*;

/// More than the buffers of the system and of the proxy together ever are.
const BOUND: usize = 64 << 20;
/// Longer than that.
const LENGTH: usize = 1 << 30;

/// Reads `count` bytes.
async fn read(reader: &mut Raw, mut count: usize) {
    let mut buffer = vec![0; 256 * 1024];
    while count > 0 {
        let room = buffer.len().min(count);
        let read = within(reader.0.read(&mut buffer[..room])).await.unwrap();
        assert!(read > 0, "ended, {count} bytes early");
        count -= read;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_endpoint() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    client.head().await;
    let written = fill(&mut endpoint).await;
    assert!(written < BOUND, "{written}");
    read(&mut client, written).await;
    let more = fill(&mut endpoint).await;
    assert!((1..BOUND).contains(&more), "it goes on: {more}");
}

#[tokio::test]
async fn an_endpoint_that_does_not_read_stops_the_client() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let (mut endpoint, _) = arrivals.request().await;
    let written = fill(&mut client).await;
    assert!(written < BOUND, "{written}");
    read(&mut endpoint, written).await;
    let more = fill(&mut client).await;
    assert!((1..BOUND).contains(&more), "it goes on: {more}");
}

#[tokio::test]
async fn an_http2_endpoint_that_gives_no_room_stops_the_client() {
    let address = clients::http2_backend(|request, answer| async move {
        // Holds on to the request and takes nothing of it.
        let _held = (request, answer);
        std::future::pending::<()>().await;
    });
    let backends = cluster("backend", Protocol::Http2, &[address.await]);
    let plane = Plane::start(snapshot(vec![forward("", "backend")], vec![backends]));
    let mut client = plane.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let written = fill(&mut client).await;
    assert!(written < BOUND, "{written}");
    // Others pass on the same connection.
    let mut other = plane.connect().await;
    other.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    assert!(fill(&mut other).await > 0);
}
