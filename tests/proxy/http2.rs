//! HTTP/2 with clients: streams side by side, flow control, trailers, and translation to HTTP/1.1.

use bytes::Bytes;
use floodway::snapshot::{Protocol, Snapshot};
use h2::client;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::clients::*;
use super::support::*;

fn to_http2(endpoint: std::net::SocketAddr) -> Snapshot {
    snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http2, &[endpoint])])
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers
}

#[tokio::test]
async fn requests_share_a_connection() {
    let plane = Plane::start(to(mirror().await));
    let client = http2(plane.address).await;
    let asking = (0..60).map(|number| {
        let client = client.clone();
        async move {
            let (all, _) = content(ask(&client, get(&format!("/{number}?a=b"))).await.body_mut()).await.unwrap();
            let head = String::from_utf8(all).unwrap();
            assert!(head.starts_with(&format!("GET /{number}?a=b HTTP/1.1\r\n")), "{head}");
            assert!(head.contains("\r\nhost: example.com\r\n") && !head.contains("\r\n:"), "{head}");
        }
    });
    futures_util::future::join_all(asking).await;
    assert_eq!(plane.metric("floodway_connections_total", ""), 1.0);
}

#[tokio::test]
async fn hypers_client_is_served_too() {
    let plane = Plane::start(to(echo().await));
    let stream = tokio::net::TcpStream::connect(plane.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request = post("/").map(|()| http_body_util::Full::new(Bytes::from_static(b"hello")));
    let answer = within(client.send_request(request)).await.unwrap();
    let content = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    assert_eq!(content, "hello");
}

#[tokio::test]
async fn big_bodies_pass_both_ways_at_once_through_small_windows() {
    let body: Bytes = (0..400_000_u32).map(|index| (index % 241) as u8).collect();
    for snapshot in [to(echo().await), to_http2(echo().await)] {
        let plane = Plane::start(snapshot);
        let mut settings = client::Builder::new();
        settings.initial_window_size(1000).initial_connection_window_size(70_000).max_send_buffer_size(1000);
        let client = http2_with(plane.address, &settings).await;
        let exchanges = (0..20).map(|number| {
            let (client, body) = (client.clone(), body.slice(number..));
            async move {
                let mut client = client.ready().await.unwrap();
                let (answer, mut stream) = client.send_request(post("/"), false).unwrap();
                let sending = send(&mut stream, body.clone(), true);
                let receiving = async { content(within(answer).await.unwrap().body_mut()).await };
                let (sent, received) = tokio::join!(within(sending), receiving);
                sent.unwrap();
                assert!(received.unwrap().0 == body, "stream {number}");
            }
        });
        futures_util::future::join_all(exchanges).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_not_read_does_not_hold_up_the_others() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut settings = client::Builder::new();
    settings.initial_window_size(65_535).initial_connection_window_size(1 << 20);
    let mut client = http2_with(plane.address, &settings).await;
    let (stalled, _) = client.send_request(get("/stalled"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    let _unread = within(stalled).await.unwrap();
    assert!(fill(&mut endpoint).await < 64 << 20, "the endpoint is held up");
    for number in 0..20 {
        let (answer, _) = client.send_request(get("/"), true).unwrap();
        let (mut other, _) = arrivals.request().await;
        other.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000))).await;
        let mut answer = within(answer).await.unwrap();
        assert_eq!(content(answer.body_mut()).await.unwrap().0.len(), 100_000, "{number}");
    }
}

#[tokio::test]
async fn an_upload_that_is_not_read_stops_the_client() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = http2(plane.address).await;
    let (answer, mut stream) = client.send_request(post("/"), false).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    let mut sent = 0;
    let patience = std::time::Duration::from_millis(500);
    while let Ok(more) = tokio::time::timeout(patience, send(&mut stream, Bytes::from(vec![b'x'; 60_000]), false)).await
    {
        more.unwrap();
        sent += 60_000;
    }
    assert!((1..64 << 20).contains(&sent), "{sent}");
    // It goes on as soon as somebody reads.
    let reading = async {
        let mut buffer = vec![0; 64 * 1024];
        while tokio::io::AsyncReadExt::read(&mut endpoint.0, &mut buffer).await.unwrap() > 0 {
            if buffer[..].windows(5).any(|end| end == b"0\r\n\r\n") {
                break;
            }
        }
        endpoint.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    };
    let finishing = send(&mut stream, Bytes::from_static(b"end"), true);
    let ((), finished) = within(async { tokio::join!(reading, finishing) }).await;
    finished.unwrap();
    assert_eq!(within(answer).await.unwrap().status(), 204);
}

#[tokio::test]
async fn trailers_pass_like_grpc_needs_them_over_http2() {
    let address = http2_backend(|mut request, mut answer| async move {
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.uri().authority().unwrap(), "example.com");
        let mut response = http::Response::new(());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        if request.uri().path() == "/fails" {
            response.headers_mut().extend(trailers("12"));
            answer.send_response(response, true).unwrap();
            return;
        }
        let mut stream = answer.send_response(response, false).unwrap();
        // Message by message: each is sent back before the next one comes.
        while let Some(message) = piece(request.body_mut()).await {
            stream.send_data(message.unwrap(), false).unwrap();
        }
        let got = request.body_mut().trailers().await.unwrap();
        assert_eq!(got.map(|trailers| trailers["grpc-status"].clone()), Some(HeaderValue::from_static("up")));
        stream.send_trailers(trailers("0")).unwrap();
    })
    .await;
    let plane = Plane::start(to_http2(address));
    let mut client = http2(plane.address).await;
    let call = |path| {
        let mut request = post(path);
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        request
    };
    let (answer, mut stream) = client.send_request(call("/calls"), false).unwrap();
    let mut answer = within(answer).await.unwrap();
    for number in 0..20 {
        stream.send_data(Bytes::from(format!("message {number}")), false).unwrap();
        assert_eq!(piece(answer.body_mut()).await.unwrap().unwrap(), format!("message {number}"));
    }
    stream.send_trailers(trailers("up")).unwrap();
    let (rest, got) = content(answer.body_mut()).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(got.unwrap()["grpc-status"], "0");
    let line = plane.logged("/calls").await;
    assert_eq!((&line["kind"], &line["end"]), (&"grpc".into(), &"complete".into()), "{line}");

    let (answer, mut stream) = client.send_request(call("/fails"), false).unwrap();
    stream.send_data(Bytes::from_static(b"x"), true).unwrap();
    let mut answer = within(answer).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert!(content(answer.body_mut()).await.unwrap().0.is_empty());
}

#[tokio::test]
async fn trailers_pass_between_http2_and_http1() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = http2(plane.address).await;
    let mut request = post("/");
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request.headers_mut().insert("trailer", HeaderValue::from_static("grpc-status"));
    let (answer, mut stream) = client.send_request(request, false).unwrap();
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.contains("\r\nte: trailers\r\n") && head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    stream.send_trailers(trailers("up")).unwrap();
    assert_eq!(endpoint.until("\r\n\r\n").await, "5\r\nhello\r\n0\r\ngrpc-status: up\r\n\r\n");
    endpoint.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n").await;
    endpoint.send("2\r\nyo\r\n0\r\ngrpc-status: 0\r\ncontent-length: 9\r\n\r\n").await;
    let mut answer = within(answer).await.unwrap();
    let (content, trailers) = content(answer.body_mut()).await.unwrap();
    let trailers = trailers.unwrap();
    assert_eq!((&content[..], &trailers["grpc-status"]), (&b"yo"[..], &HeaderValue::from_static("0")));
    assert!(!trailers.contains_key("content-length"), "{trailers:?}");
}

#[tokio::test]
async fn cookies_are_joined_for_http1() {
    let plane = Plane::start(to(mirror().await));
    let client = http2(plane.address).await;
    let mut request = get("/");
    for crumb in ["a=1", "b=2", "c=3"] {
        request.headers_mut().append("cookie", HeaderValue::from_static(crumb));
    }
    let (all, _) = content(ask(&client, request).await.body_mut()).await.unwrap();
    let head = String::from_utf8(all).unwrap();
    assert!(head.contains("\r\ncookie: a=1; b=2; c=3\r\n"), "{head}");
}

#[tokio::test]
async fn answers_without_content_have_none() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let client = http2(plane.address).await;
    let mut endpoint = None;
    for (method, answer, status, length) in [
        ("HEAD", "200 OK\r\nContent-Length: 1234", 200, Some("1234")),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked", 200, None),
        ("GET", "204 No Content", 204, None),
        ("GET", "304 Not Modified\r\nContent-Length: 55\r\nETag: \"x\"", 304, Some("55")),
        ("GET", "200 OK\r\nContent-Length: 0", 200, Some("0")),
    ] {
        let mut request = get("/");
        *request.method_mut() = method.parse().unwrap();
        let playing = async {
            let (mut connection, head) = arrivals.request_on(endpoint.take()).await;
            assert!(head.starts_with(method), "{head}");
            connection.send(format!("HTTP/1.1 {answer}\r\n\r\n")).await;
            endpoint = Some(connection);
        };
        let ((), mut got) = tokio::join!(playing, ask(&client, request));
        assert_eq!(got.status(), StatusCode::from_u16(status).unwrap());
        assert_eq!(got.headers().get("content-length").map(|length| length.to_str().unwrap()), length, "{answer}");
        assert!(!got.headers().contains_key("transfer-encoding"));
        assert!(content(got.body_mut()).await.unwrap().0.is_empty());
    }
}

#[tokio::test]
async fn errors_explain_themselves() {
    let plane = Plane::start(snapshot(vec![forward("/x", "gone")], vec![cluster("gone", Protocol::Http1, &[])]));
    let client = http2(plane.address).await;
    for (path, status, reason) in [("/", 404, "no_route"), ("/x", 503, "no_endpoint")] {
        let mut request = get(path);
        request.headers_mut().insert("accept", HeaderValue::from_static("application/json"));
        let mut answer = ask(&client, request).await;
        assert_eq!(answer.status(), StatusCode::from_u16(status).unwrap());
        assert_eq!(answer.headers()["x-floodway-reason"], reason);
        let text = content(answer.body_mut()).await.unwrap().0;
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&json["status"], &json["reason"]), (&status.into(), &reason.into()));
        assert_eq!(answer.headers()["x-request-id"], json["requestId"].as_str().unwrap());
    }
}
