//! WebSockets that are asked to end: a close at a boundary, an answer that is waited for, and a deadline.

use std::time::Duration;

use floodway::snapshot::{Protocol, Streaming};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::endpoints::nothing_is_left;
use super::farewell::streaming;
use super::support::*;
use super::websocket::{echo, open, tunnel};
use super::websocket_bytes::*;
use super::websocket_frames::*;

const AGE: Duration = Duration::from_millis(1500);

fn aged(endpoint: std::net::SocketAddr) -> floodway::snapshot::Snapshot {
    streaming(endpoint, Protocol::Http1, Streaming { max_age: Some(AGE), ..Streaming::default() })
}

#[tokio::test]
async fn the_greatest_age_ends_with_a_close_to_both() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    client.send(frame(END | TEXT, true, b"hello")).await;
    assert_eq!(next(&mut endpoint).await.payload, b"hello");
    told(&mut client, true, 1001, "max_age").await;
    // Each is waited for; nothing passes any more.
    client.0.write_all(&frame(END | TEXT, true, b"late")).await.unwrap();
    told(&mut endpoint, false, 1001, "max_age").await;
    assert!(!client.closed().await && !endpoint.closed().await, "an end, not a reset");
    ended(&plane, 1, "max_age", Some("max_age")).await;
    drop((client, endpoint));
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn real_clients_and_endpoints_close_cleanly() {
    let plane = Plane::start(aged(echo().await));
    let mut socket = open(&plane).await;
    let mut sent = 0_u32;
    let frame = loop {
        socket.send(Message::text(sent.to_string())).await.unwrap();
        match within(socket.next()).await.unwrap().unwrap() {
            Message::Close(frame) => break frame.unwrap(),
            came => assert_eq!(came, Message::text(sent.to_string())),
        }
        sent += 1;
    };
    assert_eq!((u16::from(frame.code), &*frame.reason), (1001, "max_age"));
    assert!(within(socket.next()).await.is_none(), "the handshake is completed and the connection closed");
    drop(socket);
    ended(&plane, 1, "max_age", Some("max_age")).await;
}

#[tokio::test]
async fn a_close_waits_for_the_end_of_a_frame_and_what_follows_is_dropped() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let large = frame(BINARY, false, &[b'x'; 1000]);
    let (before, after) = large.split_at(500);
    endpoint.send(before).await;
    // The other direction is told at once.
    assert_eq!(next(&mut endpoint).await.payload, close(1001, "max_age"));
    let more = frame(END | CONTINUATION, false, b"more")[..4].to_vec();
    endpoint.send([after.to_vec(), frame(END | PING, false, b"ping"), more].concat()).await;
    let mut came = vec![0; large.len()];
    within(client.0.read_exact(&mut came)).await.unwrap();
    assert_eq!(came, large, "not a byte of the frame is missing or changed");
    assert_eq!(next(&mut client).await.payload, b"ping", "whole frames that were there already pass");
    told(&mut client, true, 1001, "max_age").await;
    endpoint.send(frame(END | CONTINUATION, false, b"more")[4..].to_vec()).await;
    endpoint.send(frame(END | CLOSE, false, &close(1001, ""))).await;
    assert!(!client.closed().await && !endpoint.closed().await);
    ended(&plane, 1, "max_age", Some("max_age")).await;
}

#[tokio::test]
async fn who_stays_in_the_middle_of_a_frame_is_cut_at_the_deadline() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    endpoint.send(&frame(END | BINARY, false, &[b'x'; 1000])[..500]).await;
    let mut came = vec![0; 500];
    within(client.0.read_exact(&mut came)).await.unwrap();
    assert!(client.closed().await, "half a frame cannot look like an end");
    assert_eq!(next(&mut endpoint).await.payload, close(1001, "max_age"));
    ended(&plane, 1, "max_age", Some("max_age")).await;
}

#[tokio::test]
async fn sides_that_are_parting_already_are_left_to_it() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    client.send(frame(END | CLOSE, true, &close(4001, "enough"))).await;
    assert_eq!(next(&mut endpoint).await.payload, close(4001, "enough"));
    tokio::time::sleep(2 * AGE).await;
    endpoint.send(frame(END | TEXT, false, b"one more thing")).await;
    endpoint.send(frame(END | CLOSE, false, &close(4001, ""))).await;
    assert_eq!(next(&mut client).await.payload, b"one more thing");
    assert_eq!(next(&mut client).await.payload, close(4001, ""));
    drop(endpoint);
    assert!(!client.closed().await);
    drop(client);
    ended(&plane, 1, "complete", None).await;
}

#[tokio::test]
async fn a_drain_asks_clients_to_come_back() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    plane.drain.begin(Duration::from_secs(8));
    told(&mut client, true, 1012, "draining").await;
    told(&mut endpoint, false, 1001, "draining").await;
    assert!(!client.closed().await && !endpoint.closed().await);
    ended(&plane, 1, "drained", Some("draining")).await;
    assert_eq!(plane.metric("floodway_drained_streams_total", "polite"), 1.0);
    drop((client, endpoint));
    plane.ended().await;
}

#[tokio::test]
async fn a_route_or_an_endpoint_that_goes_takes_its_sockets_along_politely() {
    let (address, mut arrivals) = played().await;
    let grace = Some(Duration::from_millis(200));
    let mut table = streaming(address, Protocol::Http1, Streaming { removal_grace: grace, ..Streaming::default() });
    let mut moving = cluster("backend", Protocol::Http1, &[address]);
    moving.move_after = grace;
    table.clusters = snapshot(vec![], vec![moving.clone()]).clusters;
    let plane = Plane::start(table.clone());

    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    plane.publisher.publish(snapshot(vec![], vec![moving.clone()]));
    told(&mut client, true, 1001, "route_removed").await;
    told(&mut endpoint, false, 1001, "route_removed").await;
    ended(&plane, 1, "route_removed", Some("route_removed")).await;

    plane.publisher.publish(table.clone());
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    moving.endpoints = Default::default();
    let mut moved = table.clone();
    moved.clusters = snapshot(vec![], vec![moving]).clusters;
    plane.publisher.publish(moved);
    told(&mut client, true, 1012, "endpoint_gone").await;
    told(&mut endpoint, false, 1001, "endpoint_gone").await;
    ended(&plane, 2, "endpoint_gone", Some("endpoint_gone")).await;
}
