//! Pings that Floodway sends: when, to whom, and what becomes of who does not answer.

use std::time::Duration;

use floodway::snapshot::{Action, Ping, PingTarget, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::endpoints::nothing_is_left;
use super::support::*;
use super::websocket::{echo, open, tunnel};
use super::websocket_bytes::*;
use super::websocket_frames::*;

const INTERVAL: Duration = Duration::from_millis(300);
const NEVER: Duration = Duration::from_secs(600);

fn pinging(target: PingTarget, timeout: Duration) -> WebSocket {
    pinging_after(INTERVAL, target, timeout)
}

fn pinging_after(interval: Duration, target: PingTarget, timeout: Duration) -> WebSocket {
    WebSocket { ping: Some(Ping { interval, timeout, target }), ..WebSocket::default() }
}

#[tokio::test]
async fn a_silent_side_is_pinged_and_its_pong_goes_no_further() {
    let (address, mut arrivals) = played().await;
    for (target, client_pinged) in [(PingTarget::Client, true), (PingTarget::Endpoint, false)] {
        let plane = Plane::start(wishing(address, pinging(target, NEVER)));
        let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
        let (silent, other) = if client_pinged { (&mut client, &mut endpoint) } else { (&mut endpoint, &mut client) };
        let mut keys = Vec::new();
        for _ in 0..4 {
            let ping = next(silent).await;
            assert_eq!((ping.first, ping.payload.len()), (END | PING, 8), "{ping:?}");
            assert_eq!(ping.key.is_none(), client_pinged, "masked towards the endpoint alone");
            keys.extend(ping.key);
            // Byte by byte: none of it may slip through.
            for byte in frame(END | PONG, client_pinged, &ping.payload) {
                silent.send([byte]).await;
                tokio::task::yield_now().await;
            }
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), if client_pinged { 0 } else { 4 }, "a fresh key each time");
        // Together with something for the other side; only that passes.
        let ping = next(silent).await;
        let mixed = [
            frame(END | TEXT, client_pinged, b"before"),
            frame(END | PONG, client_pinged, &ping.payload),
            frame(TEXT, client_pinged, b"be"),
            frame(END | PONG, client_pinged, &ping.payload),
            frame(END | PONG, client_pinged, b"unasked!"),
            frame(END | CONTINUATION, client_pinged, b"hind"),
        ];
        silent.send(mixed.concat()).await;
        for payload in ["before", "be", "unasked!", "hind"] {
            assert_eq!(next(other).await.payload, payload.as_bytes(), "the first thing that the other side sees");
        }
        assert_eq!(plane.metric("floodway_websocket_violations_total", ""), 0.0);
        let direction = if client_pinged { "received" } else { "sent" };
        plane.metric_becomes("floodway_websocket_frames_total", direction, 4.0).await;
    }
}

#[tokio::test]
async fn who_speaks_is_not_pinged() {
    let (address, mut arrivals) = played().await;
    // Longer than a busy machine pauses.
    let interval = 6 * INTERVAL;
    let plane = Plane::start(wishing(address, pinging_after(interval, PingTarget::Both, NEVER)));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let started = Instant::now();
    while started.elapsed() < 2 * interval {
        client.send(frame(END | TEXT, true, b"tick")).await;
        assert_eq!(next(&mut endpoint).await.payload, b"tick");
        endpoint.send(frame(END | TEXT, false, b"tock")).await;
        assert_eq!(next(&mut client).await.payload, b"tock");
        tokio::time::sleep(INTERVAL / 20).await;
    }
}

#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    let (address, mut arrivals) = played().await;
    for (target, by_client, end) in [(PingTarget::Both, true, "client_gone"), (PingTarget::Both, false, "upstream_cut")]
    {
        let plane = Plane::start(wishing(address, pinging(target, 5 * INTERVAL)));
        let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
        let (silent, other) = if by_client { (&mut client, &mut endpoint) } else { (&mut endpoint, &mut client) };
        assert_eq!(next(silent).await.first, END | PING);
        // The other side does answer, until it is told.
        loop {
            let came = next(other).await;
            if came.first == END | CLOSE {
                assert_eq!(came.payload, close(1011, "pong_timeout"));
                other.send(frame(END | CLOSE, !by_client, &came.payload)).await;
                break;
            }
            other.send(frame(END | PONG, !by_client, &came.payload)).await;
        }
        assert!(!other.closed().await, "an end, not a reset");
        assert_eq!(next(silent).await.payload, close(1011, "pong_timeout"));
        assert!(!silent.closed().await);
        ended(&plane, 1, end, Some("pong_timeout")).await;
        plane.metric_becomes("floodway_failures_total", "pong_timeout", 1.0).await;
        drop((client, endpoint));
        nothing_is_left(&plane).await;
    }
}

#[tokio::test]
async fn a_ping_waits_for_the_end_of_a_frame() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(wishing(address, pinging(PingTarget::Client, NEVER)));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let large = frame(BINARY, false, &[b'x'; 1000]);
    let (before, after) = large.split_at(500);
    endpoint.send(before).await;
    let mut came = vec![0; 500];
    within(client.0.read_exact(&mut came)).await.unwrap();
    tokio::time::sleep(3 * INTERVAL).await;
    // The rest, and the beginning of the next: the ping stands between them, inside of the message.
    endpoint.send([after, &frame(END | CONTINUATION, false, b"last")[..3]].concat()).await;
    let mut rest = vec![0; after.len()];
    within(client.0.read_exact(&mut rest)).await.unwrap();
    assert_eq!([came, rest].concat(), large);
    let ping = next(&mut client).await;
    assert_eq!((ping.first, ping.payload.len()), (END | PING, 8));
    endpoint.send(&frame(END | CONTINUATION, false, b"last")[3..]).await;
    assert_eq!(next(&mut client).await.payload, b"last");
}

#[tokio::test]
async fn answers_to_pings_do_not_make_a_conversation() {
    let (address, mut arrivals) = played().await;
    let mut route = forward("", "backend");
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    action.timeouts.idle = 5 * INTERVAL;
    let web_socket = pinging(PingTarget::Client, NEVER);
    action.streaming = Some(floodway::snapshot::Streaming { web_socket, ..Default::default() }.into());
    let backend = cluster("backend", floodway::snapshot::Protocol::Http1, &[address]);
    let plane = Plane::start(snapshot(vec![route], vec![backend]));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let mut pings = 0;
    loop {
        let came = next(&mut client).await;
        if came.first == END | CLOSE {
            assert_eq!(came.payload, close(1001, "idle"));
            break;
        }
        pings += 1;
        client.send(frame(END | PONG, true, &came.payload)).await;
    }
    assert!(pings >= 2, "{pings}");
    assert_eq!(next(&mut endpoint).await.payload, close(1001, "idle"), "and no pong before it");
    ended(&plane, 1, "idle", Some("idle")).await;
    // A ping of one side for the other is part of it.
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let started = Instant::now();
    while started.elapsed() < 8 * INTERVAL {
        endpoint.send(frame(END | PING, false, b"theirs")).await;
        while next(&mut client).await.payload != b"theirs" {}
        client.send(frame(END | PONG, true, b"theirs")).await;
        let pong = next(&mut endpoint).await;
        assert_eq!((pong.first, &pong.payload[..]), (END | PONG, &b"theirs"[..]));
        tokio::time::sleep(INTERVAL).await;
    }
    drop((client, endpoint));
}

#[tokio::test]
async fn real_clients_and_endpoints_answer_and_notice_nothing() {
    let plane = Plane::start(wishing(echo().await, pinging(PingTarget::Both, 4 * INTERVAL)));
    let mut socket = open(&plane).await;
    let started = Instant::now();
    // It answers pings while it is polled.
    while started.elapsed() < 6 * INTERVAL {
        if let Ok(came) = tokio::time::timeout(INTERVAL / 10, socket.next()).await {
            let came = came.unwrap().unwrap();
            assert!(matches!(came, Message::Ping(_)), "{came}");
        }
    }
    for number in 0..20 {
        socket.send(Message::text(number.to_string())).await.unwrap();
        loop {
            match within(socket.next()).await.unwrap().unwrap() {
                Message::Ping(_) => {}
                came => break assert_eq!(came, Message::text(number.to_string())),
            }
        }
    }
    socket.close(None).await.unwrap();
    while within(socket.next()).await.is_some() {}
    drop(socket);
    ended(&plane, 1, "complete", None).await;
}
