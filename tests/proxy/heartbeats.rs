//! Heartbeats keep event streams alive: only in silence, only between two events, and never in place of the endpoint.

use std::net::SocketAddr;
use std::time::Duration;

use floodway::snapshot::{Action, Protocol, Snapshot, Sse, Streaming};
use tokio::time::Instant;

use super::clients::*;
use super::farewell::{content_until, events, streaming};
use super::sse::{EVENTS, chunk, event};
use super::support::*;

fn beating(endpoint: SocketAddr, heartbeat: Duration) -> Snapshot {
    let sse = Sse { heartbeat: Some(heartbeat), ..Sse::default() };
    streaming(endpoint, Protocol::Http1, Streaming { sse, ..Streaming::default() })
}

#[tokio::test]
async fn heartbeats_come_in_silence_and_between_events() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(beating(address, Duration::from_millis(100)));
    let (mut client, mut endpoint) = events(&plane, &mut arrivals, "/events").await;
    let beat = chunk(":\n\n");
    assert_eq!(client.until(&format!("{beat}{beat}")).await, format!("{beat}{beat}"), "before the first event");
    // A byte order mark is none behind them.
    endpoint.send(chunk("\u{feff}data: a\n\n")).await;
    assert_eq!(content_until(&mut client, "data: a\n\n").await.replace(":\n\n", ""), "data: a\n\n");
    client.until(&format!("{beat}{beat}")).await;
    // Within an event there are none, however long it takes: the other stream has time for some.
    for part in ["id: 2\n", "data: b", "\n", ": a comment of the event\n"] {
        endpoint.send(chunk(part)).await;
        assert!(content_until(&mut client, part).await.replace(":\n\n", "") == part);
        let (mut silent, _endpoint) = events(&plane, &mut arrivals, "/silent").await;
        silent.until(&beat.repeat(3)).await;
    }
    endpoint.send(chunk("\n")).await;
    assert_eq!(client.until("\n\r\n").await, chunk("\n"), "nothing came between");
    assert_eq!(client.until(&beat).await, beat);
    // A comment that the endpoint sends is no event.
    endpoint.send(chunk(": pong\n")).await;
    content_until(&mut client, ": pong\n").await;
    assert_eq!(client.until(&beat).await, beat);
    endpoint.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    assert_eq!(plane.logged("/events").await["end"], "complete");
}

#[tokio::test]
async fn heartbeats_come_over_http2() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(beating(address, Duration::from_millis(100)));
    let mut client = http2(plane.address).await;
    let (answer, _) = client.send_request(get("/events"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
    let mut body = within(answer).await.unwrap().into_body();
    for number in 0..3 {
        assert_eq!(piece(&mut body).await.unwrap().unwrap(), ":\n\n");
        endpoint.send(chunk(&event(number))).await;
        while piece(&mut body).await.unwrap().unwrap() != event(number) {}
    }
}

#[tokio::test]
async fn a_stream_that_is_not_silent_gets_no_heartbeats() {
    let heartbeat = Duration::from_secs(2);
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(beating(address, heartbeat));
    let (mut client, mut endpoint) = events(&plane, &mut arrivals, "/events").await;
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < heartbeat + heartbeat / 2 {
        endpoint.send(chunk(&event(number))).await;
        assert_eq!(client.until("\n\n\r\n").await, chunk(&event(number)));
        number += 1;
        // Time has to pass here; it is what the test is about.
        tokio::time::sleep(heartbeat / 80).await;
    }
}

#[tokio::test]
async fn heartbeats_do_not_hide_a_silent_endpoint() {
    let (address, mut arrivals) = played().await;
    let mut route = forward("", "backend");
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    action.timeouts.idle = Duration::from_millis(1500);
    action.timeouts.first_byte = Some(Duration::from_millis(1000));
    let sse = Sse { heartbeat: Some(Duration::from_millis(100)), retry: None };
    action.streaming = Some(Streaming { sse, ..Streaming::default() }.into());
    let plane = Plane::start(snapshot(vec![route], vec![cluster("backend", Protocol::Http1, &[address])]));
    let beat = chunk(":\n\n");
    for (path, sent, reason) in [
        ("/between", chunk(&event(1)), "idle"),
        ("/within", chunk("data: a"), "idle"),
        ("/before", String::new(), "first_byte_timeout"),
    ] {
        let (mut client, mut endpoint) = events(&plane, &mut arrivals, path).await;
        endpoint.send(&sent).await;
        let got = client.to_end().await;
        // On a busy machine some may come before the first event, too.
        assert_eq!(got.replace(&beat, ""), sent, "no last chunk");
        assert_eq!(got.ends_with(&beat), path != "/within", "{path}: {got:?}");
        endpoint.closed().await;
        let line = plane.logged(path).await;
        assert_eq!((&line["end"], &line["reason"]), (&"idle".into(), &reason.into()), "{line}");
    }
}

#[tokio::test]
async fn what_cannot_be_followed_is_left_alone() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(beating(address, Duration::from_millis(50)));
    let mut client = plane.connect().await;
    for fields in ["Content-Length: 9\r\n", "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"] {
        let chunked = fields.contains("chunked");
        client.send("GET /whole HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(format!("{EVENTS}{fields}\r\n")).await;
        client.head().await;
        let (mut silent, _endpoint) = events(&plane, &mut arrivals, "/silent").await;
        silent.until(&chunk(":\n\n").repeat(3)).await;
        let sent = if chunked { format!("{}0\r\n\r\n", chunk("data: a\n\n")) } else { "data: a\n\n".to_owned() };
        endpoint.send(&sent).await;
        drop(endpoint);
        assert_eq!(client.until(&sent).await, sent);
    }
    for line in plane.logged_times("/whole", 2).await {
        assert!(line["kind"] == "sse" && line.get("events").is_none(), "nobody saw where they end: {line}");
    }
    // An encoding that is none is none.
    let (mut client, _endpoint) = {
        let mut client = plane.connect().await;
        client.send("GET /identity HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(format!("{EVENTS}Content-Encoding: identity\r\n\r\n")).await;
        client.head().await;
        (client, endpoint)
    };
    assert_eq!(client.until("\n\n\r\n").await, chunk(":\n\n"));
}
