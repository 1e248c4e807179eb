//! Calls of gRPC that are made again by the code that they ended with: in the head, or in trailers that came while the answer
//! was held. What is a stream is held for a moment at most.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use floodway::snapshot::{Protocol, Retry, Snapshot};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};

use super::clients::{content, http2, http2_backend, piece, post};
use super::retries::{eager, retrying_by};
use super::support::*;

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn ended(code: &str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())])
}

fn call() -> Request<()> {
    let mut request = post("/shop.Cart/Add");
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request
}

fn plane(endpoint: SocketAddr, hold_bytes: u64) -> Plane {
    let retry = Retry { hold_bytes, ..eager() };
    Plane::start(calling(endpoint, retry))
}

fn calling(endpoint: SocketAddr, retry: Retry) -> Snapshot {
    retrying_by(cluster("backend", Protocol::Http2, &[endpoint]), retry)
}

/// Says a call back, and how it ended.
fn echo(mut answer: SendResponse<Bytes>, message: Vec<u8>) {
    let mut stream = answer.send_response(head(), false).unwrap();
    stream.send_data(message.into(), false).unwrap();
    stream.send_trailers(ended("0")).unwrap();
}

/// Makes a call and returns what it ended with: a message, and a status.
async fn made(plane: &Plane) -> (Vec<u8>, String) {
    let mut client = http2(plane.address).await;
    let (answer, mut stream) = client.send_request(call(), false).unwrap();
    stream.send_data(Bytes::from_static(b"message"), true).unwrap();
    let mut answer = within(answer).await.unwrap();
    let (all, trailers) = content(answer.body_mut()).await.unwrap();
    let status = trailers.unwrap_or_else(|| answer.headers().clone())["grpc-status"].clone();
    (all, status.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn calls_of_grpc_are_made_again_by_their_code() {
    for (code, calls) in [("14", 2), ("3", 1)] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let endpoint = http2_backend(move |mut request, mut answer| {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                let (all, _) = content(request.body_mut()).await.unwrap();
                if number > 0 {
                    return echo(answer, all);
                }
                let mut head = head();
                head.headers_mut().extend(ended(code));
                answer.send_response(head, true).unwrap();
            }
        });
        let plane = plane(endpoint.await, 0);
        let expected = if calls == 2 { (b"message".to_vec(), "0") } else { (Vec::new(), code) };
        assert_eq!(made(&plane).await, (expected.0, expected.1.to_owned()));
        assert_eq!(count.load(Ordering::Relaxed), calls);
    }
}

#[tokio::test]
async fn calls_that_fail_behind_a_head_are_made_again_while_all_of_their_answer_is_held() {
    for (hold_bytes, length, code, calls) in [
        (1000, 0, "14", 2),
        (1000, 100, "14", 2),
        (1000, 2000, "14", 1),
        (1000, 0, "3", 1),
        (1000, 100, "x", 1),
        (0, 0, "14", 1),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let endpoint = http2_backend(move |mut request, mut answer| {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                let (all, _) = content(request.body_mut()).await.unwrap();
                if number > 0 {
                    return echo(answer, all);
                }
                let mut stream = answer.send_response(head(), false).unwrap();
                if length > 0 {
                    stream.send_data(vec![b'x'; length].into(), false).unwrap();
                }
                stream.send_trailers(ended(code)).unwrap();
            }
        });
        let plane = plane(endpoint.await, hold_bytes);
        let (message, status) = made(&plane).await;
        let what = format!("{code} behind {length} bytes with {hold_bytes}");
        assert_eq!(count.load(Ordering::Relaxed), calls, "{what}");
        match calls {
            2 => assert_eq!((&message[..], &*status), (&b"message"[..], "0"), "{what}"),
            _ => assert_eq!((message.len(), &*status), (length, code), "{what}: nothing is lost"),
        }
        assert_eq!(plane.logged("/shop.Cart/Add").await["attempts"], calls, "{what}");
        let helped = plane.metric("floodway_upstream_retries_total", "outcome=\"answered\",reason=\"grpc\"");
        assert_eq!(helped, calls as f64 - 1.0, "{what}");
    }
}

#[tokio::test]
async fn the_last_failure_behind_a_head_is_the_clients() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let endpoint = http2_backend(move |mut request, mut answer| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            content(request.body_mut()).await.unwrap();
            answer.send_response(head(), false).unwrap().send_trailers(ended("14")).unwrap();
        }
    });
    let plane = plane(endpoint.await, 1000);
    assert_eq!(made(&plane).await, (Vec::new(), "14".to_owned()));
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

/// A client may say nothing before it has the head, and an endpoint nothing more before it hears something.
#[tokio::test]
async fn a_call_of_many_messages_is_not_held_up() {
    let endpoint = http2_backend(|mut request, mut answer| async move {
        let mut stream = answer.send_response(head(), false).unwrap();
        while let Some(message) = piece(request.body_mut()).await {
            stream.send_data(message.unwrap(), false).unwrap();
        }
        stream.send_trailers(ended("14")).unwrap();
    });
    let plane = plane(endpoint.await, 1_000_000);
    let mut client = http2(plane.address).await;
    let (answer, mut stream) = client.send_request(call(), false).unwrap();
    let mut answer = within(answer).await.unwrap();
    for _ in 0..3 {
        stream.send_data(Bytes::from_static(b"message"), false).unwrap();
        assert_eq!(piece(answer.body_mut()).await.unwrap().unwrap(), "message");
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let (rest, trailers) = content(answer.body_mut()).await.unwrap();
    assert_eq!((rest.len(), &trailers.unwrap()["grpc-status"]), (0, &HeaderValue::from_static("14")));
    assert_eq!(plane.logged("/shop.Cart/Add").await["attempts"], 1, "the client had the head");
}
