//! Streams over TLS: every event and every message leaves when it came, as without. And whoever comes without TLS finds the way.

use std::sync::Arc;

use floodway::snapshot::{HostPattern, Protocol, Redirect, Router, Transport, VirtualHost};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use super::clients::{ask, piece};
use super::sse::{EVENTS, chunk, event};
use super::support::*;
use super::tls_clients::*;
use super::websocket::echo;

async fn until(client: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        all.push(within(client.read_u8()).await.unwrap());
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn messages_of_a_websocket_pass() {
    let authority = Authority::new();
    let plane = secure(ended(to(echo().await), "a.test", &[&authority.certificate(&["a.test"])]));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(authority.trusted_with(&["http/1.1"], &[version]));
        let stream = shake(plane.secure, "a.test", &config).await.unwrap();
        let (mut socket, _) = Box::pin(within(client_async("wss://a.test/socket", stream))).await.unwrap();
        let large: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
        for message in [Message::text("hello"), Message::binary(large), Message::text("x".repeat(70_000))] {
            socket.send(message.clone()).await.unwrap();
            assert!(within(socket.next()).await.unwrap().unwrap() == message);
        }
        let goodbye = CloseFrame { code: 4001.into(), reason: "enough".into() };
        socket.close(Some(goodbye.clone())).await.unwrap();
        assert_eq!(within(socket.next()).await.unwrap().unwrap(), Message::Close(Some(goodbye)));
        assert!(within(socket.next()).await.is_none());
    }
    for line in plane.logged_times("/socket", 2).await {
        assert_eq!((&line["kind"], &line["end"]), (&"websocket".into(), &"complete".into()), "{line}");
        assert!(line["tls_version"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn events_leave_one_by_one() {
    let authority = Authority::new();
    let (address, mut arrivals) = played().await;
    let plane = secure(ended(to(address), "a.test", &[&authority.certificate(&["a.test"])]));
    let mut client = shake(plane.secure, "a.test", &Arc::new(authority.trusted(&["http/1.1"]))).await.unwrap();
    client.write_all(b"GET /events HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
    until(&mut client, "\r\n\r\n").await;
    let stream = shake(plane.secure, "a.test", &Arc::new(authority.trusted(&["h2"]))).await.unwrap();
    let (two, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let asking = ask(&two, http::Request::get("https://a.test/events").body(()).unwrap());
    let answering = async {
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
        endpoint
    };
    let (mut answer, mut other) = tokio::join!(asking, answering);
    for number in 0..50 {
        // The next event is not sent before this one has arrived: whatever held it back would hang here.
        endpoint.send(chunk(&event(number))).await;
        assert_eq!(until(&mut client, "\n\n\r\n").await, chunk(&event(number)));
        other.send(chunk(&event(number))).await;
        assert_eq!(piece(answer.body_mut()).await.unwrap().unwrap(), event(number).as_bytes());
    }
    endpoint.send("0\r\n\r\n").await;
    assert_eq!(until(&mut client, "0\r\n\r\n").await, "0\r\n\r\n");
}

/// Whoever comes without TLS is sent to it, comes with it, and is told to do so the next time.
#[tokio::test]
async fn whoever_comes_without_tls_finds_the_way() {
    let authority = Authority::new();
    let backend = mirror().await;
    let plane = secure(floodway::snapshot::Snapshot::default());
    let mut route = forward("", "backend");
    route.transport = Some(Arc::new(Transport {
        redirect: Some(Redirect {
            scheme: Some("https".into()),
            host: None,
            port: Some(plane.secure.port()),
            path: None,
            status: http::StatusCode::PERMANENT_REDIRECT,
        }),
        hsts: Some(http::HeaderValue::from_static("max-age=31536000; includeSubDomains")),
        ..Transport::default()
    }));
    let mut table = snapshot(vec![], vec![cluster("backend", Protocol::Http1, &[backend])]);
    let host = Arc::new(VirtualHost::build(vec![Arc::new(route)]));
    table.router = Router::build([(HostPattern::parse("a.test").unwrap(), host)]);
    assert!(plane.publisher.publish(ended(table, "a.test", &[&authority.certificate(&["a.test"])])));
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    let moved = plane.exchange(request("/x?y=z")).await;
    assert!(moved.starts_with("HTTP/1.1 308 ") && !moved.contains("strict-transport-security"), "{moved}");
    let place = moved.split("location: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let path = place.strip_prefix(&format!("https://a.test:{}", plane.secure.port())).unwrap();
    let mut client = shake(plane.secure, "a.test", &Arc::new(authority.trusted(&["http/1.1"]))).await.unwrap();
    client.write_all(request(path).as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("GET /x?y=z "), "{answer}");
    assert!(answer.contains("\r\nstrict-transport-security: max-age=31536000; includeSubDomains\r\n"), "{answer}");
}
