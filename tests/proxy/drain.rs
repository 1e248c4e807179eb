//! Going away: what runs may finish, what waits is closed, what is left at the deadline is cut.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::clients::*;
use super::support::*;

const LONG: Duration = Duration::from_secs(600);
/// Waits until the addresses are no longer listened on.
async fn refused(plane: &Plane) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
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
        // In the middle of an event there is no polite end.
        endpoint.send("5\r\ndata:\r\n").await;
        client.until(if version == "1.1" { "5\r\ndata:\r\n" } else { "data:" }).await;
        clients.push(client);
        endpoints.push(endpoint);
    }
    let stream = TcpStream::connect(plane.address).await.unwrap();
    let opening = tokio::spawn(tokio_tungstenite::client_async("ws://a/socket", stream));
    let endpoint = arrivals.next().await;
    let endpoint = tokio_tungstenite::accept_async(endpoint.0).await.unwrap();
    let (socket, _) = opening.await.unwrap().unwrap();
    // Nor in the middle of a frame.
    let (mut endpoint, mut socket) = (Raw(endpoint.into_inner()), Raw(socket.into_inner()));
    endpoint.send(b"\x82\x05he").await;
    socket.until("\u{5}he").await;
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
    two.send("5\r\ndata:\r\n").await;
    assert_eq!(piece(&mut body).await.unwrap().unwrap(), "data:", "it still runs");
    // The second signal.
    plane.drain.begin(Duration::from_millis(50));
    let [mut chunked, mut bare] = clients.try_into().unwrap_or_else(|_| panic!());
    assert_eq!(chunked.to_end().await, "", "no last chunk");
    assert!(bare.closed().await, "a close alone would look like the end");
    assert!(socket.rest().await.bytes.is_empty(), "cut");
    assert!(piece(&mut body).await.unwrap().is_err(), "cut");
    assert_eq!(silent.to_end().await, "");
    for endpoint in &mut endpoints {
        endpoint.closed().await;
    }
    two.closed().await;
    unanswered.closed().await;
    endpoint.rest().await;
    for (path, count) in [("/events", 2), ("/socket", 1), ("/two", 1), ("/silent", 1)] {
        for line in plane.logged_times(path, count).await {
            assert_eq!((&line["end"], &line["reason"]), (&"drained".into(), &"draining".into()), "{line}");
        }
    }
    for (kind, count) in [("sse", 3.0), ("websocket", 1.0)] {
        let labels = format!("kind=\"{kind}\",outcome=\"cut\"");
        assert_eq!(plane.metric("floodway_drained_streams_total", &labels), count, "{labels}");
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
    // What the client still says may cross our close, which makes it a reset.
    let ended = within(waiting).await.unwrap();
    assert!(ended.as_ref().map_or_else(h2::Error::is_io, |()| true), "{ended:?}");
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

#[tokio::test]
async fn streams_are_ended_politely_one_after_the_other_and_idle_ones_first() {
    const EACH: usize = 16;
    let grace = Duration::from_secs(4);
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..EACH {
        idle.push(event_stream(&plane, &mut arrivals).await);
        busy.push(event_stream(&plane, &mut arrivals).await);
    }
    for (client, endpoint) in &mut busy {
        tell(endpoint, client).await;
    }
    // One whose head is still awaited when the drain begins.
    let mut late = plane.connect().await;
    late.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut answering, _) = arrivals.request().await;

    let begun = Instant::now();
    plane.drain.begin(grace);
    refused(&plane).await;
    answering.send(EVENTS).await;
    assert!(late.head().await.contains("\r\nconnection: close\r\n"));
    let ends = |(mut client, endpoint): (Raw, Raw)| {
        tokio::spawn(async move {
            let _endpoint = endpoint;
            assert_eq!(client.until("0\r\n\r\n").await, "0\r\n\r\n");
            begun.elapsed()
        })
    };
    let idle: Vec<_> = idle.into_iter().map(ends).collect();
    let busy: Vec<_> = busy.into_iter().map(ends).collect();
    let mut means = Vec::new();
    let mut all = Vec::new();
    for streams in [idle, busy] {
        let mut sum = Duration::ZERO;
        for stream in streams {
            let after = within(stream).await.unwrap();
            sum += after;
            all.push(after);
        }
        means.push(sum / EACH as u32);
    }
    assert!(means[0] < means[1], "idle ones first: {means:?}");
    all.sort_unstable();
    assert!(all[0] < grace / 4 && all[2 * EACH - 1] > grace / 2 && all[EACH] > grace / 8, "spread: {all:?}");
    assert_eq!(late.to_end().await, "0\r\n\r\n");
    drop(answering);
    let labels = "kind=\"sse\",outcome=\"polite\"";
    plane.metric_becomes("floodway_drained_streams_total", labels, 2.0 * EACH as f64 + 1.0).await;
    for line in plane.logged_times("/stream", 2 * EACH).await {
        assert_eq!((&line["end"], &line["reason"]), (&"drained".into(), &"draining".into()), "{line}");
    }
    assert!(begun.elapsed() < grace, "nothing waits for the deadline");
    within(plane.ended()).await;
}

#[tokio::test]
async fn a_second_signal_brings_the_polite_ends_forward() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(event_stream(&plane, &mut arrivals).await);
    }
    plane.drain.begin(LONG);
    refused(&plane).await;
    plane.drain.begin(Duration::from_secs(4));
    for (client, _) in &mut streams {
        assert_eq!(client.until("0\r\n\r\n").await, "0\r\n\r\n");
    }
    plane.metric_becomes("floodway_drained_streams_total", "outcome=\"polite\"", 8.0).await;
    within(plane.ended()).await;
}

#[tokio::test]
async fn streams_that_end_by_themselves_are_counted_as_such() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let (mut client, mut endpoint) = event_stream(&plane, &mut arrivals).await;
    let (leaving, _held) = event_stream(&plane, &mut arrivals).await;
    plane.drain.begin(LONG);
    refused(&plane).await;
    endpoint.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    drop(leaving);
    plane.metric_becomes("floodway_drained_streams_total", "kind=\"sse\",outcome=\"ended\"", 2.0).await;
    within(plane.ended()).await;
}
