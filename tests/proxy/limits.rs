//! Bounds against peers who send too much, too slowly, or nothing at all.

use std::time::Duration;

use floodway::settings::Settings;
use tokio::io::AsyncWriteExt;

use super::endpoints::{Message, Witness, nothing_is_left};
use super::support::*;

async fn limited(change: impl FnOnce(&mut Settings)) -> (Plane, Witness) {
    let witness = Witness::start().await;
    (Plane::with(to(witness.address), change), witness)
}

/// Sends `request` and checks the refusal, its log line, that the endpoint saw nothing, and that nothing is left.
async fn refused(plane: &Plane, witness: &Witness, request: String, status: u16, reason: &str) {
    let mut client = plane.connect().await;
    let _ = client.0.write_all(request.as_bytes()).await;
    let answer = client.to_end().await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {answer}");
    assert!(answer.contains(&format!("\r\nx-floodway-reason: {reason}\r\n")), "{reason}: {answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{reason}: {answer}");
    assert!(answer.contains("\r\nx-request-id: "), "{reason}: {answer}");
    drop(client);
    witness.saw_nothing_else(plane, reason).await;
    nothing_is_left(plane).await;
    assert_eq!(plane.metric("floodway_failures_total", reason), 1.0);
}

#[tokio::test]
async fn heads_are_bounded_in_fields_and_bytes() {
    let get = |fields: String| format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let many = |count: usize| (0..count).map(|number| format!("X-{number}: y\r\n")).collect::<String>();
    for (request, status, reason) in [
        (get(many(20)), 431, "headers_too_large"),
        (get(format!("X: {}\r\n", "y".repeat(4096))), 431, "headers_too_large"),
        (get("X: y\r\n".repeat(2000)), 431, "headers_too_large"),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(4096)), 414, "target_too_long"),
        (format!("GET /{}", "x".repeat(100_000)), 414, "target_too_long"),
        ("G".repeat(100_000), 414, "target_too_long"),
    ] {
        let (plane, witness) = limited(|settings| {
            settings.limits.header_count = 20;
            settings.limits.header_bytes = 4096;
        })
        .await;
        refused(&plane, &witness, request, status, reason).await;
    }
    let (plane, witness) = limited(|settings| settings.limits.header_count = 20).await;
    let answer = plane.exchange(get(many(18) + "Connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "as many as allowed: {answer}");
    assert_eq!(witness.take().len(), 1);
    let (plane, witness) = limited(|_| {}).await;
    refused(
        &plane,
        &witness,
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000)),
        414,
        "target_too_long",
    )
    .await;
}

#[tokio::test]
async fn content_is_bounded_announced_or_not() {
    let (plane, witness) = limited(|settings| settings.limits.body_bytes = Some(10)).await;
    let announced = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world";
    refused(&plane, &witness, announced.to_owned(), 413, "body_too_large").await;

    let (plane, witness) = limited(|settings| settings.limits.body_bytes = Some(10)).await;
    let mut client = plane.connect().await;
    let chunks = "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")).await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    drop(client);
    nothing_is_left(&plane).await;
    // What it has seen of it, if anything, had no end.
    for seen in witness.take() {
        assert!(matches!(&seen, Message::Cut(text) if !text.contains("world")), "{seen:?}");
    }
    assert_eq!(plane.logged("/x").await["reason"], "body_too_large");

    let within_bounds = "POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhelloworld";
    assert!(plane.exchange(within_bounds).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn a_head_has_a_total_deadline() {
    let short = Duration::from_millis(150);
    let (plane, witness) = limited(|settings| settings.limits.header_timeout = short).await;

    // Byte by byte: each is in time, the head is not.
    let mut client = plane.connect().await;
    let drip = async {
        for byte in "GET / HTTP/1.1\r\nHost: a\r\nX: ".bytes().chain(std::iter::repeat(b'y')) {
            if client.0.write_all(&[byte]).await.is_err() {
                break;
            }
            let mut peeked = [0];
            let answered = tokio::time::timeout(Duration::from_millis(10), client.0.peek(&mut peeked)).await;
            if answered.is_ok() {
                break;
            }
        }
    };
    within(drip).await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\r\nx-floodway-reason: slow_head\r\n"), "{answer}");

    // Nothing at all: closed without a word, since nobody asked.
    let mut client = plane.connect().await;
    assert_eq!(client.to_end().await, "");
    // Nothing but an empty line, likewise.
    let mut client = plane.connect().await;
    client.send("\r\n").await;
    assert_eq!(client.to_end().await, "");

    // The second head on a connection has the same deadline.
    let mut client = plane.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(client.to_end().await.starts_with("HTTP/1.1 408 "));
    drop(client);
    nothing_is_left(&plane).await;
    assert_eq!(witness.take().len(), 1);
}

#[tokio::test]
async fn a_connection_that_asks_nothing_more_is_closed() {
    let (plane, _witness) = limited(|settings| settings.limits.keep_alive_idle = Duration::from_millis(80)).await;
    let mut client = plane.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(!client.closed().await, "an orderly close");
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn a_connection_that_rests_is_served_again_and_closed_in_time() {
    let (plane, _witness) = limited(|settings| settings.limits.keep_alive_idle = Duration::from_secs(2)).await;
    let mut client = plane.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    // It rests after a second, of which nobody is told.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(!client.closed().await, "an orderly close");
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_make_room_again() {
    let (plane, _witness) = limited(|settings| settings.limits.connections = 2).await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut first, mut second) = (plane.connect().await, plane.connect().await);
    for client in [&mut first, &mut second] {
        client.send(get).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
    let mut third = plane.connect().await;
    let _ = third.0.write_all(get.as_bytes()).await;
    assert_eq!(third.to_end().await, "");
    plane.metric_becomes("floodway_connections_refused_total", "too_many_connections", 1.0).await;
    drop(first);
    plane.metric_becomes("floodway_connections_open", "", 1.0).await;
    // The count of connections and the metric are two things; the slot is free a moment later at most.
    loop {
        let mut client = plane.connect().await;
        let _ = client.0.write_all(get.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).await;
        if client.to_end().await.starts_with("HTTP/1.1 200 OK\r\n") {
            break;
        }
    }
    drop(second);
    nothing_is_left(&plane).await;
}

/// A client that sends requests and reads no answers can make the proxy hold only so much.
#[tokio::test]
async fn pipelining_is_bounded() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    // While the first is not answered, of all that follows only a head's worth is read; the rest stays in the sockets.
    let flood = "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
    let mut taken = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(300), client.0.write(flood.as_bytes())).await {
        taken += written.unwrap();
        assert!(taken < 64 * 1024 * 1024, "no bound");
    }
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(endpoint.head().await.starts_with("GET /2 "), "the next one on the same connection");
    // That a client has left, behind which so much lies unread, is noticed when it is answered.
    client.reset();
    tokio::spawn(async move {
        loop {
            endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            if endpoint.request().await.is_none() {
                return;
            }
        }
    });
    nothing_is_left(&plane).await;
}
