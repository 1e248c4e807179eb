//! gRPC: what Floodway itself answers is told in its words, deadlines are kept, and nothing broken looks like an end.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use floodway::snapshot::{Action, Protocol, Route, Snapshot, Streaming};
use h2::Reason;
use http::{HeaderValue, Request, Response};

use super::clients::*;
use super::farewell::{AGE, says_max_age, streaming};
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
    let closed = refusing();
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

fn message(length: u8) -> Bytes {
    [&[0, 0, 0, 0, length][..], &vec![b'x'; length.into()]].concat().into()
}

#[tokio::test]
async fn grpc_streams_end_behind_a_whole_message_with_a_status() {
    let (sender, mut arrivals) = tokio::sync::mpsc::channel(16);
    let address = http2_backend(move |request, mut answer| {
        let sender = sender.clone();
        async move {
            let mut response = Response::new(());
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let stream = answer.send_response(response, false).unwrap();
            sender.send((request, stream)).await.unwrap();
        }
    })
    .await;
    let wishes = Streaming { max_age: Some(AGE), ..Streaming::default() };
    let plane = Plane::start(streaming(address, Protocol::Http2, wishes));
    let mut client = http2(plane.address).await;

    let (answer, mut upload) = client.send_request(post("/within"), false).unwrap();
    let mut within_message = within(answer).await.unwrap().into_body();
    let (_request, mut endpoint) = within(arrivals.recv()).await.unwrap();
    let begun = [message(3), message(200)].concat();
    endpoint.send_data(Bytes::copy_from_slice(&begun[..10]), false).unwrap();
    assert_eq!(piece(&mut within_message).await.unwrap().unwrap(), begun[..10]);

    let (answer, mut other_upload) = client.send_request(post("/between"), false).unwrap();
    let mut between = within(answer).await.unwrap().into_body();
    let (_other_request, mut other) = within(arrivals.recv()).await.unwrap();
    other.send_data(message(5), false).unwrap();
    let (content_between, trailers) = content(&mut between).await.unwrap();
    let trailers = trailers.unwrap();
    assert_eq!((content_between, &trailers["grpc-status"]), (message(5).to_vec(), &HeaderValue::from_static("14")));
    assert_eq!(trailers["grpc-message"], "stream reached its greatest age");
    // RFC 9113 8.1: "a server MAY request that the client abort transmission of a request without error by sending a
    // RST_STREAM with an error code of NO_ERROR after sending a complete response".
    let reset = within(std::future::poll_fn(|cx| other_upload.poll_reset(cx))).await.unwrap();
    assert_eq!(reset, h2::Reason::NO_ERROR);
    says_max_age(&plane, "/between", message(5).len()).await;

    endpoint.send_data(Bytes::copy_from_slice(&[&begun[10..], b"\0\0\0\0"].concat()), false).unwrap();
    let (rest, trailers) = content(&mut within_message).await.unwrap();
    assert_eq!(rest, begun[10..]);
    assert_eq!(trailers.unwrap()["grpc-status"], "14");
    let reset = within(std::future::poll_fn(|cx| upload.poll_reset(cx))).await.unwrap();
    assert_eq!(reset, h2::Reason::NO_ERROR);
    says_max_age(&plane, "/within", begun.len()).await;
    // The endpoint learns of it, and its connection carries on.
    within(std::future::poll_fn(|cx| endpoint.poll_reset(cx))).await.unwrap();
    assert_eq!(plane.metric("floodway_upstream_connects_total", ""), 1.0);
}
