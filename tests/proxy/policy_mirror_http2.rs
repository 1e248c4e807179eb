//! Copies of requests over HTTP/2, from its clients and to services that speak it; and services that speak it and never answer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use floodway::snapshot::{Mirror, Protocol};
use h2::{RecvStream, client};
use http::Request;
use tokio::sync::mpsc;

use super::clients::*;
use super::policies::under;
use super::policy_mirror::copying;
use super::support::*;

fn plane(change: impl FnOnce(&mut Mirror), backend: (Protocol, SocketAddr), next: (Protocol, SocketAddr)) -> Plane {
    let clusters = vec![cluster("backend", backend.0, &[backend.1]), cluster("next", next.0, &[next.1])];
    Plane::start(snapshot(vec![under(copying(change), forward("", "backend"))], clusters))
}

/// What an endpoint got.
type Got = (http::request::Parts, Vec<u8>);

/// An endpoint that tells what it gets, and says nothing but yes.
async fn telling() -> (SocketAddr, mpsc::Receiver<Got>) {
    let (tell, told) = mpsc::channel(100);
    let address = http2_backend(move |request: Request<RecvStream>, mut answer| {
        let tell = tell.clone();
        async move {
            let (head, mut body) = request.into_parts();
            let (all, _) = content(&mut body).await.unwrap();
            let _ = tell.try_send((head, all));
            let _ = answer.send_response(http::Response::new(()), true);
        }
    });
    (address.await, told)
}

/// The status of the answer to a request with content.
async fn put(client: &client::SendRequest<Bytes>, path: &str, said: &[u8]) -> u16 {
    let mut request = post(path);
    request.headers_mut().insert("authorization", http::HeaderValue::from_static("hush"));
    let mut client = within(client.clone().ready()).await.unwrap();
    let (answer, mut stream) = client.send_request(request, false).unwrap();
    within(send(&mut stream, Bytes::copy_from_slice(said), true)).await.unwrap();
    let mut answer = within(answer).await.unwrap();
    // To its end: a client that leaves before has no copy made.
    content(answer.body_mut()).await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn copies_are_made_of_http2_and_sent_over_it() {
    let long = vec![b'x'; 300_000];
    for backend_speaks in [Protocol::Http1, Protocol::Http2] {
        let backend = echo().await;
        let (next, mut copies) = telling().await;
        let policy = |mirror: &mut Mirror| (mirror.body_bytes, mirror.without_credentials) = (1 << 20, true);
        let plane = plane(policy, (backend_speaks, backend), (Protocol::Http2, next));
        let client = http2(plane.address).await;
        // More than the windows are at first, too.
        for content in [&b""[..], b"hello", &long] {
            assert_eq!(put(&client, "/a?b=c", content).await, 200);
            let (head, copied) = within(copies.recv()).await.unwrap();
            assert!(copied == content, "{} bytes of {}", copied.len(), content.len());
            assert_eq!((head.method, head.uri.path()), (http::Method::POST, "/a"));
            assert_eq!(
                (head.uri.query(), head.headers["x-floodway-mirror"].as_bytes()),
                (Some("b=c"), &b"test/route"[..])
            );
            assert!(!head.headers.contains_key("authorization"), "{:?}", head.headers);
        }
        plane.metric_becomes("floodway_mirrored_total", "outcome=\"sent\"", 3.0).await;
        // And of HTTP/1.1.
        let request = "POST /one HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        assert!(plane.exchange(request).await.starts_with("HTTP/1.1 200 "));
        let (head, copied) = within(copies.recv()).await.unwrap();
        assert_eq!((head.uri.path(), &copied[..]), ("/one", &b"hello"[..]));
    }
    // From HTTP/2 to HTTP/1.1.
    let next = super::endpoints::Witness::start().await;
    let plane = plane(|_| {}, (Protocol::Http1, echo().await), (Protocol::Http1, next.address));
    assert_eq!(put(&http2(plane.address).await, "/down", b"hello").await, 200);
    plane.metric_becomes("floodway_mirrored_total", "outcome=\"sent\"", 1.0).await;
    let copies = format!("{:?}", next.take());
    assert!(copies.contains("POST /down HTTP/1.1") && copies.contains("hello"), "{copies}");
}

/// One takes requests and gives no room for their content, the other one does not even begin to speak.
#[tokio::test]
async fn services_that_never_answer_slow_nothing_and_hold_no_more_than_they_may() {
    let deaf = http2_backend(|request, answer| async move {
        let _held = (request, answer);
        std::future::pending::<()>().await;
    });
    let (silent, _arrivals) = played().await;
    for next in [deaf.await, silent] {
        let policy = |mirror: &mut Mirror| (mirror.body_bytes, mirror.concurrent) = (1 << 20, 3);
        let plane = plane(policy, (Protocol::Http2, echo().await), (Protocol::Http2, next));
        let client = http2(plane.address).await;
        let content = vec![b'x'; 200_000];
        for _ in 0..20 {
            assert_eq!(put(&client, "/held", &content).await, 200);
        }
        plane.metric_becomes("floodway_mirrored_total", "outcome=\"dropped\"", 17.0).await;
        assert_eq!(plane.metric("floodway_mirrored_total", ""), 17.0, "three are under way");
    }
}

#[tokio::test]
async fn what_takes_too_long_is_given_up_and_makes_room() {
    let deaf = http2_backend(|request, answer| async move {
        let _held = (request, answer);
        std::future::pending::<()>().await;
    });
    let policy = |mirror: &mut Mirror| {
        (mirror.body_bytes, mirror.concurrent, mirror.timeout) = (1 << 20, 1, Duration::from_millis(200));
    };
    let plane = plane(policy, (Protocol::Http2, echo().await), (Protocol::Http2, deaf.await));
    let client = http2(plane.address).await;
    for given_up in 1..=3 {
        assert_eq!(put(&client, "/late", &vec![b'x'; 200_000]).await, 200);
        plane.metric_becomes("floodway_mirrored_total", "outcome=\"failed\"", f64::from(given_up)).await;
    }
    assert_eq!(plane.metric("floodway_mirrored_total", "outcome=\"dropped\""), 0.0);
}
