//! WebSockets and other upgrades: tunnels carry what comes, both ways, and end as their sides end.

use std::time::Duration;

use floodway::snapshot::{Action, Respond, Snapshot};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use super::clients::{get, http2};
use super::sse::with_idle;
use super::support::*;

pub const UPGRADE: &str = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
pub const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// An endpoint that sends back every message; `"bye <code>"` makes it close with that code.
pub async fn echo() -> std::net::SocketAddr {
    #[allow(clippy::result_large_err, reason = "tungstenite's signature")]
    fn agree(request: &Request, mut response: Response) -> Result<Response, http::Response<Option<String>>> {
        // What is asked for is agreed to, in so many words: the proxy has no opinion on it.
        for name in ["sec-websocket-protocol", "sec-websocket-extensions"] {
            for value in request.headers().get_all(name) {
                response.headers_mut().append(http::HeaderName::from_static(name), value.clone());
            }
        }
        Ok(response)
    }
    backend(|connection| async move {
        let Ok(mut socket) = accept_hdr_async(connection.0, agree).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Text(text) if text.starts_with("bye ") => {
                    let code = text[4..].parse::<u16>().unwrap().into();
                    let _ = socket.close(Some(CloseFrame { code, reason: "told to".into() })).await;
                }
                Message::Text(_) | Message::Binary(_) => socket.send(message).await.unwrap(),
                _ => {}
            }
        }
    })
    .await
}

pub async fn open(plane: &Plane) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(plane.address).await.unwrap();
    within(client_async("ws://example.com/socket", stream)).await.unwrap().0
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Message {
    within(socket.next()).await.unwrap().unwrap()
}

/// A tunnel whose sides the test plays: client and endpoint.
pub async fn tunnel(plane: &Plane, arrivals: &mut Arrivals) -> (Raw, Raw) {
    let mut client = plane.connect().await;
    client.send(format!("GET /socket HTTP/1.1\r\n{UPGRADE}\r\n")).await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{SWITCHED}\r\n")).await;
    client.head().await;
    (client, endpoint)
}

#[tokio::test]
async fn messages_of_every_kind_pass_both_ways() {
    let plane = Plane::start(to(echo().await));
    let mut request = "ws://example.com/socket".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "chat.v2".parse().unwrap());
    let stream = TcpStream::connect(plane.address).await.unwrap();
    let (mut socket, response) = within(client_async(request, stream)).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat.v2");
    assert!(response.headers().contains_key("x-request-id"));
    plane.metric_becomes("floodway_active_streams", "websocket", 1.0).await;

    let large: Vec<u8> = (0..5_000_000_u32).map(|index| (index % 251) as u8).collect();
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::binary(vec![0, 255, 13, 10]),
        Message::text("x".repeat(200_000)),
        Message::binary(large),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert!(next(&mut socket).await == message);
    }
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong("are you there".into()));

    socket.close(Some(CloseFrame { code: 4001.into(), reason: "enough".into() })).await.unwrap();
    match next(&mut socket).await {
        Message::Close(Some(frame)) => assert_eq!((u16::from(frame.code), &*frame.reason), (4001, "enough")),
        other => panic!("{other}"),
    }
    assert!(within(socket.next()).await.is_none());
    drop(socket);
    let line = plane.logged("/socket").await;
    assert_eq!((&line["kind"], &line["end"], &line["status"]), (&"websocket".into(), &"complete".into(), &101.into()));
    for bytes in ["bytes_received", "bytes_sent"] {
        let bytes = line[bytes].as_u64().unwrap();
        assert!((5_200_000..5_201_000).contains(&bytes), "{line}");
    }
    plane.metric_becomes("floodway_active_streams", "websocket", 0.0).await;
}

#[tokio::test]
async fn the_endpoint_closes_with_its_own_code() {
    let plane = Plane::start(to(echo().await));
    let mut socket = open(&plane).await;
    socket.send(Message::text("bye 4321")).await.unwrap();
    match next(&mut socket).await {
        Message::Close(Some(frame)) => assert_eq!((u16::from(frame.code), &*frame.reason), (4321, "told to")),
        other => panic!("{other}"),
    }
    drop(socket);
    plane.logged("/socket").await;
}

#[tokio::test]
async fn the_handshake_passes_untouched() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    let asked = "Sec-WebSocket-Protocol: soap, wamp\r\n\
                 Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nOrigin: http://x\r\n";
    client.send(format!("GET /socket?a=b HTTP/1.1\r\n{UPGRADE}{asked}\r\n")).await;
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.starts_with("GET /socket?a=b HTTP/1.1\r\n"), "{head}");
    for field in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-protocol: soap, wamp",
        "sec-websocket-extensions: permessage-deflate; client_max_window_bits",
        "origin: http://x",
    ] {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} in {head}");
    }
    endpoint.send(format!("{SWITCHED}Sec-WebSocket-Extensions: permessage-deflate; x=1\r\n\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    for field in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "sec-websocket-extensions: permessage-deflate; x=1",
    ] {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} in {head}");
    }
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn early_bytes_of_both_sides_arrive() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send(format!("GET /socket HTTP/1.1\r\n{UPGRADE}\r\nearly bird")).await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{SWITCHED}\r\nearly too")).await;
    client.head().await;
    client.until("early too").await;
    endpoint.until("early bird").await;
    client.send("later").await;
    endpoint.until("later").await;
}

#[tokio::test]
async fn each_side_may_end_before_the_other() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    for client_first in [true, false] {
        let (client, endpoint) = tunnel(&plane, &mut arrivals).await;
        let (mut first, mut second) = if client_first { (client, endpoint) } else { (endpoint, client) };
        first.send("last words").await;
        first.0.shutdown().await.unwrap();
        assert_eq!(second.to_end().await, "last words");
        second.send("I still speak").await;
        first.until("I still speak").await;
        second.send("a while").await;
        first.until("a while").await;
        drop(second);
        assert!(!first.closed().await, "an end, not a reset");
    }
    for line in plane.logged_times("/socket", 2).await {
        assert_eq!(line["end"], "complete");
    }
}

#[tokio::test]
async fn the_loss_of_one_side_reaches_the_other() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let (client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    client.reset();
    assert!(endpoint.closed().await, "a reset");
    assert_eq!(plane.logged_times("/socket", 1).await[0]["end"], "client_gone");
    let (mut client, endpoint) = tunnel(&plane, &mut arrivals).await;
    endpoint.reset();
    assert!(client.closed().await, "a reset");
    assert_eq!(plane.logged_times("/socket", 2).await[1]["end"], "upstream_cut");
}

#[tokio::test]
async fn a_refused_upgrade_passes_the_answer_on() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    let mut endpoint = None;
    for (status, field) in [("403 Forbidden", "x-why: not you"), ("426 Upgrade Required", "sec-websocket-version: 8")] {
        client.send(format!("GET /socket HTTP/1.1\r\n{UPGRADE}\r\n")).await;
        let (mut connection, _) = arrivals.request_on(endpoint.take()).await;
        connection.send(format!("HTTP/1.1 {status}\r\n{field}\r\nContent-Length: 6\r\n\r\nsorry\n")).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")) && head.contains(field), "{head}");
        assert!(!head.contains("\r\nconnection:") && !head.contains("\r\nupgrade:"), "{head}");
        client.until("sorry\n").await;
        endpoint = Some(connection);
    }
    client.send("GET /more HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut connection, head) = arrivals.request_on(endpoint).await;
    assert!(head.starts_with("GET /more "), "{head}");
    connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204"));
    for line in plane.logged_times("/socket", 2).await {
        assert_eq!((&line["kind"], &line["end"]), (&"http".into(), &"complete".into()));
    }
}

#[tokio::test]
async fn other_upgrades_are_answered_as_ordinary_requests() {
    let plane = Plane::start(to(mirror().await));
    let mut client = plane.connect().await;
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade: websocket\r\n",
        "HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "), "{fields}");
        let mirrored = client.head().await;
        for name in ["upgrade", "http2-settings", "connection"] {
            assert!(!mirrored.contains(&format!("\r\n{name}:")), "{fields}: {mirrored}");
        }
    }
    // HTTP/1.0 has no upgrades (RFC 9110 7.8), nor has POST a meaning for WebSocket (RFC 6455 4.1).
    for line in ["GET / HTTP/1.0", "POST / HTTP/1.1"] {
        let answer = plane
            .exchange(format!("{line}\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("upgrade"), "{answer}");
    }
}

#[tokio::test]
async fn a_switch_nobody_asked_for_is_a_bad_answer() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    for (asked, switched) in [
        ("Host: a\r\n", SWITCHED.to_owned()),
        (UPGRADE, SWITCHED.replace("websocket", "h2c")),
        (UPGRADE, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n".to_owned()),
    ] {
        let mut client = plane.connect().await;
        client.send(format!("GET /socket HTTP/1.1\r\n{asked}\r\n")).await;
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(format!("{switched}\r\n")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 502 ") && head.contains("upstream_protocol"), "{head}");
        endpoint.closed().await;
    }
    let mut client = http2(plane.address).await;
    let (answer, _) = client.send_request(get("/socket"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{SWITCHED}\r\n")).await;
    assert_eq!(within(answer).await.unwrap().status(), 502);
}

#[tokio::test]
async fn an_upgrade_with_content_is_refused() {
    let plane = Plane::start(to(mirror().await));
    for content in ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"] {
        let answer = plane.exchange(format!("GET /socket HTTP/1.1\r\n{UPGRADE}{content}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("bad_request"), "{answer}");
    }
}

#[tokio::test]
async fn silence_ends_a_tunnel_and_bytes_of_one_side_keep_it() {
    let idle = Duration::from_millis(600);
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(with_idle(address, idle));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let started = tokio::time::Instant::now();
    while started.elapsed() < 2 * idle {
        endpoint.send(b"\x81\x04tick").await;
        client.until("tick").await;
        tokio::time::sleep(idle / 20).await;
    }
    // Both are told; nobody is waited for.
    assert_eq!(client.rest().await.bytes, b"\x88\x06\x03\xe9idle");
    let told = endpoint.rest().await.bytes;
    assert!(told.starts_with(b"\x88\x86") && told.len() == 2 + 4 + 6, "{told:x?}");
    let line = plane.logged("/socket").await;
    assert_eq!((&line["end"], &line["reason"]), (&"idle".into(), &"idle".into()), "{line}");
}

#[tokio::test]
async fn a_side_that_does_not_read_stops_the_other() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    for client_writes in [true, false] {
        let (client, endpoint) = tunnel(&plane, &mut arrivals).await;
        let (mut writer, mut reader) = if client_writes { (client, endpoint) } else { (endpoint, client) };
        let written = fill(&mut writer).await;
        assert!(written < 64 << 20, "bounded by what the system buffers: {written}");
        // Nothing was lost.
        let mut read = 0;
        let mut buffer = vec![0; 64 * 1024];
        writer.0.shutdown().await.unwrap();
        loop {
            match within(reader.0.read(&mut buffer)).await.unwrap() {
                0 => break,
                more => read += more,
            }
        }
        assert_eq!(read, written);
    }
}

#[tokio::test]
async fn a_tunnel_outlives_its_route() {
    let plane = Plane::start(to(echo().await));
    let mut socket = open(&plane).await;
    let gone: Snapshot = snapshot(
        vec![route(
            "",
            Action::Respond(Respond { status: http::StatusCode::GONE, content_type: None, body: Default::default() }),
        )],
        vec![],
    );
    plane.publisher.publish(gone);
    let answer = plane.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 410 "), "{answer}");
    for number in 0..50 {
        socket.send(Message::text(number.to_string())).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text(number.to_string()));
    }
    socket.close(None).await.unwrap();
    assert!(matches!(next(&mut socket).await, Message::Close(_)));
    drop(socket);
    assert_eq!(plane.logged("/socket").await["end"], "complete");
}
