//! How fast the sides of a WebSocket may send by what a policy says: who sends more is delayed, or the WebSocket is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::snapshot::{
    FramesFrom, MessageRate, MissingKey, Ping, PingTarget, Policy, Protocol, RateKey, RateLimit, RequestRate, Snapshot,
    Streaming, WebSocket,
};
use http::HeaderName;
use tokio::time::Instant;

use super::http2_websocket::{ask_socket, comes, connecting};
use super::policies::under;
use super::policy_rate_limit::limit;
use super::support::*;
use super::websocket::{SWITCHED, UPGRADE, echo, tunnel};
use super::websocket_bytes::*;
use super::websocket_frames::{ended, told};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

fn rate(requests: u32, per: Duration, burst: u32) -> Option<RequestRate> {
    Some(RequestRate { requests, per, burst })
}

/// So many messages, of clients, and then none for an hour.
fn messages(burst: u32, close: bool) -> MessageRate {
    MessageRate { messages: rate(1, HOUR, burst), bytes: None, close, from: FramesFrom::Client }
}

fn bytes(bytes: Option<RequestRate>, close: bool) -> MessageRate {
    MessageRate { messages: None, bytes, close, from: FramesFrom::Client }
}

fn limited(endpoint: SocketAddr, limits: &[RateLimit], web_socket: WebSocket) -> Snapshot {
    let mut route = forward("", "backend");
    let floodway::snapshot::Action::Forward(action) = &mut route.action else { unreachable!() };
    action.streaming = Some(Streaming { web_socket, ..Streaming::default() }.into());
    let policy = Policy { rate_limit: Some(limits.into()), ..Policy::default() };
    snapshot(vec![under(policy, route)], vec![cluster("backend", Protocol::Http1, &[endpoint])])
}

fn paced(endpoint: SocketAddr, rate: MessageRate) -> Snapshot {
    let limit = RateLimit { rate: None, web_socket: Some(Arc::new(rate)), ..limit("chatter", &[], 1) };
    limited(endpoint, &[limit], WebSocket::default())
}

/// Asserts that nothing waits for this side once the other has been heard.
async fn nothing_comes(side: &mut Raw, other: &mut Raw, side_is_client: bool) {
    side.send(frame(END | TEXT, side_is_client, b"are you there")).await;
    assert_eq!(next(other).await.payload, b"are you there");
    assert!(side.0.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
}

fn texts(by_client: bool, count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| frame(END | TEXT, by_client, number.to_string().as_bytes())).collect()
}

#[tokio::test]
async fn who_sends_too_many_messages_is_not_read() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(paced(address, messages(3, false)));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    // In pieces that end anywhere; a message in frames is one message.
    let sent = [
        frame(TEXT, true, b"0"),
        frame(CONTINUATION, true, b"and"),
        frame(END | PONG, true, b"not asked for"),
        frame(END | CONTINUATION, true, b"on"),
        frame(END | PING, true, b"counts"),
        texts(true, 3),
    ]
    .concat();
    for piece in sent.chunks(7) {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    for payload in [&b"0"[..], b"and", b"not asked for", b"on", b"counts", b"0"] {
        assert_eq!(next(&mut endpoint).await.payload, payload);
    }
    nothing_comes(&mut endpoint, &mut client, false).await;
    // Another WebSocket has its own.
    let (mut other, mut its_endpoint) = tunnel(&plane, &mut arrivals).await;
    other.send(texts(true, 1)).await;
    assert_eq!(next(&mut its_endpoint).await.payload, b"0");
    assert_eq!(plane.metric("floodway_rate_limited_total", "limit=\"chatter\""), 0.0);
}

#[tokio::test]
async fn what_is_delayed_comes_whole_in_order_and_no_faster_than_it_may() {
    let (address, mut arrivals) = played().await;
    let fast = MessageRate { messages: rate(50, SECOND, 2), from: FramesFrom::Both, ..messages(1, false) };
    let plane = Plane::start(paced(address, fast));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let began = Instant::now();
    client.send(texts(true, 12)).await;
    endpoint.send(texts(false, 12)).await;
    for number in 0..12 {
        assert_eq!(next(&mut endpoint).await.payload, number.to_string().as_bytes());
        assert_eq!(next(&mut client).await.payload, number.to_string().as_bytes());
    }
    assert!(began.elapsed() >= Duration::from_millis(200), "ten after the first two: {:?}", began.elapsed());
    // What was held is not lost at the end.
    client.send([texts(true, 6), frame(END | CLOSE, true, &close(1000, ""))].concat()).await;
    for number in 0..6 {
        assert_eq!(next(&mut endpoint).await.payload, number.to_string().as_bytes());
    }
    assert_eq!(next(&mut endpoint).await.first, END | CLOSE);
}

#[tokio::test]
async fn a_websocket_is_closed_between_two_messages() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(paced(address, messages(2, true)));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    client.send(texts(true, 5)).await;
    for payload in [b"0", b"1"] {
        assert_eq!(next(&mut endpoint).await.payload, payload);
    }
    told(&mut endpoint, false, 1008, "message_rate").await;
    told(&mut client, true, 1008, "message_rate").await;
    assert!(!client.closed().await && !endpoint.closed().await, "an end, not a reset");
    ended(&plane, 1, "too_fast", Some("message_rate")).await;
    plane.metric_becomes("floodway_rate_limited_total", "limit=\"chatter\"", 1.0).await;
}

#[tokio::test]
async fn endpoints_have_a_limit_if_they_are_given_one() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(paced(address, MessageRate { from: FramesFrom::Endpoint, ..messages(1, true) }));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    client.send(texts(true, 3)).await;
    for payload in [b"0", b"1", b"2"] {
        assert_eq!(next(&mut endpoint).await.payload, payload);
    }
    endpoint.send(texts(false, 2)).await;
    assert_eq!(next(&mut client).await.payload, b"0");
    told(&mut client, true, 1008, "message_rate").await;
    told(&mut endpoint, false, 1008, "message_rate").await;
    ended(&plane, 1, "too_fast", Some("message_rate")).await;
}

#[tokio::test]
async fn bytes_are_delayed_within_a_frame_and_none_is_lost() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(paced(address, bytes(rate(100_000, SECOND, 10_000), false)));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let content: Vec<u8> = (0..40_000_u32).map(|index| (index % 251) as u8).collect();
    let began = Instant::now();
    client.send(frame(END | BINARY, true, &content)).await;
    assert!(next(&mut endpoint).await.payload == content);
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
}

#[tokio::test]
async fn too_many_bytes_close_a_websocket() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(paced(address, bytes(rate(1, HOUR, 10_000), true)));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    client.send(frame(END | BINARY, true, &[b'x'; 9000])).await;
    assert_eq!(next(&mut endpoint).await.payload.len(), 9000);
    client.send(frame(END | BINARY, true, &[b'x'; 2000])).await;
    told(&mut client, true, 1008, "message_rate").await;
    let mut came = next(&mut endpoint).await;
    if came.first == END | BINARY {
        came = next(&mut endpoint).await;
    }
    assert_eq!(came.payload, close(1008, "message_rate"));
    endpoint.send(frame(END | CLOSE, false, &came.payload)).await;
    ended(&plane, 1, "too_fast", Some("message_rate")).await;
}

/// What it sends meanwhile nobody reads, not even its pong.
#[tokio::test]
async fn who_is_delayed_is_not_taken_for_silent() {
    let (address, mut arrivals) = played().await;
    let (interval, timeout) = (Duration::from_millis(50), Duration::from_millis(50));
    let ping = Some(Ping { interval, timeout, target: PingTarget::Client });
    let delayed = RateLimit { rate: None, web_socket: Some(Arc::new(messages(1, false))), ..limit("a", &[], 1) };
    let plane = Plane::start(limited(address, &[delayed], WebSocket { ping, ..WebSocket::default() }));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    client.send(texts(true, 2)).await;
    assert_eq!(next(&mut endpoint).await.payload, b"0");
    let began = Instant::now();
    while began.elapsed() < 6 * (interval + timeout) {
        endpoint.send(texts(false, 1)).await;
        loop {
            let came = next(&mut client).await;
            assert_ne!(came.first, END | CLOSE, "{came:?}");
            if came.first == END | TEXT {
                break;
            }
        }
    }
}

#[tokio::test]
async fn clients_of_http2_have_the_same_limits() {
    let plane = Plane::start(paced(echo().await, messages(1, true)));
    let mut client = connecting(&plane).await;
    let (answer, mut stream) = client.send_request(ask_socket("/socket"), false).unwrap();
    let mut answer = within(answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    for expected in [frame(END | TEXT, false, b"0"), frame(END | CLOSE, false, &close(1008, "message_rate"))] {
        stream.send_data(texts(true, 1).into(), false).unwrap();
        comes(answer.body_mut(), &expected).await;
    }
}

#[tokio::test]
async fn who_is_not_limited_by_key_is_not_by_messages() {
    let (address, mut arrivals) = played().await;
    let key = RateKey::Header(HeaderName::from_static("x-user"));
    let limit = RateLimit {
        rate: None,
        missing: MissingKey::Skip,
        web_socket: Some(Arc::new(messages(1, true))),
        ..limit("chatter", &[key], 1)
    };
    let plane = Plane::start(limited(address, &[limit], WebSocket::default()));
    for (fields, closed) in [("", false), ("X-User: ann\r\n", true)] {
        let mut client = plane.connect().await;
        client.send(format!("GET /socket HTTP/1.1\r\n{fields}{UPGRADE}\r\n")).await;
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(format!("{SWITCHED}\r\n")).await;
        client.head().await;
        client.send(texts(true, 2)).await;
        assert_eq!(next(&mut endpoint).await.payload, b"0");
        assert_eq!(next(&mut endpoint).await.first == END | CLOSE, closed);
    }
}
