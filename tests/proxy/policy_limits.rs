//! How large requests may be, and of which kinds, by what a policy says: each limit, and what the answer tells of it.

use std::sync::Arc;

use floodway::snapshot::{MediaTypes, Methods, Policy, Protocol, RequestLimits};
use http::Method;

use super::endpoints::{Message, Witness, nothing_is_left};
use super::policies::under;
use super::support::*;

async fn limited(limits: RequestLimits, settings: Option<u64>) -> (Plane, Witness) {
    let endpoint = Witness::start().await;
    let policy = Policy { request_limits: Some(Arc::new(limits)), ..Policy::default() };
    let routes = vec![under(policy, forward("/limited", "backend")), forward("/", "backend")];
    let clusters = vec![cluster("backend", Protocol::Http1, &[endpoint.address])];
    let plane = Plane::with(snapshot(routes, clusters), |given| given.limits.body_bytes = settings);
    (plane, endpoint)
}

fn refused(answer: &str, status: u16, reason: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {answer}");
    assert!(answer.contains(&format!("\r\nx-floodway-reason: {reason}\r\n")), "{reason}: {answer}");
}

#[tokio::test]
async fn announced_content_is_refused_at_once_and_streamed_content_is_cut() {
    let (plane, endpoint) = limited(RequestLimits { body_bytes: Some(10), ..RequestLimits::default() }, None).await;
    // Nothing of the content is sent: the answer does not wait for it.
    let mut client = plane.connect().await;
    client.send("POST /limited HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n").await;
    refused(&client.to_end().await, 413, "body_too_large");
    assert!(endpoint.take().is_empty(), "it reaches nobody");

    let chunked =
        "POST /limited HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    refused(&plane.exchange(chunked).await, 413, "body_too_large");
    nothing_is_left(&plane).await;
    for seen in endpoint.take() {
        assert!(matches!(&seen, Message::Cut(text) if !text.contains("world")), "{seen:?}");
    }
    for path in ["/limited", "/"] {
        let length = if path == "/" { 11 } else { 10 };
        let content = "x".repeat(length);
        let whole = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}"
        );
        assert!(plane.exchange(whole).await.starts_with("HTTP/1.1 200 "), "{path}");
    }
}

#[tokio::test]
async fn a_policy_raises_what_the_settings_allow() {
    let (plane, _endpoint) =
        limited(RequestLimits { body_bytes: Some(20), ..RequestLimits::default() }, Some(10)).await;
    let post = |path: &str, content: &str| {
        let length = content.len();
        let announced = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}"
        );
        let streamed = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
             {length:x}\r\n{content}\r\n0\r\n\r\n"
        );
        [announced, streamed]
    };
    for request in post("/limited", "fifteen letters") {
        assert!(plane.exchange(request).await.starts_with("HTTP/1.1 200 "));
    }
    for request in post("/", "fifteen letters").into_iter().chain(post("/limited", "a text of many letters")) {
        refused(&plane.exchange(request).await, 413, "body_too_large");
    }
}

#[tokio::test]
async fn fields_methods_and_types_of_content_are_limited() {
    let limits = RequestLimits {
        header_bytes: Some(300),
        methods: Some(Methods::new([Method::GET, Method::POST])),
        content_types: Some(MediaTypes::new(["application/json", "image/*"])),
        ..RequestLimits::default()
    };
    let (plane, endpoint) = limited(limits, None).await;
    let ask = |method: &str, path: &str, rest: &str| {
        plane.exchange(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{rest}"))
    };
    let large = format!("X: {}\r\n\r\n", "y".repeat(300));
    refused(&ask("GET", "/limited", &large).await, 431, "headers_too_large");
    assert!(ask("GET", "/", &large).await.starts_with("HTTP/1.1 200 "));

    let answer = ask("DELETE", "/limited", "\r\n").await;
    refused(&answer, 405, "method_not_allowed");
    assert_eq!(answer.matches("\r\nallow: GET, POST, HEAD\r\n").count(), 1, "{answer}");
    assert_eq!(answer.matches("\r\nallow:").count(), 1, "{answer}");

    for fields in ["", "Content-Type: text/html\r\n", "Content-Type: image/png\r\nContent-Type: text/html\r\n"] {
        let answer = ask("POST", "/limited", &format!("{fields}Content-Length: 1\r\n\r\nx")).await;
        refused(&answer, 415, "content_type");
        assert!(answer.contains("\r\naccept: application/json, image/*\r\n"), "{answer}");
    }
    endpoint.take();
    for rest in
        ["Content-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}", "Content-Length: 0\r\n\r\n"]
    {
        assert!(ask("POST", "/limited", rest).await.starts_with("HTTP/1.1 200 "), "{rest}");
    }
    assert!(ask("HEAD", "/limited", "\r\n").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(endpoint.take().len(), 3);
}
