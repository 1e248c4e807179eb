//! Timers that fit streams: each bound has its own reason, whoever is waited for.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use floodway::snapshot::{Action, Protocol, Snapshot, Timeouts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::clients::*;
use super::endpoints::nothing_is_left;
use super::frames;
use super::support::*;
use super::websocket::{SWITCHED, UPGRADE};

const SHORT: Duration = Duration::from_millis(300);
const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn bounded(endpoint: SocketAddr, protocol: Protocol, change: impl FnOnce(&mut Timeouts)) -> Snapshot {
    let mut route = forward("", "backend");
    let Action::Forward(forward) = &mut route.action else { unreachable!() };
    change(&mut forward.timeouts);
    snapshot(vec![route], vec![cluster("backend", protocol, &[endpoint])])
}

async fn logged_as(plane: &Plane, path: &str, status: u16, reason: &str, end: &str) {
    let line = plane.logged(path).await;
    assert_eq!(
        (&line["status"], &line["reason"], &line["end"]),
        (&status.into(), &reason.into(), &end.into()),
        "{line}"
    );
    assert_eq!(plane.metric("floodway_failures_total", &format!("reason=\"{reason}\"")), 1.0);
}

/// Writes until the other side gives up.
async fn flood(endpoint: &mut Raw) {
    let piece = vec![b'x'; 64 * 1024];
    within(async { while endpoint.0.write_all(&piece).await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_of_its_content_is_told_so() {
    for (protocol, answers) in [(Protocol::Http1, true), (Protocol::Http2, false)] {
        let (address, mut arrivals) = played().await;
        let address = match protocol {
            Protocol::Http1 | Protocol::Agreed => address,
            Protocol::Http2 => {
                http2_backend(|request, answer| async move {
                    let _held = (request, answer);
                    std::future::pending::<()>().await;
                })
                .await
            }
        };
        // The bound of a silent endpoint is longer: nobody waits for it.
        let plane = Plane::start(bounded(address, protocol, |timeouts| timeouts.idle = SHORT));
        let mut client = plane.connect().await;
        client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe").await;
        if answers {
            let (mut endpoint, _) = arrivals.request().await;
            endpoint.until("he").await;
            endpoint.closed().await;
        }
        let answer = client.to_end().await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("\r\nx-floodway-reason: upload_idle\r\n"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        logged_as(&plane, "/x", 408, "upload_idle", "answered").await;
        drop(client);
        nothing_is_left(&plane).await;
    }
}

#[tokio::test]
async fn content_that_keeps_coming_meets_no_bound() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(bounded(address, Protocol::Http1, |timeouts| {
        timeouts.idle = SHORT;
        timeouts.stall = SHORT;
        timeouts.response_head = SHORT;
    }));
    let mut client = plane.connect().await;
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    for _ in 0..20 {
        client.send("x").await;
        endpoint.until("x").await;
        tokio::time::sleep(SHORT / 10).await;
    }
    endpoint.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204 "));
}

#[tokio::test]
async fn an_endpoint_that_takes_nothing_of_the_content_is_given_up() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(bounded(address, Protocol::Http1, |timeouts| timeouts.stall = SHORT));
    let mut client = plane.connect().await;
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await;
    let (endpoint, _) = arrivals.request().await;
    let (reading, mut writing) = client.0.into_split();
    let sending = tokio::spawn(async move {
        let piece = vec![b'x'; 64 * 1024];
        while writing.write_all(&piece).await.is_ok() {}
    });
    within(reading.readable()).await.unwrap();
    sending.abort();
    let mut answer = vec![0; 4096];
    let length = reading.try_read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("\r\nx-floodway-reason: upstream_stalled\r\n"), "{answer}");
    logged_as(&plane, "/x", 504, "upstream_stalled", "answered").await;
    drop((reading, endpoint));
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn an_http2_endpoint_that_gives_no_room_is_given_up() {
    let address = http2_backend(|request, answer| async move {
        let _held = (request, answer);
        std::future::pending::<()>().await;
    })
    .await;
    let plane = Plane::start(bounded(address, Protocol::Http2, |timeouts| timeouts.stall = SHORT));
    let mut client = http2(plane.address).await;
    let (answer, mut content) = client.send_request(post("/x"), false).unwrap();
    let sending = tokio::spawn(async move { send(&mut content, Bytes::from(vec![0; 10 << 20]), true).await });
    let answer = within(answer).await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["x-floodway-reason"]),
        (http::StatusCode::GATEWAY_TIMEOUT, &"upstream_stalled".parse().unwrap())
    );
    logged_as(&plane, "/x", 504, "upstream_stalled", "answered").await;
    sending.abort();
}

#[tokio::test]
async fn an_http2_client_that_takes_nothing_is_ended() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(bounded(address, Protocol::Http1, |timeouts| timeouts.stall = SHORT));
    // Its window lets nothing through after the first 65,535 bytes; the connection answers pings all along.
    let mut client = http2(plane.address).await;
    let (answer, _) = client.send_request(get("/stalled"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
    let mut body = within(answer).await.unwrap().into_body();
    flood(&mut endpoint).await;
    logged_as(&plane, "/stalled", 200, "client_stalled", "stalled").await;
    let mut taken = 0;
    let error = loop {
        match piece(&mut body).await.unwrap() {
            Ok(piece) => taken += piece.len(),
            Err(error) => break error,
        }
    };
    assert!(error.is_reset() && taken <= 65_535, "{error} after {taken}");
    // The connection goes on.
    let (answer, _) = client.send_request(get("/next"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within(answer).await.unwrap().status(), 204);
}

#[tokio::test]
async fn an_http1_client_that_takes_nothing_is_ended() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(bounded(address, Protocol::Http1, |timeouts| timeouts.stall = SHORT));
    let mut client = plane.connect().await;
    client.send("GET /stalled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
    flood(&mut endpoint).await;
    logged_as(&plane, "/stalled", 200, "client_stalled", "stalled").await;
    assert!(client.to_end().await.len() < 100_000_000, "cut");
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn a_client_that_takes_a_little_now_and_then_is_not_stalled() {
    const STALL: Duration = Duration::from_millis(1500);
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(bounded(address, Protocol::Http1, |timeouts| {
        timeouts.stall = STALL;
        // The endpoint is not idle while it may not send.
        timeouts.idle = STALL / 2;
    }));
    let mut client = plane.connect().await;
    let length = 24 << 20;
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    tokio::spawn(async move {
        endpoint.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).await;
        endpoint.send(vec![b'x'; length]).await;
        endpoint.closed().await;
    });
    client.head().await;
    let mut taken = 0;
    let mut buffer = vec![0; 1 << 20];
    while taken < length {
        // All of it takes longer than a client may take nothing.
        tokio::time::sleep(STALL / 15).await;
        let read = within(client.0.read(&mut buffer)).await.unwrap();
        assert!(read > 0, "cut after {taken} bytes");
        taken += read;
    }
    assert_eq!(plane.logged("/slow").await["end"], "complete");
}

#[tokio::test]
async fn a_head_without_content_meets_its_own_bound() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(bounded(address, Protocol::Http1, |timeouts| timeouts.first_byte = Some(SHORT)));
    let mut client = plane.connect().await;
    client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(HEAD).await;
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("0\r\n\r\n"), "cut: {answer}");
    logged_as(&plane, "/late", 200, "first_byte_timeout", "idle").await;
    drop(endpoint);

    // With the first byte that bound is over.
    let mut client = plane.connect().await;
    client.send("GET /begun HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(HEAD).await;
    endpoint.send("2\r\nhi\r\n").await;
    client.until("2\r\nhi\r\n").await;
    tokio::time::sleep(SHORT * 2).await;
    endpoint.send("2\r\nho\r\n0\r\n\r\n").await;
    client.until("2\r\nho\r\n0\r\n\r\n").await;
    assert_eq!(plane.logged("/begun").await["end"], "complete");
}

/// Asks for `/slow`, over HTTP/2 with windows that never fill, so that nothing but TCP itself holds the answer up.
async fn asks_as(client: &mut Raw, kind: &str) {
    match kind {
        "http2" => {
            let largest = i32::MAX.to_be_bytes();
            client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            // SETTINGS_INITIAL_WINDOW_SIZE, and then the connection's.
            client.send(frames::frame(frames::SETTINGS, 0, 0, &[&[0, 4][..], &largest].concat())).await;
            client.send(frames::frame(frames::WINDOW_UPDATE, 0, 0, &(i32::MAX - 65_535).to_be_bytes())).await;
            let head = [(":method", "GET"), (":scheme", "http"), (":path", "/slow"), (":authority", "a")];
            let flags = frames::END_HEADERS | frames::END_STREAM;
            client.send(frames::frame(frames::HEADERS, flags, 1, &frames::fields(&head))).await;
        }
        "websocket" => client.send(format!("GET /slow HTTP/1.1\r\n{UPGRADE}\r\n")).await,
        _ => client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await,
    }
}

/// A client whose system takes little ahead of it.
async fn small_client(plane: &Plane) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    Raw(within(socket.connect(plane.address)).await.unwrap())
}

/// The kernel's clock for peers that take nothing notices nothing of what they take in between.
#[tokio::test]
async fn a_reader_that_is_slow_is_neither_cut_nor_taken_for_gone_by_the_kernel() {
    const STALL: Duration = Duration::from_secs(3);
    let flooding = backend(|mut endpoint| async move {
        let head = endpoint.head().await;
        endpoint
            .send(if head.contains("upgrade: websocket") { [SWITCHED, "\r\n"].concat() } else { HEAD.to_owned() })
            .await;
        if head.contains("upgrade: websocket") {
            endpoint.send([0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0]).await;
        }
        let piece = vec![b'x'; 64 * 1024];
        let chunk = [b"10000\r\n", &piece[..], b"\r\n"].concat();
        let piece = if head.contains("upgrade: websocket") { piece } else { chunk };
        while endpoint.0.write_all(&piece).await.is_ok() {}
    });
    let snapshot = bounded(flooding.await, Protocol::Http1, |timeouts| timeouts.stall = STALL);
    let plane = Plane::with(snapshot, |settings| settings.listeners.tcp_user_timeout = Duration::from_millis(500));
    let read = |kind: &'static str| {
        let plane = &plane;
        async move {
            let mut client = small_client(plane).await;
            asks_as(&mut client, kind).await;
            let begun = Instant::now();
            let mut piece = vec![0; 8 * 1024];
            while begun.elapsed() < 2 * STALL {
                within(client.0.read_exact(&mut piece)).await.unwrap_or_else(|error| panic!("{kind} was cut: {error}"));
                tokio::time::sleep(STALL / 20).await;
            }
            // And now it takes nothing at all.
            client
        }
    };
    let _unread = tokio::join!(read("http1"), read("http2"), read("websocket"));
    for line in plane.logged_times("/slow", 3).await {
        assert_eq!((&line["end"], &line["reason"]), (&"stalled".into(), &"client_stalled".into()), "{line}");
    }
}
