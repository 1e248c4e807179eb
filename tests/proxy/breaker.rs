//! Circuit breakers as clients see them: who is refused, what is answered instead, and who gets through again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::snapshot::{
    BreakerMode, CircuitBreaker, Cluster, Fallback, PathRewrite, Protocol, Redirect, Resilience, Respond, Snapshot,
};
use http::StatusCode;

use super::endpoints::{Then, Witness, saying};
use super::outcomes::breaker;
use super::support::*;

const WAIT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(3600);
const BAD: &str = "HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n";
const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn automatic(wait: Duration) -> CircuitBreaker {
    breaker(BreakerMode::Automatic, 4, wait)
}

fn guarded(name: &str, endpoints: &[SocketAddr], resilience: Resilience) -> Cluster {
    Cluster { resilience: Arc::new(resilience), ..cluster(name, Protocol::Http1, endpoints) }
}

fn one(endpoint: SocketAddr, circuit_breaker: CircuitBreaker) -> Snapshot {
    let resilience = Resilience { circuit_breaker: Some(circuit_breaker), ..Resilience::default() };
    snapshot(vec![forward("", "backend")], vec![guarded("backend", &[endpoint], resilience)])
}

async fn ask(plane: &Plane) -> String {
    plane.exchange("GET /ask HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await
}

/// Asks until the breaker has seen enough.
async fn open(plane: &Plane) {
    for _ in 0..4 {
        assert!(ask(plane).await.starts_with("HTTP/1.1 500 "));
    }
}

#[tokio::test]
async fn an_open_breaker_answers_at_once_and_says_when_to_come_back() {
    let plane = Plane::start(one(saying(BAD, Then::Goes).await, automatic(LONG)));
    open(&plane).await;
    for _ in 0..3 {
        let answer = ask(&plane).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nx-floodway-reason: breaker_open\r\n"), "{answer}");
        // In whole seconds, of which some may have passed.
        let after = answer.split("\r\nretry-after: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        assert!(after.is_some_and(|after: u32| (3000..=3600).contains(&after)), "{answer}");
    }
    let lines = plane.logged_times("/ask", 7).await;
    let refused = lines.iter().filter(|line| line["reason"] == "breaker_open" && line["status"] == 503);
    assert_eq!(refused.count(), 3);
    let labels = r#"upstream="backend""#;
    assert_eq!(plane.metric("floodway_breaker_not_permitted_total", labels), 3.0);
    let open = r#"scope="upstream",state="open""#;
    assert_eq!(plane.metric("floodway_breakers", open), 1.0, "{}", plane.telemetry.metrics().text());
}

#[tokio::test]
async fn after_the_wait_a_few_find_out() {
    let (endpoint, mut arrivals) = played().await;
    let plane = Plane::start(one(endpoint, automatic(WAIT)));
    let mut kept = None;
    for _ in 0..4 {
        let mut client = plane.connect().await;
        client.send("GET /bad HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (mut endpoint, _) = arrivals.request_on(kept).await;
        endpoint.send(BAD).await;
        client.head().await;
        kept = Some(endpoint);
    }
    let mut refused = ask(&plane).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    tokio::time::sleep(WAIT).await;

    // Two may pass; one of them leaves, which says nothing, and gives its permit back.
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = plane.connect().await;
        client.send("GET /trial HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push((client, arrivals.request_on(kept.take()).await.0));
    }
    refused = ask(&plane).await;
    assert!(refused.contains("breaker_open") && refused.contains("retry-after: 1\r\n"), "{refused}");
    let (leaves, _endpoint) = clients.remove(0);
    leaves.reset();
    plane.logged("/trial").await;
    let mut another = plane.connect().await;
    another.send("GET /trial HTTP/1.1\r\nHost: a\r\n\r\n").await;
    clients.push((another, arrivals.request().await.0));
    for (client, endpoint) in &mut clients {
        endpoint.send(GOOD).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    }
    plane.metric_becomes("floodway_breakers", r#"state="closed""#, 1.0).await;
}

/// Streams that have begun leave their permits to others, although nothing of their content came.
#[tokio::test]
async fn streams_do_not_hold_permits_while_they_last() {
    let (endpoint, mut arrivals) = played().await;
    let plane = Plane::start(one(endpoint, automatic(WAIT)));
    for _ in 0..4 {
        let mut client = plane.connect().await;
        client.send("GET /bad HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send("HTTP/1.1 500 Oh No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        client.to_end().await;
    }
    tokio::time::sleep(WAIT).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut client = plane.connect().await;
        client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(EVENTS).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        streams.push((client, endpoint));
    }
}

#[tokio::test]
async fn an_endpoint_is_kept_out_by_its_own_breaker() {
    let (bad, good) = (saying(BAD, Then::Goes).await, Witness::start().await);
    let resilience = Resilience { endpoint_circuit_breaker: Some(automatic(LONG)), ..Resilience::default() };
    let clusters = vec![guarded("backend", &[bad, good.address], resilience)];
    let plane = Plane::start(snapshot(vec![forward("", "backend")], clusters));
    let mut failed = 0;
    while plane.metric("floodway_breakers", r#"scope="endpoint",state="open""#) < 1.0 {
        failed += usize::from(ask(&plane).await.starts_with("HTTP/1.1 500 "));
    }
    assert_eq!(failed, 4);
    for _ in 0..20 {
        assert!(ask(&plane).await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn with_all_endpoints_kept_out_clients_are_told() {
    let (one, two) = (saying(BAD, Then::Goes).await, saying(BAD, Then::Goes).await);
    let resilience = Resilience { endpoint_circuit_breaker: Some(automatic(LONG)), ..Resilience::default() };
    let clusters = vec![guarded("backend", &[one, two], resilience)];
    let plane = Plane::start(snapshot(vec![forward("", "backend")], clusters));
    for _ in 0..8 {
        assert!(ask(&plane).await.starts_with("HTTP/1.1 500 "));
    }
    let answer = ask(&plane).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("breaker_open"), "{answer}");
    assert!(answer.contains("\r\nretry-after: 3"), "{answer}");
}

#[tokio::test]
async fn an_endpoint_is_asked_again_after_the_wait() {
    let (endpoint, mut arrivals) = played().await;
    let resilience = Resilience { endpoint_circuit_breaker: Some(automatic(WAIT)), ..Resilience::default() };
    let clusters = vec![guarded("backend", &[endpoint], resilience)];
    let plane = Plane::start(snapshot(vec![forward("", "backend")], clusters));
    for _ in 0..4 {
        let mut client = plane.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let mut endpoint = arrivals.request().await.0;
        endpoint.send(BAD.replacen("\r\n", "\r\nConnection: close\r\n", 1)).await;
        client.to_end().await;
    }
    assert!(ask(&plane).await.contains("breaker_open"));
    tokio::time::sleep(WAIT).await;
    for _ in 0..2 {
        let mut client = plane.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let mut endpoint = arrivals.request().await.0;
        endpoint.send(GOOD.replacen("\r\n", "\r\nConnection: close\r\n", 1)).await;
        assert!(client.to_end().await.starts_with("HTTP/1.1 200 "));
    }
    plane.metric_becomes("floodway_breakers", r#"scope="endpoint",state="closed""#, 1.0).await;
}

fn falling_back(endpoints: &[SocketAddr], fallback: Fallback, others: Vec<Cluster>) -> Snapshot {
    let circuit_breaker = Some(CircuitBreaker { mode: BreakerMode::ForcedOpen, ..automatic(LONG) });
    let resilience = Resilience { circuit_breaker, fallback: Some(fallback), ..Resilience::default() };
    let clusters = [vec![guarded("backend", endpoints, resilience)], others].concat();
    snapshot(vec![forward("", "backend")], clusters)
}

#[tokio::test]
async fn another_cluster_answers_with_the_content_and_all() {
    let (main, small) = (Witness::start().await, Witness::start().await);
    let others = vec![cluster("small", Protocol::Http1, &[small.address])];
    let fallback = Fallback::Cluster(floodway::snapshot::ClusterName::new("small"));
    for endpoints in [&[main.address][..], &[]] {
        let plane = Plane::start(falling_back(endpoints, fallback.clone(), others.clone()));
        let post = "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        assert!(plane.exchange(post).await.starts_with("HTTP/1.1 200 "));
        let line = plane.logged("/x").await;
        assert_eq!((&line["upstream"], &line["reason"]), (&"small".into(), &serde_json::Value::Null), "{line}");
        assert_eq!((main.take().len(), small.take().len()), (0, 1));
    }
    let gone = Plane::start(falling_back(&[main.address], fallback, Vec::new()));
    assert!(ask(&gone).await.contains("breaker_open"), "as if there were none");
}

#[tokio::test]
async fn floodway_answers_itself_as_configured() {
    let main = Witness::start().await;
    let busy = Fallback::Respond(Respond {
        status: StatusCode::SERVICE_UNAVAILABLE,
        content_type: Some("text/plain".parse().unwrap()),
        body: "busy".into(),
    });
    let plane = Plane::start(falling_back(&[main.address], busy.clone(), Vec::new()));
    let answer = ask(&plane).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nbusy"), "{answer}");
    assert!(answer.contains("\r\nx-floodway-reason: breaker_open\r\n") && !answer.contains("retry-after"), "{answer}");
    let plane = Plane::start(falling_back(&[], busy, Vec::new()));
    let answer = ask(&plane).await;
    assert!(answer.ends_with("\r\n\r\nbusy") && answer.contains("\r\nx-floodway-reason: no_endpoint\r\n"), "{answer}");

    let elsewhere = Fallback::Redirect(Redirect {
        scheme: None,
        host: Some("status.example".into()),
        port: None,
        path: Some(PathRewrite::Full("/down".into())),
        status: StatusCode::TEMPORARY_REDIRECT,
    });
    let plane = Plane::start(falling_back(&[main.address], elsewhere, Vec::new()));
    let answer = ask(&plane).await;
    assert!(answer.starts_with("HTTP/1.1 307 "), "{answer}");
    assert!(answer.contains("\r\nlocation: http://status.example/down\r\n"), "{answer}");
    let line = plane.logged("/ask").await;
    assert_eq!((&line["status"], &line["reason"]), (&307.into(), &"breaker_open".into()), "{line}");
}
