//! Requests that are sent to another endpoint beside one that is slow: which, when, whose answer counts, and what becomes of the
//! other attempt.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use floodway::snapshot::{Cluster, Ejection, Hedge, Limits, Protocol, Retry, RetryBudget};
use h2::Reason;

use super::clients::http2_backend;
use super::endpoints::{Message, message, nothing_is_left};
use super::retries::{eager, retrying_by};
use super::support::*;

/// Long enough for another attempt to be made meanwhile, if one is.
const LATE: Duration = Duration::from_millis(300);

fn hedging() -> Retry {
    let delay = Duration::from_millis(20);
    Retry { hedge: Some(Hedge { percentile: 95, min_delay: delay, max_delay: Some(delay) }), ..eager() }
}

/// What endpoints saw of requests, which they serve by path: `/fast` at once, `/late` after a while, `/slow` at once unless it is the
/// first with that path, which is never answered, as `/never` is, and `/first-wins` the other way round, once there is another. What is
/// answered has what came as its content.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<HashMap<String, Calls>>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calls {
    begun: usize,
    answered: usize,
    /// Closed, or reset, by who asked.
    given_up: usize,
}

impl Seen {
    fn of(&self, path: &str) -> Calls {
        self.0.lock().unwrap().get(path).copied().unwrap_or_default()
    }

    fn count(&self, path: &str, change: impl FnOnce(&mut Calls)) -> Calls {
        let mut all = self.0.lock().unwrap();
        let calls = all.entry(path.to_owned()).or_default();
        change(calls);
        *calls
    }

    /// The status of the answer to a request that begins now, and after how long it comes; `None` if none does.
    async fn answer(&self, path: &str) -> Option<u16> {
        let first = self.count(path, |calls| calls.begun += 1).begun == 1;
        let both = || eventually("another attempt", || self.of(path).begun == 2);
        match path.split('/').nth(1).unwrap() {
            "late" => tokio::time::sleep(LATE).await,
            "never" => return None,
            "slow" if first => return None,
            "first-fails" if first => {
                both().await;
                return Some(503);
            }
            // The other one has failed by then.
            "first-fails" => tokio::time::sleep(LATE).await,
            "first-wins" if first => both().await,
            "first-wins" => return None,
            "second-fails" if first => {
                both().await;
                tokio::time::sleep(LATE).await;
            }
            "second-fails" => return Some(503),
            _ => {}
        }
        Some(200)
    }

    async fn endpoint(&self) -> SocketAddr {
        let seen = self.clone();
        backend(move |mut client| {
            let seen = seen.clone();
            async move {
                while let Some(Message::Whole(message)) = message(&mut client).await {
                    let path = message.split(' ').nth(1).unwrap();
                    let given_up = async |client: &mut Raw| {
                        let mut byte = [0];
                        let _ = client.0.peek(&mut byte).await;
                    };
                    let answer = tokio::select! {
                        Some(status) = seen.answer(path) => status,
                        () = given_up(&mut client) => {
                            seen.count(path, |calls| calls.given_up += 1);
                            return;
                        }
                    };
                    seen.count(path, |calls| calls.answered += 1);
                    let length = message.len();
                    client.send(format!("HTTP/1.1 {answer} X\r\nContent-Length: {length}\r\n\r\n{message}")).await;
                }
            }
        })
        .await
    }

    async fn cluster(&self, endpoints: usize) -> Cluster {
        let mut addresses = Vec::new();
        for _ in 0..endpoints {
            addresses.push(self.endpoint().await);
        }
        cluster("backend", Protocol::Http1, &addresses)
    }
}

fn request(method: &str, path: &str, content: &str) -> String {
    let length = content.len();
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}")
}

/// So many requests that are answered fast. One more than 99 is enough to know when one is slow.
async fn learn(plane: &Plane, requests: usize) {
    for _ in 0..requests {
        let answer = plane.exchange(request("GET", "/fast", "")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

async fn started(cluster: Cluster, retry: Retry) -> Plane {
    let plane = Plane::start(retrying_by(cluster, retry));
    learn(&plane, 100).await;
    plane
}

fn hedges(plane: &Plane) -> Vec<(&'static str, f64)> {
    let outcomes = ["answered", "beaten", "failed", "abandoned", "over_budget"];
    let count =
        |outcome| plane.metric("floodway_upstream_retries_total", &format!("outcome=\"{outcome}\",reason=\"hedge\""));
    outcomes.map(|outcome| (outcome, count(outcome))).into_iter().filter(|(_, count)| *count > 0.0).collect()
}

#[tokio::test]
async fn the_answer_of_a_faster_endpoint_is_the_clients_and_the_slow_one_is_let_go() {
    let seen = Seen::default();
    let mut cluster = seen.cluster(2).await;
    let resilience = Arc::make_mut(&mut cluster.resilience);
    resilience.ejection = Some(Ejection { consecutive_failures: 1, ..Ejection::default() });
    resilience.limits = Some(Limits { requests: Some(2), ..Limits::NONE });
    let plane = started(cluster, hedging()).await;
    let answer = plane.exchange(request("GET", "/slow", "")).await;
    let (head, got) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("x-floodway-attempts: 2"), "{answer}");
    assert!(got.contains("x-floodway-attempts: 2"), "{answer}");
    eventually("the slow one is given up", || seen.of("/slow").given_up == 1).await;
    let line = plane.logged("/slow").await;
    assert_eq!((&line["attempts"], &line["status"], &line["end"]), (&2.into(), &200.into(), &"complete".into()));
    assert_eq!(seen.of("/slow"), Calls { begun: 2, answered: 1, given_up: 1 });
    assert_eq!(hedges(&plane), [("answered", 1.0)]);
    assert_eq!(plane.metric("floodway_upstream_changes_total", ""), 0.0, "nothing is held against the slow one");
    plane.metric_becomes("floodway_upstream_active", "limit=\"requests\"", 0.0).await;
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn the_first_endpoint_may_still_be_the_first_to_answer() {
    let seen = Seen::default();
    let plane = started(seen.cluster(2).await, hedging()).await;
    let answer = plane.exchange(request("GET", "/first-wins", "")).await;
    let (_, got) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!got.contains("x-floodway-attempts"), "the first one has it of the client alone: {answer}");
    eventually("the other one is given up", || seen.of("/first-wins").given_up == 1).await;
    assert_eq!(hedges(&plane), [("beaten", 1.0)]);
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn an_answer_that_the_route_does_not_want_does_not_win() {
    for (path, outcome) in [("/first-fails", "answered"), ("/second-fails", "failed")] {
        let seen = Seen::default();
        let plane = started(seen.cluster(3).await, hedging()).await;
        let answer = plane.exchange(request("GET", path, "")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        assert_eq!(seen.of(path), Calls { begun: 2, answered: 2, given_up: 0 }, "{path}");
        assert_eq!(hedges(&plane), [(outcome, 1.0)], "{path}");
        assert_eq!(plane.logged(path).await["attempts"], 2, "{path}");
        nothing_is_left(&plane).await;
    }
}

#[tokio::test]
async fn only_what_may_be_sent_again_is_sent_twice() {
    let large = "x".repeat(100_000);
    for (method, any_method, content, begun) in [
        ("PUT", false, "hello", 2),
        ("POST", false, "hello", 1),
        ("POST", false, "", 1),
        ("POST", true, "hello", 2),
        ("PUT", false, &large, 1),
    ] {
        let seen = Seen::default();
        let plane = started(seen.cluster(2).await, Retry { any_method, ..hedging() }).await;
        let path = if begun == 2 { "/slow" } else { "/late" };
        let answer = plane.exchange(request(method, path, content)).await;
        let what = format!("{method} of {}", content.len());
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(content), "{what}: {answer}");
        assert_eq!(seen.of(path).begun, begun, "{what}");
        assert_eq!(plane.logged(path).await["bytes_received"], content.len(), "{what}: what is sent twice came once");
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_bear_another_request_gets_none() {
    let unlimited = |_: &mut Cluster| {};
    let no_budget = |cluster: &mut Cluster| {
        let budget = RetryBudget { percent: 0, min_concurrent: 0 };
        Arc::make_mut(&mut cluster.resilience).retry_budget = Some(budget);
    };
    let one_request = |cluster: &mut Cluster| {
        Arc::make_mut(&mut cluster.resilience).limits = Some(Limits { requests: Some(1), ..Limits::NONE });
    };
    let changes = [
        ("no other endpoint", 1, unlimited as fn(&mut Cluster), vec![]),
        ("no budget", 2, no_budget, vec![("over_budget", 1.0)]),
        ("no room", 2, one_request, vec![]),
    ];
    for (why, endpoints, change, counted) in changes {
        let seen = Seen::default();
        let mut cluster = seen.cluster(endpoints).await;
        change(&mut cluster);
        let plane = started(cluster, hedging()).await;
        let answer = plane.exchange(request("GET", "/late", "")).await;
        assert!(answer.contains("x-floodway-attempts: 1\r\n"), "{why}: {answer}");
        assert_eq!((seen.of("/late").begun, hedges(&plane)), (1, counted), "{why}");
    }
}

#[tokio::test]
async fn nothing_is_done_before_enough_is_known() {
    let seen = Seen::default();
    let plane = Plane::start(retrying_by(seen.cluster(2).await, hedging()));
    learn(&plane, 98).await;
    // The first of these is the 99th, and tells what the second one needs.
    for (path, begun) in [("/late/98", 1), ("/late/99", 1), ("/late/100", 2)] {
        let answer = plane.exchange(request("GET", path, "")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(seen.of(path).begun, begun, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_both_attempts() {
    let seen = Seen::default();
    let plane = started(seen.cluster(2).await, hedging()).await;
    let mut client = plane.connect().await;
    client.send(request("GET", "/never", "")).await;
    eventually("both attempts", || seen.of("/never").begun == 2).await;
    client.reset();
    eventually("both are given up", || seen.of("/never").given_up == 2).await;
    assert_eq!(plane.logged("/never").await["end"], "client_gone");
    assert_eq!(hedges(&plane), [("abandoned", 1.0)]);
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn the_stream_of_the_slow_one_is_reset() {
    let resets = Arc::new(Mutex::new(Vec::new()));
    let seen = Seen::default();
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let (seen, resets) = (seen.clone(), Arc::clone(&resets));
        let address = http2_backend(move |request, mut answer| {
            let (seen, resets) = (seen.clone(), Arc::clone(&resets));
            async move {
                if seen.answer(request.uri().path()).await.is_none() {
                    let reason = within(std::future::poll_fn(|cx| answer.poll_reset(cx))).await.unwrap();
                    resets.lock().unwrap().push(reason);
                    return;
                }
                let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"ok"), true).unwrap();
            }
        });
        addresses.push(address.await);
    }
    let plane = started(cluster("backend", Protocol::Http2, &addresses), hedging()).await;
    let answer = plane.exchange(request("GET", "/slow", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    eventually("a reset", || *resets.lock().unwrap() == [Reason::CANCEL]).await;
    assert_eq!(hedges(&plane), [("answered", 1.0)]);
    eventually("nothing in flight", || plane.in_flight() == 0).await;
}
