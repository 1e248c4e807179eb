//! Limits of an upstream: no more in use than there may be, whichever worker a request is on; who waits is served in turn, and
//! everything is given back however it ends.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use floodway::snapshot::{Limits, Protocol, Resilience, RetryBudget, Snapshot};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Response;
use tokio::sync::Semaphore;

use super::clients::*;
use super::retries::{eager, retrying_by};
use super::support::*;

const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

fn limited(protocol: Protocol, endpoints: &[SocketAddr], limits: Limits) -> Snapshot {
    let mut backend = cluster("backend", protocol, endpoints);
    backend.resilience = Arc::new(Resilience { limits: Some(limits), ..Resilience::default() });
    snapshot(vec![forward("", "backend")], vec![backend])
}

/// A plane of four workers before one played endpoint.
async fn plane(limits: Limits) -> (Plane, Arrivals) {
    let (address, arrivals) = played().await;
    (Plane::with_workers(4, limited(Protocol::Http1, &[address], limits), |_| {}), arrivals)
}

fn requests(limit: u32) -> Limits {
    Limits { requests: Some(limit), ..Limits::NONE }
}

async fn ask_for(plane: &Plane, path: &str) -> Raw {
    let mut client = plane.connect().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    client
}

async fn pending(plane: &Plane, limit: &str, count: f64) {
    plane.metric_becomes("floodway_upstream_pending", limit, count).await;
}

/// Nothing is in use any more, and nobody waits; unused connections may stay open.
async fn all_is_given_back(plane: &Plane) {
    pending(plane, "", 0.0).await;
    for limit in ["requests", "streams"] {
        plane.metric_becomes("floodway_upstream_active", limit, 0.0).await;
    }
    eventually("nothing in flight", || plane.in_flight() == 0).await;
}

fn is_refused(answer: &str, reason: &str) {
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains(&format!("\r\nx-floodway-reason: {reason}\r\n")), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
}

#[tokio::test]
async fn a_request_over_the_limit_waits_for_its_turn() {
    let (plane, mut arrivals) = plane(requests(1)).await;
    let mut first = ask_for(&plane, "/1").await;
    let (mut endpoint, _) = arrivals.request().await;
    let mut waiting = Vec::new();
    for number in 2..6 {
        waiting.push(ask_for(&plane, &format!("/{number}")).await);
        pending(&plane, "requests", f64::from(number - 1)).await;
    }
    assert_eq!(plane.in_flight(), 1);
    endpoint.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    first.head().await;
    for (number, mut client) in (2..).zip(waiting) {
        let (mut endpoint, head) = arrivals.request().await;
        assert!(head.starts_with(&format!("GET /{number} ")), "in the order in which they came, not {head}");
        endpoint.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        assert!(client.to_end().await.starts_with("HTTP/1.1 204 "));
    }
    all_is_given_back(&plane).await;
}

#[tokio::test]
async fn no_more_wait_than_may_and_none_for_longer() {
    let timeout = Duration::from_millis(300);
    let (plane, mut arrivals) = plane(Limits { pending: 1, pending_timeout: timeout, ..requests(1) }).await;
    let _first = ask_for(&plane, "/1").await;
    let (_endpoint, _) = arrivals.request().await;
    let mut second = ask_for(&plane, "/2").await;
    pending(&plane, "requests", 1.0).await;
    is_refused(&ask_for(&plane, "/3").await.to_end().await, "upstream_overflow");
    is_refused(&second.to_end().await, "queue_timeout");
    assert_eq!(plane.metric("floodway_upstream_overflow_total", "requests"), 1.0);
    assert_eq!(plane.metric("floodway_upstream_queue_timeouts_total", "requests"), 1.0);
    let log = plane.logged("/2").await;
    assert_eq!((&log["reason"], &log["attempts"]), (&"queue_timeout".into(), &0.into()), "{log}");
}

#[tokio::test]
async fn with_nobody_allowed_to_wait_the_answer_is_immediate() {
    let (plane, mut arrivals) = plane(Limits { pending: 0, ..requests(1) }).await;
    let _first = ask_for(&plane, "/1").await;
    let (_endpoint, _) = arrivals.request().await;
    is_refused(&ask_for(&plane, "/2").await.to_end().await, "upstream_overflow");
}

#[tokio::test]
async fn who_leaves_while_waiting_makes_way() {
    let (plane, mut arrivals) = plane(requests(1)).await;
    let mut first = ask_for(&plane, "/1").await;
    let (mut endpoint, _) = arrivals.request().await;
    let second = ask_for(&plane, "/2").await;
    pending(&plane, "requests", 1.0).await;
    let mut third = ask_for(&plane, "/3").await;
    pending(&plane, "requests", 2.0).await;
    second.reset();
    pending(&plane, "requests", 1.0).await;
    assert_eq!(plane.logged("/2").await["reason"], "client_gone");
    endpoint.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    first.to_end().await;
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.starts_with("GET /3 "), "{head}");
    endpoint.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    assert!(third.to_end().await.starts_with("HTTP/1.1 204 "));
    all_is_given_back(&plane).await;
}

#[tokio::test]
async fn who_waits_does_so_under_the_clocks_of_its_route() {
    let (address, mut arrivals) = played().await;
    let mut backend = cluster("backend", Protocol::Http1, &[address]);
    backend.resilience = Arc::new(Resilience { limits: Some(requests(1)), ..Resilience::default() });
    let mut hasty = forward("/hasty", "backend");
    if let floodway::snapshot::Action::Forward(forward) = &mut hasty.action {
        forward.timeouts.request = Some(Duration::from_millis(100));
    }
    let plane = Plane::start(snapshot(vec![forward("", "backend"), hasty], vec![backend]));
    let _first = ask_for(&plane, "/1").await;
    let (_endpoint, _) = arrivals.request().await;
    let answer = ask_for(&plane, "/hasty").await.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("request_timeout"), "{answer}");
    pending(&plane, "requests", 0.0).await;
}

#[tokio::test]
async fn streams_count_by_themselves_however_they_are_recognised() {
    let limits = Limits { streams: Some(1), pending: 0, ..requests(1) };
    let (plane, mut arrivals) = plane(limits).await;
    // One that did not say that it would be one.
    let mut stream = ask_for(&plane, "/events").await;
    let (mut endpoint, _) = arrivals.request().await;
    plane.metric_becomes("floodway_upstream_active", "requests", 1.0).await;
    endpoint.send(EVENTS).await;
    tell(&mut endpoint, &mut stream).await;
    plane.metric_becomes("floodway_upstream_active", "requests", 0.0).await;
    assert_eq!(plane.metric("floodway_upstream_active", "streams"), 1.0);
    // No others, whether they say so or not.
    let mut socket = plane.connect().await;
    socket.send(UPGRADE).await;
    assert!(socket.head().await.contains("x-floodway-reason: upstream_overflow\r\n"));
    let mut events = plane.connect().await;
    events.send("GET /said HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n").await;
    assert!(events.head().await.contains("x-floodway-reason: upstream_overflow\r\n"));
    let mut unsaid = ask_for(&plane, "/unsaid").await;
    let (mut other, _) = arrivals.request().await;
    other.send(EVENTS).await;
    is_refused(&unsaid.to_end().await, "upstream_overflow");
    // An ordinary request has its place.
    let mut request = ask_for(&plane, "/").await;
    let (mut other, _) = arrivals.request().await;
    other.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    assert!(request.to_end().await.starts_with("HTTP/1.1 204 "));
    // A WebSocket, once there is room for it.
    stream.reset();
    plane.metric_becomes("floodway_upstream_active", "streams", 0.0).await;
    let mut socket = plane.connect().await;
    socket.send(UPGRADE).await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(SWITCH).await;
    socket.head().await;
    assert_eq!(plane.metric("floodway_upstream_active", "streams"), 1.0);
    endpoint.reset();
    all_is_given_back(&plane).await;
}

#[tokio::test]
async fn everything_is_given_back_however_it_ends() {
    let limits = Limits { connections: Some(1), streams: Some(1), pending: 10, ..requests(1) };
    let (plane, mut arrivals) = plane(limits).await;
    for round in 0..18 {
        let path = format!("/{round}");
        let mut client = ask_for(&plane, &path).await;
        let (mut endpoint, _) = arrivals.request().await;
        match round % 9 {
            0 => endpoint.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await,
            // The connection is kept, and is in the way of other workers.
            1 => endpoint.send(EMPTY).await,
            2 => client.reset(),
            3 => {
                endpoint.send(CHUNKED).await;
                client.until("hello\r\n").await;
                drop(client);
            }
            4 => endpoint.reset(),
            5 => {
                endpoint.send(CHUNKED).await;
                client.until("hello\r\n").await;
                endpoint.reset();
            }
            6 => endpoint.send("SSH-2.0-OpenSSH\r\n\r\n").await,
            7 => {
                endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").await;
                drop(endpoint);
            }
            _ => {
                endpoint.send(EVENTS).await;
                tell(&mut endpoint, &mut client).await;
                drop(client);
            }
        }
        // What is left of it must not keep the next one out: the test would hang.
        plane.logged(&path).await;
        all_is_given_back(&plane).await;
    }
    eventually("at most the kept connection", || plane.metric("floodway_upstream_active", "connections") <= 1.0).await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_keeps_no_place() {
    let limits = Limits { connections: Some(1), connections_per_endpoint: Some(1), pending: 0, ..requests(1) };
    let plane = Plane::with_workers(4, limited(Protocol::Http1, &[refusing()], limits), |_| {});
    for _ in 0..8 {
        let answer = ask_for(&plane, "/").await.to_end().await;
        assert!(!answer.contains("upstream_overflow"), "{answer}");
    }
    plane.metric_becomes("floodway_upstream_active", "", 0.0).await;
}

/// An endpoint that counts its connections; how many were open at most when a new one came.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let (open, most) = (Arc::new(Mutex::new(Vec::<socket2::Socket>::new())), Arc::default());
    let greatest: Arc<AtomicUsize> = Arc::clone(&most);
    let address = backend(move |mut client| {
        let mut open = open.lock().unwrap();
        // The kernel knows of an end that a busy runtime has not come to yet.
        open.retain(|known| !matches!(known.peek(&mut [MaybeUninit::uninit()]), Ok(0)));
        open.push(socket2::SockRef::from(&client.0).try_clone().unwrap());
        greatest.fetch_max(open.len(), Ordering::SeqCst);
        async move {
            while client.request().await.is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                client.send(EMPTY).await;
            }
        }
    });
    (address.await, most)
}

/// Clients that each ask many times, on connections of their own, so that every worker has some.
async fn crowd(plane: &Plane, clients: usize, times: usize) {
    let crowd: Vec<_> = (0..clients)
        .map(|_| {
            let address = plane.address;
            tokio::spawn(async move {
                for _ in 0..times {
                    let mut client = Raw(tokio::net::TcpStream::connect(address).await.unwrap());
                    for _ in 0..2 {
                        client.send("GET /crowd HTTP/1.1\r\nHost: a\r\n\r\n").await;
                        let head = client.head().await;
                        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
                    }
                }
            })
        })
        .collect();
    for client in crowd {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_few_connections_and_all_are_served() {
    let (endpoint, most) = counting().await;
    // Fewer than workers: unused ones must move.
    let patient = Duration::from_secs(60);
    let limits = Limits { connections: Some(3), pending_timeout: patient, ..Limits::NONE };
    let plane = Plane::with_workers(4, limited(Protocol::Http1, &[endpoint], limits), |_| {});
    crowd(&plane, 24, 10).await;
    // The kernel may bring a new connection a little before an end that came first, of each worker.
    assert!(most.load(Ordering::SeqCst) <= 3 + 4, "{most:?}");
    assert!(plane.metric("floodway_upstream_active", "connections") <= 3.0);
    all_is_given_back(&plane).await;
    assert_eq!(plane.metric("floodway_failures_total", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_endpoint_leaves_requests_to_others() {
    let (address, mut arrivals) = played().await;
    let (other, most) = counting().await;
    let limits = Limits { connections_per_endpoint: Some(1), pending_timeout: Duration::from_secs(60), ..Limits::NONE };
    let plane = Plane::with_workers(4, limited(Protocol::Http1, &[address, other], limits), |_| {});
    // Until the played endpoint has one, which it never answers.
    let mut held = Vec::new();
    let _busy = loop {
        let mut client = ask_for(&plane, "/held").await;
        tokio::select! {
            busy = arrivals.request() => {
                held.push(client);
                break busy;
            }
            head = client.head() => assert!(head.starts_with("HTTP/1.1 204 "), "{head}"),
        }
    };
    crowd(&plane, 12, 5).await;
    assert!(most.load(Ordering::SeqCst) <= 1 + 4, "{most:?}");
    assert!(plane.metric("floodway_upstream_active", "connections") <= 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_http2_connection_goes_from_worker_to_worker() {
    let backend = http2_backend(|_, mut respond| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        respond.send_response(Response::builder().status(204).body(()).unwrap(), true).unwrap();
    });
    let limits = Limits { connections: Some(1), pending_timeout: Duration::from_secs(60), ..Limits::NONE };
    let plane = Plane::with_workers(4, limited(Protocol::Http2, &[backend.await], limits), |_| {});
    crowd(&plane, 16, 5).await;
    assert!(plane.metric("floodway_upstream_active", "connections") <= 1.0);
    all_is_given_back(&plane).await;
    assert_eq!(plane.metric("floodway_failures_total", ""), 0.0);
}

#[tokio::test]
async fn a_new_limit_is_in_force_at_once() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(limited(Protocol::Http1, &[address], requests(1)));
    let _first = ask_for(&plane, "/1").await;
    let (_endpoint, _) = arrivals.request().await;
    let mut second = ask_for(&plane, "/2").await;
    pending(&plane, "requests", 1.0).await;
    plane.publisher.publish(limited(Protocol::Http1, &[address], requests(2)));
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.starts_with("GET /2 "), "{head}");
    endpoint.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    assert!(second.to_end().await.starts_with("HTTP/1.1 204 "));
}

/// Envoy's `max_retries`, but exact: four workers never have more retries under way than there may be.
#[tokio::test]
async fn no_more_retries_are_under_way_than_may_be() {
    let holding = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&holding);
    let endpoint = backend(move |mut client| {
        let held = Arc::clone(&held);
        async move {
            let again = client.head().await.contains("\r\nx-floodway-attempts: 2\r\n");
            if again {
                held.acquire().await.unwrap().forget();
            }
            let status = if again { "204 No Content" } else { "503 Busy\r\nContent-Length: 0" };
            client.send(format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n")).await;
        }
    });
    let mut backend = cluster("backend", Protocol::Http1, &[endpoint.await]);
    let limits = Some(Limits { retries: Some(2), ..Limits::NONE });
    let retry_budget = Some(RetryBudget { percent: 100, min_concurrent: 100 });
    backend.resilience = Arc::new(Resilience { limits, retry_budget, ..Resilience::default() });
    let plane = Plane::with_workers(4, retrying_by(backend, eager()), |_| {});

    let ask = async || ask_for(&plane, "/").await.to_end().await;
    let mut asking: FuturesUnordered<_> = (0..20).map(|_| ask()).collect();
    for _ in 0..18 {
        let answer = within(asking.next()).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nx-floodway-attempts: 1\r\n"), "{answer}");
    }
    assert_eq!(plane.metric("floodway_upstream_active", "retries"), 2.0);
    assert_eq!(plane.metric("floodway_upstream_limit", "retries"), 2.0);
    assert_eq!(plane.metric("floodway_upstream_retries_total", "outcome=\"over_limit\",reason=\"status\""), 18.0);
    holding.add_permits(3);
    while let Some(answer) = within(asking.next()).await {
        assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("\r\nx-floodway-attempts: 2\r\n"), "{answer}");
    }
    plane.metric_becomes("floodway_upstream_active", "retries", 0.0).await;
    assert!(ask().await.starts_with("HTTP/1.1 204 "), "what is over makes room");
    all_is_given_back(&plane).await;
}
