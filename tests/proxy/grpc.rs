//! gRPC: what Floodway itself answers is told in its words, deadlines are kept, and nothing broken looks like an end.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use floodway::snapshot::{Action, Protocol, Route, Snapshot};
use h2::Reason;
use http::{HeaderValue, Request};

use super::clients::*;
use super::support::*;

fn to_http2(endpoint: SocketAddr) -> Snapshot {
    snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http2, &[endpoint])])
}

fn call(path: &str) -> Request<()> {
    let mut request = post(path);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request
}

/// A route whose endpoint has little time for its head.
fn hasty(prefix: &str, cluster: &str) -> Route {
    let mut route = forward(prefix, cluster);
    if let Action::Forward(action) = &mut route.action {
        action.timeouts.response_head = Duration::from_millis(50);
    }
    route
}

#[tokio::test]
async fn failures_are_told_in_the_words_of_grpc() {
    let (silent, _arrivals) = played().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let routes = vec![forward("/none", "none"), forward("/closed", "closed"), hasty("/slow", "slow")];
    let clusters = vec![
        cluster("none", Protocol::Http2, &[]),
        cluster("closed", Protocol::Http2, &[closed]),
        cluster("slow", Protocol::Http1, &[silent]),
    ];
    let plane = Plane::start(snapshot(routes, clusters));
    let client = http2(plane.address).await;
    for (path, status, reason) in [
        ("/elsewhere", "12", "no_route"),
        ("/none", "14", "no_endpoint"),
        ("/closed", "14", "connect_failed"),
        ("/slow", "4", "head_timeout"),
    ] {
        let mut answer = ask(&client, call(path)).await;
        let field = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((answer.status().as_u16(), &*field("content-type")), (200, "application/grpc"), "{path}");
        assert_eq!((&*field("grpc-status"), &*field("x-floodway-reason")), (status, reason), "{path}");
        assert!(!field("grpc-message").is_empty() && answer.headers().contains_key("x-request-id"));
        assert!(answer.body().is_end_stream(), "trailers only");
        assert!(content(answer.body_mut()).await.unwrap().0.is_empty());
        let line = plane.logged(path).await;
        assert_eq!((&line["status"], &line["reason"]), (&200.into(), &reason.into()), "{line}");
    }
    // The same failure in other words for everybody else.
    assert_eq!(ask(&client, get("/none")).await.status(), 503);
}

#[tokio::test]
async fn the_deadline_of_the_client_is_kept_and_passed_on() {
    let (told, mut ended) = tokio::sync::mpsc::channel(1);
    let endpoint = http2_backend(move |request, mut answer| {
        let told = told.clone();
        async move {
            assert_eq!(request.headers()["grpc-timeout"], "100m");
            let reset = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
            let _ = told.send(reset.unwrap()).await;
        }
    });
    let plane = Plane::start(to_http2(endpoint.await));
    let client = http2(plane.address).await;
    let mut request = call("/deadline");
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("100m"));
    let answer = ask(&client, request).await;
    assert_eq!(
        (&answer.headers()["grpc-status"], &answer.headers()["x-floodway-reason"]),
        (&HeaderValue::from_static("4"), &HeaderValue::from_static("request_timeout"))
    );
    assert_eq!(within(ended.recv()).await, Some(Reason::CANCEL), "the endpoint need not go on");

    let mut request = call("/malformed");
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("soon"));
    let answer = ask(&client, request).await;
    assert_eq!(
        (&answer.headers()["grpc-status"], &answer.headers()["x-floodway-reason"]),
        (&HeaderValue::from_static("13"), &HeaderValue::from_static("bad_request"))
    );
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_reset_whatever_broke_it() {
    let endpoint = http2_backend(|request, mut answer| async move {
        let mut response = http::Response::new(());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let mut stream = answer.send_response(response, false).unwrap();
        stream.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), false).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        match request.uri().path() {
            // To some libraries CANCEL and NO_ERROR look like an end.
            "/cancel" => stream.send_reset(Reason::CANCEL),
            "/none" => stream.send_reset(Reason::NO_ERROR),
            _ => stream.send_reset(Reason::INTERNAL_ERROR),
        }
    });
    let plane = Plane::start(to_http2(endpoint.await));
    let client = http2(plane.address).await;
    for path in ["/cancel", "/none", "/internal"] {
        let mut answer = ask(&client, call(path)).await;
        assert_eq!(piece(answer.body_mut()).await.unwrap().unwrap(), "\0\0\0\0\x02hi");
        let end = piece(answer.body_mut()).await.unwrap().unwrap_err();
        assert_eq!(end.reason(), Some(Reason::INTERNAL_ERROR), "{path}");
        let line = plane.logged(path).await;
        assert_eq!((&line["end"], &line["reason"]), (&"upstream_cut".into(), &"upstream_cut".into()), "{line}");
    }
}
