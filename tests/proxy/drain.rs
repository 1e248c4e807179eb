//! Going away: what runs may finish, what waits is closed, what is left at the deadline is cut.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::net::TcpStream;

use super::clients::*;
use super::support::*;

const LONG: Duration = Duration::from_secs(600);
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Waits until the addresses are no longer listened on.
async fn refused(plane: &Plane) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(plane.address).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it still accepts");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_runs_finishes_and_what_waits_is_closed() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut idle = plane.connect().await;
    idle.send("GET /idle HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut first, _) = arrivals.request().await;
    first.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(!idle.head().await.contains("connection: close"));

    let mut waiting = plane.connect().await;
    waiting.send("GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request_on(Some(first)).await;
    let mut uploading = plane.connect().await;
    uploading.send("POST /uploading HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    let (mut receiving, _) = arrivals.request().await;
    receiving.until("hello").await;
    let mut streaming = plane.connect().await;
    streaming.send("GET /streaming HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut events, _) = arrivals.request().await;
    events.send(EVENTS).await;
    streaming.head().await;

    plane.drain.begin(LONG);
    assert!(!idle.closed().await, "an end, not a reset");
    refused(&plane).await;
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let answer = waiting.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    uploading.send("world").await;
    receiving.until("world").await;
    receiving.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(uploading.to_end().await.contains("\r\nconnection: close\r\n"));
    for _ in 0..10 {
        events.send("3\r\n:x\n\r\n").await;
        streaming.until("3\r\n:x\n\r\n").await;
    }
    events.send("0\r\n\r\n").await;
    assert_eq!(streaming.to_end().await, "0\r\n\r\n");
    for path in ["/waiting", "/uploading", "/streaming"] {
        assert_eq!(plane.logged(path).await["end"], "complete");
    }
    within(plane.ended()).await;
}

#[tokio::test]
async fn what_is_left_at_the_deadline_is_cut() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut clients = Vec::new();
    let mut endpoints = Vec::new();
    for version in ["1.1", "1.0"] {
        let mut client = plane.connect().await;
        client.send(format!("GET /events HTTP/{version}\r\nHost: a\r\n\r\n")).await;
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(EVENTS).await;
        client.head().await;
        clients.push(client);
        endpoints.push(endpoint);
    }
    let stream = TcpStream::connect(plane.address).await.unwrap();
    let opening = tokio::spawn(tokio_tungstenite::client_async("ws://a/socket", stream));
    let endpoint = arrivals.next().await;
    let mut endpoint = tokio_tungstenite::accept_async(endpoint.0).await.unwrap();
    let (mut socket, _) = opening.await.unwrap().unwrap();
    let mut client = http2(plane.address).await;
    let (answer, _) = client.send_request(get("/two"), true).unwrap();
    let (mut two, _) = arrivals.request().await;
    two.send(EVENTS).await;
    let mut body = within(answer).await.unwrap().into_body();
    let mut silent = plane.connect().await;
    silent.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut unanswered, _) = arrivals.request().await;

    plane.drain.begin(LONG);
    refused(&plane).await;
    two.send("3\r\n:x\n\r\n").await;
    assert_eq!(piece(&mut body).await.unwrap().unwrap(), ":x\n", "it still runs");
    // The second signal.
    plane.drain.begin(Duration::from_millis(50));
    let [mut chunked, mut bare] = clients.try_into().unwrap_or_else(|_| panic!());
    assert_eq!(chunked.to_end().await, "", "no last chunk");
    assert!(bare.closed().await, "a close alone would look like the end");
    assert!(!matches!(within(socket.next()).await, Some(Ok(_))), "cut");
    assert!(piece(&mut body).await.unwrap().is_err(), "cut");
    assert_eq!(silent.to_end().await, "");
    for endpoint in &mut endpoints {
        endpoint.closed().await;
    }
    two.closed().await;
    unanswered.closed().await;
    assert!(!matches!(within(endpoint.next()).await, Some(Ok(_))), "cut");
    for (path, count) in [("/events", 2), ("/socket", 1), ("/two", 1), ("/silent", 1)] {
        for line in plane.logged_times(path, count).await {
            assert_eq!((&line["end"], &line["reason"]), (&"drained".into(), &"draining".into()), "{line}");
        }
    }
    within(plane.ended()).await;
}

#[tokio::test]
async fn http2_connections_say_goaway_and_finish_their_streams() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let idle = TcpStream::connect(plane.address).await.unwrap();
    let (_idle, waiting) = h2::client::handshake(idle).await.unwrap();
    let waiting = tokio::spawn(waiting);
    let stream = TcpStream::connect(plane.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let (answer, _) = client.send_request(get("/running"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(EVENTS).await;
    let mut body = within(answer).await.unwrap().into_body();
    let (pending, _) = client.send_request(get("/pending"), true).unwrap();
    let (mut other, _) = arrivals.request().await;

    plane.drain.begin(LONG);
    within(waiting).await.unwrap().unwrap();
    // GOAWAY is there once the client takes no more requests.
    eventually("GOAWAY", || {
        let mut ready = Box::pin(client.clone().ready());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        matches!(ready.as_mut().poll(&mut cx), std::task::Poll::Ready(Err(error)) if error.is_go_away())
    })
    .await;
    for _ in 0..10 {
        endpoint.send("3\r\n:x\n\r\n").await;
        assert_eq!(piece(&mut body).await.unwrap().unwrap(), ":x\n");
    }
    other.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within(pending).await.unwrap().status(), 204);
    endpoint.send("0\r\n\r\n").await;
    assert!(piece(&mut body).await.is_none());
    drop((client, body));
    let _ = within(connection).await.unwrap();
    assert_eq!(plane.logged("/running").await["end"], "complete");
    within(plane.ended()).await;
}
