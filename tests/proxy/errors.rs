//! What Floodway itself answers, and when a request goes to another endpoint or once more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use floodway::snapshot::{Action, Invalid, Protocol, Respond, Route, Snapshot, Timeouts};

use super::endpoints::{Message, Then, Witness, message, nothing_is_left, saying, unreachable};
use super::support::*;

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// An endpoint that reads and says nothing.
async fn silent() -> SocketAddr {
    saying("", Then::Stays).await
}

fn timed(route: Route, change: impl FnOnce(&mut Timeouts)) -> Route {
    let mut route = route;
    if let Action::Forward(forward) = &mut route.action {
        change(&mut forward.timeouts);
    }
    route
}

fn one(route: Route, endpoints: &[SocketAddr]) -> Snapshot {
    snapshot(vec![route], vec![cluster("backend", Protocol::Http1, endpoints)])
}

/// Sends GET /x and checks status, reason and the log line.
async fn fails(plane: &Plane, status: u16, reason: &str, end: &str) {
    let answer = plane.exchange(GET).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {answer}");
    assert!(answer.contains(&format!("\r\nx-floodway-reason: {reason}\r\n")), "{reason}: {answer}");
    let line = plane.logged("/x").await;
    assert_eq!(
        (&line["status"], &line["reason"], &line["end"]),
        (&status.into(), &reason.into(), &end.into()),
        "{line}"
    );
    let id = line["request_id"].as_str().unwrap();
    assert!(answer.contains(&format!("\r\nx-request-id: {id}\r\n")), "{answer}");
    for detail in ["127.0.0.1", "os error", "Connection refused", "secret-name", "test/route"] {
        assert!(!answer.contains(detail), "an inner detail: {answer}");
    }
    nothing_is_left(plane).await;
}

#[tokio::test]
async fn what_configuration_lacks_has_a_status_and_a_reason() {
    let invalid = || Action::Invalid(Invalid("no such Service: secret-name".into()));
    let mut unweighted = forward("", "backend");
    let mut unresolved = forward("", "backend");
    if let Action::Forward(forward) = &mut unweighted.action {
        forward.backends[0].weight = 0;
    }
    if let Action::Forward(forward) = &mut unresolved.action {
        forward.backends[0].cluster = Err(Invalid("no such Service: secret-name".into()));
    }
    for (snapshot, status, reason) in [
        (Snapshot::default(), 404, "no_route"),
        (one(forward("/other", "backend"), &[]), 404, "no_route"),
        (one(route("", invalid()), &[]), 500, "invalid_route"),
        (one(unresolved, &[]), 500, "invalid_route"),
        (one(unweighted, &[]), 503, "no_backend"),
        (one(forward("", "backend"), &[]), 503, "no_endpoint"),
        (one(forward("", "elsewhere"), &[]), 503, "no_endpoint"),
        (one(forward("", "backend"), &[refusing()]), 502, "connect_failed"),
    ] {
        fails(&Plane::start(snapshot), status, reason, "answered").await;
    }
}

#[tokio::test]
async fn each_clock_has_its_own_end() {
    let short = Duration::from_millis(80);
    let (unreachable, _held) = unreachable().await;
    let route = || forward("", "backend");
    for (snapshot, status, reason) in [
        (one(timed(route(), |timeouts| timeouts.connect = Some(short)), &[unreachable]), 504, "connect_timeout"),
        (one(timed(route(), |timeouts| timeouts.request = Some(short)), &[unreachable]), 504, "request_timeout"),
        (one(timed(route(), |timeouts| timeouts.response_head = short), &[silent().await]), 504, "head_timeout"),
        (one(timed(route(), |timeouts| timeouts.request = Some(short)), &[silent().await]), 504, "request_timeout"),
    ] {
        fails(&Plane::start(snapshot), status, reason, "answered").await;
    }

    // After the head there is no status any more, only a cut.
    let said = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
    let idle = timed(route(), |timeouts| timeouts.idle = short);
    let total = timed(route(), |timeouts| timeouts.request = Some(short));
    for (route, reason, end) in [(idle, "idle", "idle"), (total, "request_timeout", "timed_out")] {
        let plane = Plane::start(one(route, &[saying(said, Then::Stays).await]));
        let answer = plane.exchange(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n2\r\nhi\r\n"), "{answer}");
        let line = plane.logged("/x").await;
        assert_eq!((&line["status"], &line["reason"], &line["end"]), (&200.into(), &reason.into(), &end.into()));
        nothing_is_left(&plane).await;
    }
}

#[tokio::test]
async fn errors_look_as_the_client_likes_them() {
    let plane = Plane::start(Snapshot::default());
    for (accept, content_type, begins) in [
        ("", "text/plain; charset=utf-8", "404 Not Found\nreason: no_route\nrequest: "),
        ("Accept: */*\r\n", "text/plain; charset=utf-8", "404 Not Found\n"),
        ("Accept: image/png\r\n", "text/plain; charset=utf-8", "404 Not Found\n"),
        ("Accept: application/json\r\n", "application/json", "{\"status\":404,"),
        ("Accept: text/html, application/json;q=0.5\r\n", "text/html; charset=utf-8", "<!doctype html>"),
    ] {
        for method in ["GET", "HEAD", "POST", "BREW"] {
            let request = format!("{method} /x HTTP/1.1\r\nHost: a\r\n{accept}Connection: close\r\n\r\n");
            let answer = plane.exchange(request).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
            assert!(head.contains(&format!("\r\ncontent-type: {content_type}\r\n")), "{head}");
            let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
            if method == "HEAD" {
                assert_eq!(body, "", "{method}");
                continue;
            }
            assert!(body.starts_with(begins) && body.contains(id), "{body}");
            if content_type == "application/json" {
                let value: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!((&value["reason"], &value["requestId"]), (&"no_route".into(), &id.into()));
            }
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let witness = Witness::start().await;
    let plane = Plane::start(one(forward("", "backend"), &[refusing(), refusing(), witness.address]));
    for turn in 0..20 {
        // Nothing was sent to those that refused, so a POST may be tried elsewhere, too.
        let request = format!("POST /{turn} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        let answer = plane.exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    let seen = witness.take();
    assert_eq!(seen.len(), 20);
    assert!(
        seen.iter().all(|message| matches!(message, Message::Whole(all) if all.ends_with("\r\n\r\nhi"))),
        "{seen:?}"
    );
    nothing_is_left(&plane).await;
}

/// An endpoint that answers the first request of each connection, and resets it at the second.
async fn closing_when_used_again() -> (SocketAddr, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let address = backend(move |mut client| {
        let requests = Arc::clone(&counted);
        async move {
            for again in [false, true] {
                if message(&mut client).await.is_none() {
                    return;
                }
                requests.fetch_add(1, Ordering::SeqCst);
                if again {
                    return client.reset();
                }
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    (address, requests)
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_one_more_try() {
    for (request, status, requests) in [
        ("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n", 200, 3),
        ("DELETE /2 HTTP/1.1\r\nHost: a\r\n\r\n", 200, 3),
        // RFC 9110 9.2.2: "A client SHOULD NOT automatically retry a request with a non-idempotent method".
        ("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 502, 2),
        ("PATCH /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 502, 2),
        // Its content is gone, whatever its method.
        ("PUT /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 502, 2),
    ] {
        let (address, seen) = closing_when_used_again().await;
        let plane = Plane::start(to(address));
        // One client, so one worker, whose connection is kept.
        let mut client = plane.connect().await;
        client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        client.send(request).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {head}");
        assert_eq!(seen.load(Ordering::SeqCst), requests, "{request:?}");
        drop(client);
        nothing_is_left(&plane).await;
    }
}

#[tokio::test]
async fn what_is_configured_is_answered_as_configured() {
    let respond = Respond {
        status: http::StatusCode::IM_A_TEAPOT,
        content_type: Some(http::HeaderValue::from_static("text/x-tea")),
        body: "short and stout".into(),
    };
    let plane = Plane::start(snapshot(vec![route("", Action::Respond(respond))], vec![]));
    for (method, body) in [("GET", "short and stout"), ("HEAD", ""), ("POST", "short and stout")] {
        let answer = plane.exchange(format!("{method} /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let (head, content) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 418 I'm a teapot\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: text/x-tea"), "{head}");
        assert!(!head.contains("x-floodway-reason"), "{head}");
        assert_eq!(content, body);
    }
    for line in plane.logged_times("/x", 3).await {
        assert_eq!((&line["status"], &line["end"], line.get("reason")), (&418.into(), &"answered".into(), None));
    }
    nothing_is_left(&plane).await;
}
