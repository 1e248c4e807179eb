//! Endpoints that speak HTTP/2: exchanges share connections, and connections that close are replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use floodway::snapshot::{Action, Protocol, Snapshot};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::clients::*;
use super::support::*;

const CONNECTS: &str = "floodway_upstream_connects_total";

fn to_http2(endpoint: std::net::SocketAddr) -> Snapshot {
    snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http2, &[endpoint])])
}

/// An endpoint that answers all it has got once the gate is open, and the number of those that wait.
async fn gated() -> (std::net::SocketAddr, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (turn, count) = (Arc::clone(&gate), Arc::clone(&waiting));
    let address = http2_backend(move |request, mut answer| {
        let (turn, count) = (Arc::clone(&turn), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = turn.acquire().await;
            let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
            stream.send_data(Bytes::from(request.uri().path().to_owned()), true).unwrap();
        }
    });
    (address.await, gate, waiting)
}

/// Sends `count` requests on one connection, and returns what waits for their answers.
async fn ask_all(plane: &Plane, count: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let client = http2(plane.address).await;
    let ask_one = |number: usize| {
        let client = client.clone();
        tokio::spawn(async move {
            let path = format!("/{number}");
            let mut answer = ask(&client, get(&path)).await;
            assert_eq!(content(answer.body_mut()).await.unwrap().0, path.as_bytes());
        })
    };
    (0..count).map(ask_one).collect()
}

#[tokio::test]
async fn exchanges_share_connections_up_to_a_hundred_each() {
    let (address, gate, waiting) = gated().await;
    let plane = Plane::with(to_http2(address), |settings| settings.limits.http2_streams = 1000);
    // One client connection is one worker.
    let asking = ask_all(&plane, 90).await;
    eventually("90 requests at the endpoint", || waiting.load(Ordering::Relaxed) == 90).await;
    assert_eq!(plane.metric(CONNECTS, ""), 1.0, "all at once, and one connection");
    gate.close();
    for asking in asking {
        within(asking).await.unwrap();
    }
}

#[tokio::test]
async fn more_than_a_hundred_exchanges_open_another_connection() {
    let (address, gate, waiting) = gated().await;
    let plane = Plane::with(to_http2(address), |settings| settings.limits.http2_streams = 1000);
    let asking = ask_all(&plane, 250).await;
    eventually("250 requests at the endpoint", || waiting.load(Ordering::Relaxed) == 250).await;
    assert_eq!(plane.metric(CONNECTS, ""), 3.0);
    gate.close();
    for asking in asking {
        within(asking).await.unwrap();
    }
}

#[tokio::test]
async fn many_small_events_for_slow_readers_cut_nobody() {
    const EVENTS: usize = 30_000;
    let address = http2_backend(|request, mut answer| async move {
        let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
        if request.uri().path() == "/flood" {
            // Held back by flow control once the proxy has taken what it takes ahead of its client.
            (0..EVENTS).for_each(|_| stream.send_data(Bytes::from_static(b"data: 12\n\n"), false).unwrap());
        }
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let plane = Plane::start(to_http2(address.await));
    let mut settings = h2::client::Builder::new();
    let client =
        http2_with(plane.address, settings.initial_connection_window_size(1 << 24).data_frame_budget(1 << 26)).await;
    let mut unread = Vec::new();
    for _ in 0..3 {
        unread.push(ask(&client, get("/flood")).await);
    }
    for _ in 0..20 {
        assert_eq!(ask(&client, get("/short")).await.status(), 200);
    }
    for mut answer in unread {
        assert_eq!(content(answer.body_mut()).await.unwrap().0.len(), 10 * EVENTS);
    }
    assert_eq!(plane.metric(CONNECTS, ""), 1.0);
}

#[tokio::test]
async fn a_connection_that_goes_away_is_replaced_and_its_streams_finish() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (leave, left) = watch::channel(0);
    tokio::spawn(async move {
        let mut accepted = 0;
        while let Ok((stream, _)) = listener.accept().await {
            accepted += 1;
            let (mine, mut left) = (accepted, left.clone());
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut leaving = false;
                loop {
                    let next = tokio::select! {
                        next = connection.accept() => next,
                        Ok(_) = left.wait_for(|left| *left >= mine), if !leaving => {
                            leaving = true;
                            connection.graceful_shutdown();
                            continue;
                        }
                    };
                    let Some(Ok((request, mut answer))) = next else { return };
                    tokio::spawn(async move {
                        let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
                        let mut request = request.into_body();
                        while let Some(Ok(message)) = piece(&mut request).await {
                            stream.send_data(message, false).unwrap();
                        }
                        let _ = stream.send_data(Bytes::new(), true);
                    });
                }
            });
        }
    });
    let plane = Plane::start(to_http2(address));
    let mut client = http2(plane.address).await;
    let (answer, mut long) = client.send_request(post("/long"), false).unwrap();
    let mut answer = within(answer).await.unwrap();
    long.send_data(Bytes::from_static(b"one"), false).unwrap();
    assert_eq!(piece(answer.body_mut()).await.unwrap().unwrap(), "one");
    for round in 1..=5 {
        leave.send(round).unwrap();
        // Every request is answered while connections go away under them, on one of the two as it may be.
        for _ in 0..20 {
            let mut answer = ask(&client, get("/short")).await;
            assert_eq!(answer.status(), 200);
            content(answer.body_mut()).await.unwrap();
        }
        plane.metric_becomes(CONNECTS, "", f64::from(round) + 1.0).await;
        long.send_data(Bytes::from_static(b"more"), false).unwrap();
        assert_eq!(piece(answer.body_mut()).await.unwrap().unwrap(), "more");
    }
    long.send_data(Bytes::new(), true).unwrap();
    assert!(content(answer.body_mut()).await.unwrap().0.is_empty());
}

#[tokio::test]
async fn content_that_outlives_its_answer_holds_nobody_up() {
    // An endpoint may answer before it has read the request. The connection is then busy with the upload.
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = http2(plane.address).await;
    let (answer, mut upload) = client.send_request(post("/early"), false).unwrap();
    upload.send_data(Bytes::from_static(b"some"), false).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let mut answer = within(answer).await.unwrap();
    assert_eq!(content(answer.body_mut()).await.unwrap().0, b"no");
    let (next, _) = client.send_request(get("/next"), true).unwrap();
    let mut other = arrivals.next().await;
    assert!(other.head().await.starts_with("GET /next "));
    other.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within(next).await.unwrap().status(), 204);
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_nobody_and_hold_little() {
    // An endpoint whose connections have room for what it does not read.
    let mut settings = h2::server::Builder::new();
    settings.initial_connection_window_size(1 << 22);
    let address = http2_backend_with(settings, |mut request, mut answer| async move {
        if request.uri().path() == "/unread" {
            // Neither reads nor answers.
            let _ = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
            return;
        }
        let endless = request.uri().path() == "/endless";
        let (all, _) = content(request.body_mut()).await.unwrap();
        let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
        while endless && send(&mut stream, Bytes::from_static(&[b'x'; 10_000]), false).await.is_ok() {}
        let _ = send(&mut stream, all.into(), true).await;
    });
    let plane = Plane::start(to_http2(address.await));
    let mut settings = h2::client::Builder::new();
    settings.initial_window_size(10_000).initial_connection_window_size(1 << 20);
    let mut client = http2_with(plane.address, &settings).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(ask(&client, get("/endless")).await);
    }
    let mut uploads = Vec::new();
    for _ in 0..20 {
        client = client.ready().await.unwrap();
        let (answer, mut stream) = client.send_request(post("/unread"), false).unwrap();
        let mut sent = 0;
        let patience = std::time::Duration::from_millis(100);
        while let Ok(more) = tokio::time::timeout(patience, send(&mut stream, vec![b'x'; 8192].into(), false)).await {
            more.unwrap();
            sent += 8192;
        }
        // The window of the proxy, that of the endpoint, and what is on its way.
        assert!((8192..300_000).contains(&sent), "{sent}");
        uploads.push((answer, stream));
    }
    for _ in 0..20 {
        client = client.ready().await.unwrap();
        let (answer, mut stream) = client.send_request(post("/echo"), false).unwrap();
        let body = Bytes::from(vec![b'y'; 200_000]);
        let receiving = async { content(within(answer).await.unwrap().body_mut()).await.unwrap().0 };
        let (sent, received) = within(async { tokio::join!(send(&mut stream, body.clone(), true), receiving) }).await;
        sent.unwrap();
        assert!(received == body);
    }
    assert_eq!(plane.metric(CONNECTS, ""), 1.0, "all on one connection");
    // Those that were held up go on where they stood.
    for mut answer in held {
        let mut read = 0;
        while read < 100_000 {
            read += piece(answer.body_mut()).await.unwrap().unwrap().len();
        }
    }
    drop(uploads);
    eventually("nothing in flight", || plane.in_flight() == 0).await;
}

#[tokio::test]
async fn interim_answers_pass_between_connections_of_http2() {
    let address = http2_backend(|_, mut answer| async move {
        let mut early = http::Response::new(());
        *early.status_mut() = http::StatusCode::EARLY_HINTS;
        early.headers_mut().insert("link", http::HeaderValue::from_static("</a.css>"));
        answer.send_informational(early).unwrap();
        answer.send_response(http::Response::new(()), true).unwrap();
    });
    let plane = Plane::start(to_http2(address.await));
    let mut client = http2(plane.address).await;
    let (mut answer, _) = client.send_request(get("/"), true).unwrap();
    let told = within(std::future::poll_fn(|cx| answer.poll_informational(cx))).await.unwrap().unwrap();
    assert_eq!((told.status().as_u16(), &told.headers()["link"]), (103, &http::HeaderValue::from_static("</a.css>")));
    assert_eq!(within(answer).await.unwrap().status(), 200);
}

/// An endpoint with small windows for its connections, which reads every request but those for `/unread`, and answers with how
/// much there was.
async fn picky() -> std::net::SocketAddr {
    http2_backend(|mut request, mut answer| async move {
        if request.uri().path() == "/unread" {
            // As servers do, it forgets what it has not read once it is told that nobody waits.
            let _ = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
            return;
        }
        let (read, _) = content(request.body_mut()).await.unwrap();
        let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
        stream.send_data(Bytes::from(read.len().to_string()), true).unwrap();
    })
    .await
}

/// More than fits the windows of an endpoint that does not read it, and those of the proxy.
const MUCH: usize = 200_000;

/// Uploads that much for `/unread`, as far as it is taken. What becomes of it.
async fn unread(mut client: h2::client::SendRequest<Bytes>) -> tokio::task::JoinHandle<http::Response<h2::RecvStream>> {
    let (answer, mut stream) = client.send_request(post("/unread"), false).unwrap();
    tokio::spawn(async move {
        let sending = async {
            let sent = send(&mut stream, vec![b'x'; MUCH].into(), true).await;
            assert!(sent.is_err(), "it was read");
        };
        // Sending ends with the reset that follows the answer.
        tokio::join!(answer, sending).0.unwrap()
    })
}

#[tokio::test]
async fn an_upload_that_nobody_reads_is_ended_and_others_get_its_room() {
    const STALL: Duration = Duration::from_secs(3);
    let mut route = forward("", "backend");
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    action.timeouts.stall = STALL;
    let plane = Plane::start(snapshot(vec![route], vec![cluster("backend", Protocol::Http2, &[picky().await])]));
    let mut client = http2(plane.address).await;
    let (other, mut stream) = client.send_request(post("/read"), false).unwrap();
    send(&mut stream, vec![b'x'; 1000].into(), false).await.unwrap();
    let unread = unread(client).await;
    // The clock of what comes now begins later.
    tokio::time::sleep(STALL / 3).await;
    within(send(&mut stream, vec![b'x'; MUCH].into(), true)).await.unwrap();
    let mut answer = within(other).await.unwrap();
    assert_eq!(content(answer.body_mut()).await.unwrap().0, (MUCH + 1000).to_string().as_bytes());
    let answer = within(unread).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-floodway-reason"]),
        (504, &"upstream_stalled".parse().unwrap())
    );
    assert_eq!(plane.logged("/unread").await["reason"], "upstream_stalled");
    assert_eq!(plane.metric(CONNECTS, ""), 1.0, "on one connection");
}

#[tokio::test]
async fn while_an_upload_is_held_up_new_requests_get_another_connection() {
    let plane = Plane::start(to_http2(picky().await));
    let client = http2(plane.address).await;
    let _unread = unread(client.clone()).await;
    // Those of the first second may share the connection, and wait for it; the others do not.
    let upload = |mut client: h2::client::SendRequest<Bytes>| async move {
        let (answer, mut stream) = client.send_request(post("/read"), false).unwrap();
        send(&mut stream, vec![b'x'; MUCH].into(), true).await.unwrap();
        content(within(answer).await.unwrap().body_mut()).await.unwrap().0
    };
    let mut read = None;
    for _ in 0..20 {
        let uploading = upload(client.clone());
        read = tokio::time::timeout(Duration::from_millis(500), uploading).await.ok();
        if read.is_some() {
            break;
        }
    }
    assert_eq!(read.unwrap(), MUCH.to_string().as_bytes());
    assert_eq!(plane.metric(CONNECTS, ""), 2.0);
}
