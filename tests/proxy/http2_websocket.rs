//! WebSockets over HTTP/2 (RFC 8441), from clients and to endpoints, in every combination with RFC 6455.

use std::net::SocketAddr;

use bytes::Bytes;
use floodway::snapshot::{Protocol, Snapshot};
use h2::ext::Protocol as Connect;
use h2::{Reason, client, server};
use http::{HeaderValue, Method, Request};
use tokio::net::TcpListener;

use super::clients::*;
use super::support::*;
use super::websocket::{self, SWITCHED, UPGRADE};

/// A text from a client, masked with zeros, and the same from a server.
const ASKED: &[u8] = b"\x81\x82\0\0\0\0hi";
const SAID: &[u8] = b"\x81\x02hi";
/// Close frames with code 1000, likewise.
const LEAVING: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";
const BYE: &[u8] = b"\x88\x02\x03\xe8";

fn to_http2(endpoint: SocketAddr) -> Snapshot {
    snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http2, &[endpoint])])
}

pub fn ask_socket(path: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = format!("http://example.com{path}").parse().unwrap();
    request.extensions_mut().insert(Connect::from_static("websocket"));
    request.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13"));
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
    request
}

/// A client that has learnt that the proxy takes extended CONNECT.
pub async fn connecting(plane: &Plane) -> client::SendRequest<Bytes> {
    let client = http2(plane.address).await;
    eventually("the proxy's settings", || client.is_extended_connect_protocol_enabled()).await;
    client
}

/// An endpoint that takes WebSockets over HTTP/2, if it `allows` them, and answers each text with [`SAID`].
async fn endpoint(allows: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut settings = server::Builder::new();
            if allows {
                settings.enable_connect_protocol();
            }
            tokio::spawn(async move {
                let mut connection = settings.handshake::<_, Bytes>(stream).await.unwrap();
                while let Some(Ok((request, answer))) = connection.accept().await {
                    tokio::spawn(serve(request, answer));
                }
            });
        }
    });
    address
}

async fn serve(mut request: Request<h2::RecvStream>, mut answer: server::SendResponse<Bytes>) {
    assert_eq!(request.method(), Method::CONNECT);
    assert_eq!(request.extensions().get::<Connect>().unwrap().as_str(), "websocket");
    for name in ["sec-websocket-key", "connection", "upgrade"] {
        assert!(!request.headers().contains_key(name), "{name}");
    }
    let mut response = http::Response::new(());
    if request.uri().path() == "/no" {
        *response.status_mut() = http::StatusCode::FORBIDDEN;
        answer.send_response(response, true).unwrap();
        return;
    }
    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
    let mut stream = answer.send_response(response, false).unwrap();
    while let Some(Ok(frame)) = piece(request.body_mut()).await {
        match frame[0] {
            0x81 => stream.send_data(Bytes::from_static(SAID), false).unwrap(),
            _ => {
                stream.send_data(Bytes::from_static(BYE), true).unwrap();
                return;
            }
        }
    }
}

/// Reads until `wanted` has come whole.
pub async fn comes(body: &mut h2::RecvStream, wanted: &[u8]) {
    let mut got = Vec::new();
    while got.len() < wanted.len() {
        got.extend_from_slice(&piece(body).await.unwrap().unwrap());
    }
    assert_eq!(got, wanted);
}

#[tokio::test]
async fn a_client_of_http2_reaches_endpoints_of_both_versions() {
    for snapshot in [to(websocket::echo().await), to_http2(endpoint(true).await)] {
        let plane = Plane::start(snapshot);
        let mut client = connecting(&plane).await;
        for _ in 0..3 {
            let (answer, mut stream) = client.send_request(ask_socket("/socket"), false).unwrap();
            let mut answer = within(answer).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
            for name in ["sec-websocket-accept", "upgrade", "connection"] {
                assert!(!answer.headers().contains_key(name), "{name}");
            }
            for _ in 0..3 {
                stream.send_data(Bytes::from_static(ASKED), false).unwrap();
                comes(answer.body_mut(), SAID).await;
            }
            stream.send_data(Bytes::from_static(LEAVING), false).unwrap();
            comes(answer.body_mut(), BYE).await;
            let _ = stream.send_data(Bytes::new(), true);
            assert!(content(answer.body_mut()).await.unwrap().0.is_empty(), "END_STREAM");
        }
        // Beside them, on the same connection, requests go on.
        let lines = plane.logged_times("/socket", 3).await;
        for line in lines {
            let facts = (&line["protocol"], &line["status"], &line["kind"], &line["end"]);
            assert_eq!(facts, (&"HTTP/2".into(), &200.into(), &"websocket".into(), &"complete".into()), "{line}");
        }
        eventually("nothing in flight", || plane.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn a_client_of_http1_reaches_an_endpoint_of_http2() {
    let plane = Plane::start(to_http2(endpoint(true).await));
    let mut client = plane.connect().await;
    client.send(format!("GET /socket HTTP/1.1\r\n{UPGRADE}\r\n")).await;
    let head = client.head().await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    let accept = SWITCHED.to_ascii_lowercase();
    assert!(head.contains(accept.rsplit_once("sec-").unwrap().1.trim_end()), "RFC 6455 1.3: {head}");
    client.send(ASKED).await;
    assert_eq!(client.until("hi").await.len(), String::from_utf8_lossy(SAID).len());
    client.send(LEAVING).await;
    let end = client.rest().await;
    assert_eq!((&end.bytes[..], end.reset), (BYE, false));
    drop(client);
    assert_eq!(plane.logged("/socket").await["status"], 101);
}

#[tokio::test]
async fn an_answer_that_is_no_switch_is_an_answer() {
    let plane = Plane::start(to_http2(endpoint(true).await));
    let mut client = connecting(&plane).await;
    let (answer, _stream) = client.send_request(ask_socket("/no"), false).unwrap();
    let mut answer = within(answer).await.unwrap();
    assert_eq!(answer.status(), 403);
    assert!(content(answer.body_mut()).await.unwrap().0.is_empty());
    let mut client = plane.connect().await;
    client.send(format!("GET /no HTTP/1.1\r\n{UPGRADE}\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}

#[tokio::test]
async fn an_endpoint_that_does_not_take_them_or_has_not_read_the_handshake_is_a_bad_one() {
    let plane = Plane::start(to_http2(endpoint(false).await));
    let mut client = connecting(&plane).await;
    let (answer, _stream) = client.send_request(ask_socket("/"), false).unwrap();
    let answer = within(answer).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-floodway-reason"]),
        (502, &HeaderValue::from_static("no_websocket"))
    );

    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = connecting(&plane).await;
    let (answer, _stream) = client.send_request(ask_socket("/"), false).unwrap();
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.starts_with("GET / HTTP/1.1\r\n") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(!head.contains("dGhlIHNhbXBsZSBub25jZQ=="));
    endpoint.send(format!("{SWITCHED}\r\n")).await;
    assert_eq!(within(answer).await.unwrap().status(), 502, "the proof of another handshake");
}

#[tokio::test]
async fn the_loss_of_one_side_reaches_the_other() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = connecting(&plane).await;
    for client_leaves in [true, false] {
        let path = if client_leaves { "/client" } else { "/endpoint" };
        let (answer, mut stream) = client.send_request(ask_socket(path), false).unwrap();
        let (mut endpoint, head) = arrivals.request().await;
        let key = head.split("sec-websocket-key: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        endpoint.send(format!("{switched}Sec-WebSocket-Accept: {accept}\r\n\r\n")).await;
        let mut answer = within(answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        if client_leaves {
            stream.send_reset(Reason::CANCEL);
            assert!(endpoint.closed().await, "reset");
            assert_eq!(plane.logged(path).await["end"], "client_gone");
        } else {
            endpoint.reset();
            let end = piece(answer.body_mut()).await.unwrap().unwrap_err();
            assert_eq!(end.reason(), Some(Reason::CANCEL), "RFC 8441 5");
            assert_eq!(plane.logged(path).await["end"], "upstream_cut");
        }
    }
}

#[tokio::test]
async fn any_other_connect_is_refused() {
    let plane = Plane::start(to(mirror().await));
    let mut client = connecting(&plane).await;
    let mut other = ask_socket("/");
    other.extensions_mut().insert(Connect::from_static("connect-udp"));
    let mut plain = Request::new(());
    *plain.method_mut() = Method::CONNECT;
    *plain.uri_mut() = "example.com:443".parse().unwrap();
    for request in [other, plain] {
        let (answer, _stream) = client.send_request(request, false).unwrap();
        assert_eq!(within(answer).await.unwrap().status(), 405);
    }
}
