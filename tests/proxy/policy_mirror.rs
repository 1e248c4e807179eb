//! Copies of requests for another service: what they hold, what bounds them, and that no request waits for one or fails by it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::snapshot::{ClusterName, Mirror, Policy, Protocol};

use super::endpoints::{Message, Witness};
use super::policies::under;
use super::support::*;

pub fn copying(change: impl FnOnce(&mut Mirror)) -> Policy {
    let mut mirror = Mirror {
        cluster: Some(ClusterName::new("next")),
        percent: 100,
        body_bytes: 1000,
        concurrent: 100,
        timeout: Duration::from_secs(20),
        without_credentials: false,
    };
    change(&mut mirror);
    Policy { mirror: Some(Arc::new(mirror)), ..Policy::default() }
}

fn plane(policy: Policy, backend: SocketAddr, next: &[SocketAddr]) -> Plane {
    let clusters = vec![cluster("backend", Protocol::Http1, &[backend]), cluster("next", Protocol::Http1, next)];
    Plane::start(snapshot(vec![under(policy, forward("", "backend"))], clusters))
}

async fn becomes(plane: &Plane, outcome: &str, count: f64) {
    plane.metric_becomes("floodway_mirrored_total", &format!("outcome=\"{outcome}\""), count).await;
}

async fn ask(plane: &Plane, rest: &str) -> String {
    plane.exchange(rest.replacen("\r\n", "\r\nHost: a\r\nConnection: close\r\n", 1)).await
}

/// What came, once there is something.
async fn seen(witness: &Witness) -> Vec<Message> {
    let mut seen = Vec::new();
    eventually("a message", || {
        seen.extend(witness.take());
        !seen.is_empty()
    })
    .await;
    seen
}

#[tokio::test]
async fn a_copy_is_what_went_on_and_says_that_it_is_one() {
    let (backend, next) = (Witness::start().await, Witness::start().await);
    let plane = plane(copying(|_| {}), backend.address, &[next.address]);
    for request in [
        "POST /a?b=c HTTP/1.1\r\nAuthorization: hush\r\nCookie: a=b\r\nX-Floodway_Mirror: spoofed\r\nContent-Length: 5\r\n\r\nhello",
        "POST /a?b=c HTTP/1.1\r\nAuthorization: hush\r\nCookie: a=b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "GET /a HTTP/1.1\r\nAuthorization: hush\r\nCookie: a=b\r\n\r\n",
    ] {
        assert!(ask(&plane, request).await.starts_with("HTTP/1.1 200 "));
        let (Some(Message::Whole(went)), [Message::Whole(copy)]) = (backend.take().pop(), &seen(&next).await[..])
        else {
            panic!("{request}");
        };
        let mut lines: Vec<&str> = copy.lines().collect();
        let before = lines.len();
        lines.retain(|line| *line != "x-floodway-mirror: test/route");
        assert_eq!(before, lines.len() + 1, "{copy}");
        assert!(!went.contains("x-floodway-mirror") && !copy.contains("spoofed"), "{went}");
        for line in went.lines().filter(|line| line.contains(": ") && !line.starts_with("transfer-encoding")) {
            assert!(lines.contains(&line), "{line} of {went} is not in {copy}");
        }
        assert_eq!(went.lines().next(), lines.first().copied());
        if request.starts_with("POST") {
            assert!(copy.ends_with("\r\n\r\nhello") && copy.contains("\r\ncontent-length: 5\r\n"), "{copy}");
        }
    }
    becomes(&plane, "sent", 3.0).await;
}

#[tokio::test]
async fn copies_go_without_credentials_and_none_is_made_of_a_copy() {
    let (backend, next) = (Witness::start().await, Witness::start().await);
    let plane = plane(copying(|mirror| mirror.without_credentials = true), backend.address, &[next.address]);
    ask(&plane, "GET /copy HTTP/1.1\r\nX-Floodway-Mirror: shop/other\r\n\r\n").await;
    ask(&plane, "GET /a HTTP/1.1\r\nAuthorization: hush\r\nCookie: hush=1\r\n\r\n").await;
    let copies = seen(&next).await;
    assert!(
        matches!(&copies[..], [Message::Whole(copy)] if copy.starts_with("GET /a ") && !copy.contains("hush")),
        "{copies:?}"
    );
    let went = format!("{:?}", backend.take());
    assert!(went.contains("authorization: hush") && went.contains("cookie: hush=1"), "{went}");
    assert!(!went.contains("x-floodway-mirror"), "nobody says so whom we do not trust: {went}");
}

#[tokio::test]
async fn no_request_waits_for_its_copy_and_no_more_are_under_way_than_may_be() {
    // It takes connections, and says nothing.
    let (next, mut arrivals) = played().await;
    let backend = Witness::start().await;
    let plane = plane(copying(|mirror| mirror.concurrent = 2), backend.address, &[next]);
    for _ in 0..5 {
        assert!(ask(&plane, "GET /a HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(backend.take().len(), 5);
    becomes(&plane, "dropped", 3.0).await;
    let (mut one, _) = arrivals.request().await;
    let (_two, _) = arrivals.request().await;
    // An answer makes room for another copy.
    one.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await;
    becomes(&plane, "sent", 1.0).await;
    ask(&plane, "GET /again HTTP/1.1\r\n\r\n").await;
    let (_again, head) = arrivals.request_on(Some(one)).await;
    assert!(head.starts_with("GET /again "), "{head}");
}

#[tokio::test]
async fn content_is_kept_up_to_a_bound_and_never_held_up() {
    let (backend, next) = (Witness::start().await, Witness::start().await);
    let plane = plane(copying(|mirror| mirror.body_bytes = 10), backend.address, &[next.address]);
    for content in ["", "x", &"x".repeat(10)] {
        let length = content.len();
        ask(&plane, &format!("PUT /fits HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{content}")).await;
        let copies = seen(&next).await;
        assert!(
            matches!(&copies[..], [Message::Whole(copy)] if copy.ends_with(&format!("\r\n\r\n{content}"))),
            "{copies:?}"
        );
    }
    let long = "x".repeat(100_000);
    for request in [
        format!("PUT /long HTTP/1.1\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
        format!(
            "PUT /long HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nxxxxxx\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
            long.len()
        ),
    ] {
        backend.take();
        assert!(ask(&plane, &request).await.starts_with("HTTP/1.1 200 "));
        assert!(matches!(&backend.take()[..], [Message::Whole(went)] if went.matches('x').count() > long.len()));
    }
    becomes(&plane, "dropped", 2.0).await;
    // One that does not come to its end is none.
    let mut client = plane.connect().await;
    client.send("PUT /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello").await;
    eventually("the beginning", || plane.in_flight() > 0).await;
    client.reset();
    becomes(&plane, "dropped", 3.0).await;
    assert!(next.take().is_empty());
}

#[tokio::test]
async fn a_service_that_is_sick_or_missing_is_nothing_to_the_request() {
    let backend = Witness::start().await;
    let with_next = plane(copying(|_| {}), backend.address, &[refusing()]);
    for _ in 0..20 {
        assert!(ask(&with_next, "GET /a HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
    }
    becomes(&with_next, "failed", 20.0).await;
    // Neither is it held against who answers: the whole of what was counted is of the other.
    let connects = |labels| with_next.metric("floodway_upstream_connects_total", labels);
    assert_eq!(connects("result=\"failure\",upstream=\"backend\""), 0.0);
    assert_eq!(with_next.metric("floodway_retries_total", ""), 0.0);

    let nobody = plane(copying(|_| {}), backend.address, &[]);
    let unknown = plane(copying(|mirror| mirror.cluster = None), backend.address, &[]);
    let gone = plane(copying(|mirror| mirror.cluster = Some(ClusterName::new("gone"))), backend.address, &[]);
    for plane in [&nobody, &unknown, &gone] {
        assert!(ask(plane, "GET /a HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
    }
    becomes(&nobody, "failed", 1.0).await;
    assert_eq!(gone.metric("floodway_mirrored_total", ""), 0.0);
}

#[tokio::test]
async fn a_copy_that_takes_too_long_is_given_up_and_its_answer_read_to_a_bound() {
    let (next, mut arrivals) = played().await;
    let backend = Witness::start().await;
    let plane = plane(copying(|mirror| mirror.timeout = Duration::from_millis(200)), backend.address, &[next]);
    ask(&plane, "GET /silent HTTP/1.1\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    assert_eq!(endpoint.to_end().await, "", "its connection is closed");
    becomes(&plane, "failed", 1.0).await;
    // An answer without end ends with the time there is.
    ask(&plane, "GET /endless HTTP/1.1\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(EVENTS).await;
    becomes(&plane, "sent", 1.0).await;
    endpoint.to_end().await;
}

#[tokio::test]
async fn websockets_are_not_copied_and_percent_is_a_share() {
    let (address, mut arrivals) = played().await;
    let next = Witness::start().await;
    let plane = plane(copying(|_| {}), address, &[next.address]);
    let mut client = plane.connect().await;
    client.send("GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(plane.metric("floodway_mirrored_total", ""), 0.0);

    let backend = Witness::start().await;
    let some = self::plane(copying(|mirror| mirror.percent = 50), backend.address, &[next.address]);
    let none = self::plane(copying(|mirror| mirror.percent = 0), backend.address, &[next.address]);
    for _ in 0..200 {
        ask(&some, "GET /some HTTP/1.1\r\n\r\n").await;
    }
    ask(&none, "GET /none HTTP/1.1\r\n\r\n").await;
    // The chance of fewer than 40 or more than 160 is below one in 10^16.
    eventually("copies", || (40.0..=160.0).contains(&some.metric("floodway_mirrored_total", ""))).await;
    assert_eq!(none.metric("floodway_mirrored_total", ""), 0.0);
    assert!(next.take().iter().all(|message| matches!(message, Message::Whole(text) if text.starts_with("GET /some"))));
}
