//! Server-Sent Events: each event leaves when it came, for as long as events come.

use std::time::Duration;

use floodway::snapshot::{Action, Protocol, Snapshot};
use http::Version;

use super::clients::{get, http2, piece};
use super::support::*;

pub const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n";

pub fn event(number: u32) -> String {
    format!("id: {number}\nevent: tick\ndata: number {number}\n\n")
}

pub fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Everything goes to `endpoint`; silence ends an exchange after `idle`.
pub fn with_idle(endpoint: std::net::SocketAddr, idle: Duration) -> Snapshot {
    let mut route = forward("", "backend");
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    action.timeouts.idle = idle;
    snapshot(vec![route], vec![cluster("backend", Protocol::Http1, &[endpoint])])
}

#[tokio::test]
async fn chunked_events_leave_one_by_one_over_http1() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nLast-Event-ID: 41\r\n\r\n").await;
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.contains("\r\nlast-event-id: 41\r\n") && head.contains("\r\naccept: text/event-stream\r\n"), "{head}");

    endpoint.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
    let head = client.head().await;
    assert!(head.contains("\r\ncontent-type: text/event-stream\r\n"), "{head}");
    assert!(head.contains("\r\ntransfer-encoding: chunked\r\n") && !head.contains("content-length"), "{head}");
    plane.metric_becomes("floodway_active_streams", "sse", 1.0).await;
    for number in 0..100 {
        // The next event is not sent before this one has arrived: whatever held it back would hang here.
        endpoint.send(chunk(&event(number))).await;
        assert_eq!(client.until("\n\n\r\n").await, chunk(&event(number)));
    }
    // Pieces that are no whole events are not held back, either.
    for part in ["d", "ata: x", "\n", "\n"] {
        endpoint.send(chunk(part)).await;
        assert_eq!(client.until(&chunk(part)).await, chunk(part));
    }
    endpoint.send("0\r\n\r\n").await;
    assert_eq!(client.until("0\r\n\r\n").await, "0\r\n\r\n");
    // Both connections are fit for more.
    client.send("GET /more HTTP/1.1\r\nHost: a\r\n\r\n").await;
    endpoint.head().await;
    let line = plane.logged("/events").await;
    assert_eq!((&line["kind"], &line["end"], &line["status"]), (&"sse".into(), &"complete".into(), &200.into()));
    plane.metric_becomes("floodway_active_streams", "sse", 0.0).await;
}

#[tokio::test]
async fn events_delimited_by_close_become_chunks_and_a_clean_end() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{EVENTS}\r\n")).await;
    assert!(client.head().await.contains("\r\ntransfer-encoding: chunked\r\n"));
    for number in 0..20 {
        endpoint.send(event(number)).await;
        assert_eq!(client.until("\n\n\r\n").await, chunk(&event(number)));
    }
    drop(endpoint);
    assert_eq!(client.until("0\r\n\r\n").await, "0\r\n\r\n");
    assert_eq!(plane.logged("/events").await["end"], "complete");
    client.send("GET /more HTTP/1.1\r\nHost: a\r\n\r\n").await;
    arrivals.request().await;
}

#[tokio::test]
async fn an_http10_client_gets_bare_events_until_the_close() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send("GET /events HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
    let head = client.head().await;
    assert!(!head.contains("transfer-encoding") && head.contains("\r\nconnection: close\r\n"), "{head}");
    for number in 0..20 {
        endpoint.send(chunk(&event(number))).await;
        assert_eq!(client.until("\n\n").await, event(number));
    }
    endpoint.send("0\r\n\r\n").await;
    assert!(!client.closed().await, "a clean end");
    let line = plane.logged("/events").await;
    assert_eq!((&line["protocol"], &line["end"]), (&"HTTP/1.0".into(), &"complete".into()));
}

#[tokio::test]
async fn events_leave_one_by_one_over_http2() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = http2(plane.address).await;
    let mut request = get("/events");
    request.headers_mut().insert("last-event-id", "41".parse().unwrap());
    let (answer, _) = client.send_request(request, true).unwrap();
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.contains("\r\nlast-event-id: 41\r\n"), "{head}");
    endpoint.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
    let answer = within(answer).await.unwrap();
    assert_eq!(
        (answer.version(), answer.headers()["content-type"].as_bytes()),
        (Version::HTTP_2, &b"text/event-stream"[..])
    );
    let mut body = answer.into_body();
    for number in 0..100 {
        endpoint.send(chunk(&event(number))).await;
        assert_eq!(piece(&mut body).await.unwrap().unwrap(), event(number));
    }
    endpoint.send("0\r\n\r\n").await;
    assert!(piece(&mut body).await.is_none());
    let line = plane.logged("/events").await;
    assert_eq!((&line["kind"], &line["end"], &line["protocol"]), (&"sse".into(), &"complete".into(), &"HTTP/2".into()));
    assert_eq!(line["bytes_sent"], (0..100).map(|number| event(number).len()).sum::<usize>());
}

#[tokio::test]
async fn events_keep_a_stream_open_and_silence_ends_it() {
    let idle = Duration::from_millis(600);
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(with_idle(address, idle));
    let mut first = plane.connect().await;
    first.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut second = http2(plane.address).await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
    first.head().await;
    let (answer, _) = second.send_request(get("/two"), true).unwrap();
    let (mut other, _) = arrivals.request().await;
    other.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
    let mut body = within(answer).await.unwrap().into_body();

    let started = tokio::time::Instant::now();
    let mut number = 0;
    while started.elapsed() < 3 * idle {
        endpoint.send(chunk(&event(number))).await;
        assert_eq!(first.until("\n\n\r\n").await, chunk(&event(number)));
        other.send(chunk(&event(number))).await;
        assert_eq!(piece(&mut body).await.unwrap().unwrap(), event(number));
        number += 1;
        // Time has to pass here; it is what the test is about.
        tokio::time::sleep(idle / 20).await;
    }
    first.closed().await;
    assert!(piece(&mut body).await.unwrap().is_err(), "cut, not ended");
    // The endpoints learn of it.
    endpoint.closed().await;
    other.closed().await;
    for (path, end) in [("/one", "idle"), ("/two", "idle")] {
        let line = plane.logged(path).await;
        assert_eq!((&line["kind"], &line["end"], &line["reason"]), (&"sse".into(), &end.into(), &"idle".into()));
    }
}
