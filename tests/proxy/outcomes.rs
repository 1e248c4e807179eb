//! What is made of each way in which an attempt at an endpoint can end, as the endpoint's circuit breaker counts it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floodway::resilience::breaker::Totals;
use floodway::snapshot::{
    Action, BreakerMode, BreakerWait, BreakerWindow, CircuitBreaker, Cluster, Failures, Protocol, Resilience, Snapshot,
};
use http::{HeaderMap, HeaderValue, Request};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::clients::{ask, content, get, http2, http2_backend, piece};
use super::endpoints::{Then, saying, unreachable};
use super::support::*;
use super::websocket::tunnel;
use super::websocket_bytes::{CLOSE, END, close, frame};

/// What makes a call slow here.
const SLOW: Duration = Duration::from_millis(200);

/// A breaker that judges by the last few calls; the wait is short, and as long as it says.
pub fn breaker(mode: BreakerMode, calls: u32, wait: Duration) -> CircuitBreaker {
    CircuitBreaker {
        mode,
        window: BreakerWindow::Calls(calls),
        minimum_calls: calls,
        failure_rate_percent: 50,
        slow_call_rate_percent: 100,
        slow_call_duration: SLOW,
        wait: BreakerWait { first: wait, growth_percent: 100, most: wait, jitter_percent: 0 },
        permitted_in_half_open: 2,
        half_open_limit: None,
        failures: Failures { statuses: vec![(500, 599)], cut: true },
    }
}

fn counting(endpoint: SocketAddr, protocol: Protocol) -> Cluster {
    let counting = breaker(BreakerMode::MetricsOnly, 100, Duration::from_secs(60));
    let resilience = Resilience { endpoint_circuit_breaker: Some(counting), ..Resilience::default() };
    Cluster { resilience: Arc::new(resilience), ..cluster("backend", protocol, &[endpoint]) }
}

/// Everything goes to the endpoint, whose answers may take 400 ms to begin.
fn table(endpoint: SocketAddr, protocol: Protocol) -> Snapshot {
    let mut route = forward("", "backend");
    if let Action::Forward(action) = &mut route.action {
        action.timeouts.response_head = 2 * SLOW;
        action.timeouts.connect = Some(2 * SLOW);
    }
    snapshot(vec![route], vec![counting(endpoint, protocol)])
}

/// Waits until so many calls were counted, so many of which failed, and so many were slow.
async fn counted(plane: &Plane, what: &str, calls: u32, failed: u32, slow: u32) {
    let table = plane.publisher.current().unwrap();
    let cluster = table.clusters.values().next().unwrap();
    let endpoint = plane.registry.of(cluster, floodway::clock::now()).remove(0);
    let totals = || endpoint.breaker().circuit().unwrap().look(floodway::clock::now()).totals;
    let expected = Totals { calls, failed, slow };
    let deadline = Instant::now() + PATIENCE;
    while totals() != expected {
        assert!(Instant::now() < deadline, "{what}: {:?} instead of {expected:?}", totals());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn answers_and_their_absence() {
    let closed = refusing();
    let (full, _held) = unreachable().await;
    let cut_off = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let no_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n";
    for (what, endpoint, calls, failed, slow) in [
        ("a good answer", saying(OK, Then::Goes).await, 1, 0, 0),
        ("an empty answer", saying("HTTP/1.1 204 No Content\r\n\r\n", Then::Goes).await, 1, 0, 0),
        ("404", saying("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Then::Goes).await, 1, 0, 0),
        ("500", saying("HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n", Then::Goes).await, 1, 1, 0),
        ("refused", closed, 1, 1, 0),
        ("no connection in time", full, 1, 1, 1),
        ("closed before the head", saying("", Then::Closes).await, 1, 1, 0),
        ("reset before the head", saying("", Then::Resets).await, 1, 1, 0),
        ("half a head", saying("HTTP/1.1 200 OK\r\nContent-", Then::Closes).await, 1, 1, 0),
        ("no HTTP", saying("220 hello.example ESMTP\r\n\r\n", Then::Stays).await, 1, 1, 0),
        ("no head in time", saying("", Then::Stays).await, 1, 1, 1),
        ("content cut off", saying(cut_off, Then::Closes).await, 2, 1, 0),
        ("content reset", saying(chunked, Then::Resets).await, 2, 1, 0),
        ("a wrong length of a chunk", saying(no_chunk, Then::Stays).await, 2, 1, 0),
        ("no content at all", saying(&cut_off[..cut_off.len() - 5], Then::Closes).await, 1, 1, 0),
    ] {
        let plane = Plane::start(table(endpoint, Protocol::Http1));
        plane.exchange(GET).await;
        counted(&plane, what, calls, failed, slow).await;
    }
}

#[tokio::test]
async fn slow_is_measured_to_the_first_byte() {
    let (endpoint, mut arrivals) = played().await;
    let plane = Plane::start(table(endpoint, Protocol::Http1));
    let mut client = plane.connect().await;
    client.send(GET).await;
    let (mut slow, _) = arrivals.request().await;
    tokio::time::sleep(SLOW + Duration::from_millis(20)).await;
    slow.send(OK).await;
    client.to_end().await;
    counted(&plane, "a slow answer", 1, 0, 1).await;

    // The head comes at once, and the end late: neither counts.
    let mut client = plane.connect().await;
    client.send(GET).await;
    let (mut long, _) = arrivals.request_on(Some(slow)).await;
    long.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
    counted(&plane, "a long answer, as it begins", 2, 0, 1).await;
    tokio::time::sleep(SLOW + Duration::from_millis(20)).await;
    long.send("k").await;
    client.to_end().await;
    counted(&plane, "a long answer, as it ends", 2, 0, 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_says_nothing_of_the_endpoint() {
    let (endpoint, mut arrivals) = played().await;
    let plane = Plane::start(table(endpoint, Protocol::Http1));
    let mut client = plane.connect().await;
    client.send("GET /before HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (_before, _) = arrivals.request().await;
    client.reset();
    plane.logged("/before").await;
    counted(&plane, "it left before the head", 0, 0, 0).await;

    let mut client = plane.connect().await;
    client.send("GET /in HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut within, _) = arrivals.request().await;
    within.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
    client.until("hello").await;
    client.reset();
    plane.logged("/in").await;
    counted(&plane, "it left in the content", 1, 0, 0).await;

    let (client, _endpoint) = event_stream(&plane, &mut arrivals).await;
    client.reset();
    plane.logged("/stream").await;
    counted(&plane, "it left a stream", 2, 0, 0).await;
}

#[tokio::test]
async fn streams_are_judged_as_they_begin_and_again_if_they_are_cut() {
    let (endpoint, mut arrivals) = played().await;
    let plane = Plane::start(table(endpoint, Protocol::Http1));
    let (mut client, mut endpoint) = event_stream(&plane, &mut arrivals).await;
    counted(&plane, "a stream that runs", 1, 0, 0).await;
    endpoint.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    counted(&plane, "a stream that ended", 1, 0, 0).await;

    drop((client, endpoint));
    let (mut client, endpoint) = event_stream(&plane, &mut arrivals).await;
    endpoint.reset();
    client.to_end().await;
    counted(&plane, "a stream that was cut", 3, 1, 0).await;
}

#[tokio::test]
async fn a_clean_close_of_a_websocket_is_a_success() {
    let (endpoint, mut arrivals) = played().await;
    let plane = Plane::start(table(endpoint, Protocol::Http1));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    endpoint.send(frame(END | CLOSE, false, &close(1000, ""))).await;
    client.send(frame(END | CLOSE, true, &close(1000, ""))).await;
    drop(endpoint);
    client.to_end().await;
    drop(client);
    plane.logged("/socket").await;
    counted(&plane, "a clean close", 1, 0, 0).await;

    // The client goes without a word.
    let (client, _endpoint) = tunnel(&plane, &mut arrivals).await;
    client.reset();
    plane.logged_times("/socket", 2).await;
    counted(&plane, "a client that leaves", 2, 0, 0).await;

    // The endpoint does.
    let (mut client, endpoint) = tunnel(&plane, &mut arrivals).await;
    endpoint.reset();
    client.to_end().await;
    counted(&plane, "an endpoint that breaks off", 4, 1, 0).await;

    let mut refused = plane.connect().await;
    refused.send("GET /no HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n").await;
    refused.head().await;
    counted(&plane, "a handshake that fails", 5, 2, 0).await;
}

fn call(path: &str) -> Request<()> {
    let mut request = get(path);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request
}

/// Answers calls by their path: `/head-N` with a status in the head, `/bare-N` with one in the trailers and no message, `/late-N` with one
/// after a message.
async fn grpc(goes_on: Arc<Notify>) -> SocketAddr {
    http2_backend(move |request, mut answer| {
        let goes_on = Arc::clone(&goes_on);
        async move {
            let (way, status) = request.uri().path()[1..].split_once('-').unwrap();
            let status: HeaderValue = status.parse().unwrap();
            let mut response = http::Response::new(());
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            if way == "head" {
                response.headers_mut().insert("grpc-status", status);
                answer.send_response(response, true).unwrap();
                return;
            }
            let mut stream = answer.send_response(response, false).unwrap();
            if way == "late" {
                stream.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), false).unwrap();
                goes_on.notified().await;
            }
            stream.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), status)])).unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn statuses_of_grpc_count_wherever_they_are() {
    for (path, calls, failed) in [
        ("/head-0", 1, 0),
        ("/head-5", 1, 0),
        ("/head-14", 1, 1),
        ("/head-13", 1, 1),
        ("/bare-0", 1, 0),
        ("/bare-14", 1, 1),
        ("/bare-7", 1, 0),
        ("/late-0", 1, 0),
        ("/late-14", 2, 1),
        ("/late-1", 1, 0),
    ] {
        let goes_on = Arc::new(Notify::new());
        let plane = Plane::start(table(grpc(Arc::clone(&goes_on)).await, Protocol::Http2));
        let client = http2(plane.address).await;
        let mut answer = ask(&client, call(path)).await;
        if path.starts_with("/late") {
            piece(answer.body_mut()).await.unwrap().unwrap();
            goes_on.notify_one();
        }
        content(answer.body_mut()).await.unwrap();
        counted(&plane, path, calls, failed, 0).await;
    }
}
