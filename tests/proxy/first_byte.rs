//! Heads that are held back until their content begins: until then another endpoint can be asked.

use std::net::SocketAddr;
use std::time::Duration;

use floodway::snapshot::{Action, Protocol, Snapshot, Streaming};

use super::clients::http2_backend;
use super::sse::{EVENTS, chunk, event};
use super::support::*;

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

fn holding(endpoints: &[SocketAddr]) -> Snapshot {
    holding_from(Protocol::Http1, endpoints)
}

fn holding_from(protocol: Protocol, endpoints: &[SocketAddr]) -> Snapshot {
    let mut route = forward("", "backend");
    let Action::Forward(forward) = &mut route.action else { unreachable!() };
    forward.streaming = Some(Streaming { hold_first_byte: true, ..Streaming::default() }.into());
    forward.timeouts.first_byte = Some(Duration::from_millis(500));
    snapshot(vec![route], vec![cluster("backend", protocol, endpoints)])
}

/// An endpoint that sends heads and breaks off.
async fn broken() -> SocketAddr {
    backend(|mut client| async move {
        if client.request().await.is_some() {
            client.send(format!("{EVENTS}{CHUNKED}")).await;
        }
    })
    .await
}

/// An endpoint that breaks off before its head.
async fn mute() -> SocketAddr {
    backend(|mut client| async move { drop(client.request().await) }).await
}

/// An endpoint that sends an event, and ends.
async fn sound() -> SocketAddr {
    backend(|mut client| async move {
        if client.request().await.is_some() {
            client.send(format!("{EVENTS}{CHUNKED}{}0\r\n\r\n", chunk(&event(1)))).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_before_the_first_byte_is_passed_over() {
    let plane = Plane::start(holding(&[broken().await, mute().await, sound().await]));
    let (mut calls, mut attempts) = (0, 1);
    while attempts < 3 {
        calls += 1;
        assert!(calls < 1000, "the sound endpoint is never asked last");
        let path = format!("/{calls}");
        let answer = plane.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches(&event(1)).count(), 1, "{answer}");
        let line = plane.logged(&path).await;
        assert_eq!(line["end"], "complete", "{line}");
        attempts = attempts.max(line["attempts"].as_u64().unwrap());
    }
    assert_eq!(attempts, 3);
}

#[tokio::test]
async fn without_another_endpoint_the_client_gets_an_answer_instead_of_a_cut() {
    let plane = Plane::start(holding(&[broken().await, broken().await]));
    let answer = plane.exchange("GET /both HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    let line = plane.logged("/both").await;
    assert_eq!((&line["reason"], &line["attempts"]), (&"upstream_reset".into(), &2.into()), "{line}");
}

#[tokio::test]
async fn a_stream_that_an_http2_endpoint_resets_before_its_content_is_asked_of_another() {
    let resets = || {
        http2_backend(|_request, mut answer| async move {
            let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        })
    };
    let plane = Plane::start(holding_from(Protocol::Http2, &[resets().await, resets().await]));
    let answer = plane.exchange("GET /reset HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    let line = plane.logged("/reset").await;
    assert_eq!((&line["reason"], &line["attempts"]), (&"upstream_reset".into(), &2.into()), "{line}");
}

#[tokio::test]
async fn what_must_not_be_repeated_is_not() {
    let plane = Plane::start(holding(&[broken().await, broken().await]));
    for (path, request) in [
        ("/post", "POST /post HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        ("/content", "PUT /content HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"),
    ] {
        let answer = plane.exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
        let line = plane.logged(path).await;
        assert_eq!((&line["reason"], &line["attempts"]), (&"upstream_reset".into(), &1.into()), "{line}");
    }
}

#[tokio::test]
async fn content_that_does_not_begin_in_time_is_told_with_a_status() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(holding(&[address]));
    let mut client = plane.connect().await;
    client.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{EVENTS}{CHUNKED}")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 504 ") && head.contains("first_byte_timeout"), "{head}");
    endpoint.closed().await;
    assert_eq!(plane.logged("/silent").await["reason"], "first_byte_timeout");
}

#[tokio::test]
async fn the_head_comes_with_the_first_byte_and_the_rest_as_it_comes() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(holding(&[address]));
    let mut client = plane.connect().await;
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{EVENTS}{CHUNKED}")).await;
    // Not before: the test fails if a head comes while nobody has sent content.
    let early = tokio::time::timeout(Duration::from_millis(100), client.0.readable()).await;
    assert!(early.is_err(), "{early:?}");
    endpoint.send(chunk(":\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(client.until("\n\r\n").await, chunk(":\n"));
    for number in 1..4 {
        endpoint.send(chunk(&event(number))).await;
        assert_eq!(client.until("\n\n\r\n").await, chunk(&event(number)));
    }
    // From here on a break is a cut.
    drop(endpoint);
    assert_eq!(client.to_end().await, "");
    assert_eq!(plane.logged("/stream").await["reason"], "upstream_cut");
}

#[tokio::test]
async fn lengths_and_answers_without_content_stay_what_they_are() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(holding(&[address]));
    let mut client = plane.connect().await;
    let mut kept = None;
    for (method, answer, parts) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", &["abc", "def"][..]),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &[]),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", &[]),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", &[]),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[]),
    ] {
        client.send(format!("{method} /whole HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let (mut endpoint, _) = arrivals.request_on(kept).await;
        endpoint.send(answer).await;
        for (position, part) in parts.iter().enumerate() {
            endpoint.send(part).await;
            if position == 0 {
                client.head().await;
            }
            assert_eq!(client.until(part).await, *part);
        }
        if parts.is_empty() {
            let head = client.head().await;
            assert_eq!(head.contains("content-length: 6"), method == "HEAD", "{head}");
        }
        kept = Some(endpoint);
    }
}
