//! Changes of routes and endpoints: whatever is under way does not notice, whatever begins finds the new table.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use floodway::snapshot::{Cluster, Protocol, Snapshot};
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::clients::*;
use super::support::*;

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn event(number: usize) -> String {
    format!("data: {number:06}\n\n")
}

/// An endpoint for everything: numbered events until `ended`, WebSockets that echo, and short answers.
async fn anything(ended: Arc<AtomicBool>) -> SocketAddr {
    backend(move |mut connection| {
        let ended = Arc::clone(&ended);
        async move {
            connection.0.set_nodelay(true).unwrap();
            let mut peeked = [0; 7];
            while let Ok(7) = connection.0.peek(&mut peeked).await {
                if &peeked == b"GET /ws" {
                    let Ok(mut socket) = tokio_tungstenite::accept_async(connection.0).await else { return };
                    while let Some(Ok(message)) = socket.next().await {
                        if message.is_text() {
                            socket.send(message).await.unwrap();
                        }
                    }
                    return;
                }
                let Some(head) = connection.request().await else { return };
                if !head.starts_with("GET /events") {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                    continue;
                }
                connection.send(EVENTS).await;
                for number in 0.. {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    connection.send(format!("e\r\n{}\r\n", event(number))).await;
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                connection.send("0\r\n\r\n").await;
            }
        }
    })
    .await
}

/// Reads a stream's chunks to its end: how many events, all in order.
async fn count_events(mut client: Raw) -> usize {
    for number in 0.. {
        let line = client.until("\r\n").await;
        if line == "0\r\n" {
            client.until("\r\n").await;
            return number;
        }
        assert_eq!(client.until("\n\n\r\n").await, format!("{}\r\n", event(number)));
    }
    unreachable!()
}

/// The table of step `step`: routes come, go and change places, and so do endpoints.
fn table(step: usize, endpoints: &[SocketAddr]) -> Snapshot {
    let mut routes = vec![forward("/short", "short")];
    if step % 3 != 1 {
        routes.push(forward("/events", "streams"));
        routes.push(forward("/ws", "streams"));
    }
    for extra in 0..step % 7 {
        routes.push(forward(&format!("/extra-{step}-{extra}"), "short"));
    }
    let length = routes.len();
    routes.rotate_left(step % length);
    // Two of the endpoints at a time, so that each leaves and comes back.
    let some = [endpoints[step % endpoints.len()], endpoints[(step + 1) % endpoints.len()]];
    let some = if step.is_multiple_of(5) { endpoints } else { &some };
    let mut clusters: Vec<Cluster> = vec![cluster("short", Protocol::Http1, some)];
    if step % 4 != 2 {
        clusters.push(cluster("streams", Protocol::Http1, some));
    }
    snapshot(routes, clusters)
}

#[tokio::test]
async fn three_hundred_tables_under_load_disturb_nobody() {
    let ended = Arc::new(AtomicBool::new(false));
    let mut endpoints = Vec::new();
    for _ in 0..4 {
        endpoints.push(anything(Arc::clone(&ended)).await);
    }
    let plane = Plane::start(table(0, &endpoints));

    let mut events = Vec::new();
    for _ in 0..20 {
        let mut client = plane.connect().await;
        client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        events.push(tokio::spawn(count_events(client)));
    }
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let stream = TcpStream::connect(plane.address).await.unwrap();
        let (mut socket, _) = within(tokio_tungstenite::client_async("ws://a/ws", stream)).await.unwrap();
        let ended = Arc::clone(&ended);
        sockets.push(tokio::spawn(async move {
            let mut number = 0;
            while !ended.load(Ordering::Relaxed) {
                socket.send(Message::text(number.to_string())).await.unwrap();
                assert_eq!(within(socket.next()).await.unwrap().unwrap(), Message::text(number.to_string()));
                number += 1;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            socket.close(None).await.unwrap();
            number
        }));
    }
    let mut streams = Vec::new();
    for _ in 0..2 {
        let client = http2(plane.address).await;
        for _ in 0..5 {
            let mut body = ask(&client, get("/events")).await.into_body();
            streams.push(tokio::spawn(async move {
                let all = content(&mut body).await.unwrap().0;
                let text = String::from_utf8(all).unwrap();
                let count = text.matches("\n\n").count();
                assert_eq!(text, (0..count).map(event).collect::<String>());
                count
            }));
        }
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let mut asking = Vec::new();
    for kept in [true, true, false, false] {
        let (address, ended, asked) = (plane.address, Arc::clone(&ended), Arc::clone(&asked));
        asking.push(tokio::spawn(async move {
            let mut client = Raw(TcpStream::connect(address).await.unwrap());
            while !ended.load(Ordering::Relaxed) {
                if !kept {
                    client = Raw(TcpStream::connect(address).await.unwrap());
                }
                client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n").await;
                let head = client.head().await;
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                client.until("ok").await;
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    for step in 1..=300 {
        plane.publisher.publish(table(step, &endpoints));
        // So that every table is used by somebody.
        let before = asked.load(Ordering::Relaxed);
        eventually("more requests", || asked.load(Ordering::Relaxed) > before + 2).await;
    }
    let answer = plane.exchange("GET /extra-300-5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "the last table is in force: {answer}");
    ended.store(true, Ordering::Relaxed);

    let counts = join_all(events.into_iter().chain(sockets).chain(streams)).await;
    for count in counts {
        assert!(count.unwrap() > 20, "it ran through many tables");
    }
    for asking in asking {
        asking.await.unwrap();
    }
    assert!(asked.load(Ordering::Relaxed) > 600);
    for status in ["code=\"4", "code=\"5"] {
        assert_eq!(plane.metric("floodway_requests_total", status), 0.0, "nothing failed");
    }
    assert_eq!(plane.metric("floodway_failures_total", ""), 0.0);
    plane.metric_becomes("floodway_active_streams", "", 0.0).await;
    plane.metric_becomes("floodway_connections_open", "", 0.0).await;
}

#[tokio::test]
async fn connections_to_an_endpoint_that_is_removed_end_with_what_runs_on_them() {
    let (address, mut arrivals) = played().await;
    let (other, _others) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut kept, _) = arrivals.request().await;
    let mut streaming = http2(plane.address).await;
    let (answer, _) = streaming.send_request(get("/streaming"), true).unwrap();
    let (mut running, _) = arrivals.request().await;
    running.send(EVENTS).await;
    let mut body = within(answer).await.unwrap().into_body();
    let (answer, _) = streaming.send_request(get("/pending"), true).unwrap();
    let (mut pending, _) = arrivals.request().await;
    kept.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    client.head().await;

    let gone = snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http1, &[other])]);
    plane.publisher.publish(gone);
    assert!(!kept.closed().await, "within seconds, without a request to notice the change");
    pending.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within(answer).await.unwrap().status(), 204);
    // Although another stream still runs to that endpoint.
    assert!(!pending.closed().await);
    running.send("3\r\n:x\n\r\n").await;
    assert_eq!(piece(&mut body).await.unwrap().unwrap(), ":x\n");
    running.send("0\r\n\r\n").await;
    assert!(piece(&mut body).await.is_none());
    assert!(!running.closed().await);
}
