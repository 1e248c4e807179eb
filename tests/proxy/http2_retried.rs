//! What an HTTP/2 endpoint says it has not processed is sent again; what a client is told when its connection goes away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use floodway::snapshot::{Protocol, Snapshot};
use h2::Reason;
use tokio::io::AsyncReadExt as _;

use super::clients::*;
use super::frames::{self, *};
use super::support::*;

const PING: u8 = 6;
const ACK: u8 = 1;
const OK: &[u8] = &[0x88];

fn to_http2(endpoints: &[SocketAddr]) -> Snapshot {
    snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http2, endpoints)])
}

/// An endpoint that reads requests and refuses the first `refused` of them; the others it echoes.
async fn refusing(refused: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = http2_backend(move |mut request, mut answer| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let (all, trailers) = content(request.body_mut()).await.unwrap();
            if number < refused {
                return answer.send_reset(Reason::REFUSED_STREAM);
            }
            let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
            stream.send_data(all.into(), trailers.is_none()).unwrap();
            if let Some(trailers) = trailers {
                stream.send_trailers(trailers).unwrap();
            }
        }
    });
    (address.await, count)
}

#[tokio::test]
async fn a_refused_request_is_sent_again_with_its_content() {
    let (endpoint, count) = refusing(2).await;
    let plane = Plane::start(to_http2(&[endpoint]));
    let mut client = http2(plane.address).await;
    let (answer, mut stream) = client.send_request(post("/"), false).unwrap();
    stream.send_data(Bytes::from_static(b"hello "), false).unwrap();
    stream.send_data(Bytes::from_static(b"again"), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("11"));
    stream.send_trailers(trailers).unwrap();
    let mut answer = within(answer).await.unwrap();
    let (all, trailers) = content(answer.body_mut()).await.unwrap();
    assert_eq!((&all[..], &trailers.unwrap()["x-sum"]), (&b"hello again"[..], &http::HeaderValue::from_static("11")));
    assert_eq!(count.load(Ordering::Relaxed), 3);
    assert_eq!(plane.logged("/").await["bytes_received"], 11, "what is sent again came once");
}

#[tokio::test]
async fn refusals_are_not_followed_for_ever_nor_with_content_that_is_gone() {
    let (endpoint, count) = refusing(usize::MAX).await;
    let plane = Plane::start(to_http2(&[endpoint]));
    let mut client = http2(plane.address).await;
    let answer = ask(&client, get("/")).await;
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["x-floodway-reason"].to_str().unwrap()),
        (502, "upstream_reset")
    );
    assert_eq!(count.load(Ordering::Relaxed), 4);

    let (answer, mut stream) = client.send_request(post("/large"), false).unwrap();
    let (sent, answer) = tokio::join!(send(&mut stream, vec![b'x'; 300_000].into(), true), within(answer));
    assert_eq!(answer.unwrap().status(), 502, "{sent:?}");
    assert_eq!(count.load(Ordering::Relaxed), 5, "too much was sent to keep it");
}

#[tokio::test]
async fn an_endpoint_that_resets_every_stream_is_not_asked_for_ever() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = http2_backend(move |_, mut answer| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { answer.send_reset(Reason::INTERNAL_ERROR) }
    });
    let plane = Plane::start(to_http2(&[address.await]));
    let client = http2(plane.address).await;
    for _ in 0..3 {
        assert_eq!(ask(&client, get("/")).await.status(), 502);
    }
    assert!(count.load(Ordering::Relaxed) <= 12, "{count:?}");
}

#[tokio::test]
async fn a_refused_request_goes_elsewhere() {
    let (refuses, count) = refusing(usize::MAX).await;
    let (serves, _) = refusing(0).await;
    let plane = Plane::start(to_http2(&[refuses, serves]));
    let client = http2(plane.address).await;
    for _ in 0..20 {
        assert_eq!(ask(&client, get("/")).await.status(), 200);
    }
    assert!(count.load(Ordering::Relaxed) > 0, "it was asked, too");
}

/// Reads what a client says first, and says what settings there are.
async fn greet(endpoint: &mut Raw, settings: &[u8]) {
    let mut preface = [0; 24];
    within(endpoint.0.read_exact(&mut preface)).await.unwrap();
    endpoint.send(frame(SETTINGS, 0, 0, settings)).await;
}

#[tokio::test]
async fn requests_above_the_last_stream_of_a_goaway_go_to_another_connection() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to_http2(&[address]));
    let mut client = http2(plane.address).await;
    let (kept, _) = client.send_request(get("/kept"), true).unwrap();
    let mut first = arrivals.next().await;
    greet(&mut first, &[]).await;
    let headers = |frame: &Frame| frame.kind == HEADERS;
    assert_eq!(frames::next(&mut first, headers).await.unwrap().stream, 1);
    let (moved, mut stream) = client.send_request(post("/moved"), false).unwrap();
    stream.send_data(Bytes::from_static(b"content"), true).unwrap();
    assert_eq!(frames::next(&mut first, headers).await.unwrap().stream, 3);
    first.send(frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).await;

    let mut second = arrivals.next().await;
    greet(&mut second, &[]).await;
    let again = frames::next(&mut second, headers).await.unwrap();
    let data = frames::next(&mut second, |frame| frame.kind == DATA).await.unwrap();
    assert_eq!((data.stream, &data.payload[..]), (again.stream, &b"content"[..]));
    second.send(frame(HEADERS, END_HEADERS | END_STREAM, again.stream, OK)).await;
    assert_eq!(within(moved).await.unwrap().status(), 200);
    // What the endpoint does process is not taken away from it.
    first.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, OK)).await;
    assert_eq!(within(kept).await.unwrap().status(), 200);
    assert_eq!(frames::next(&mut first, |_| false).await.map(|frame| frame.kind), None, "closed");
}

#[tokio::test]
async fn an_endpoint_that_allows_no_streams_for_a_while_gets_them_later() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to_http2(&[address]));
    let client = http2(plane.address).await;
    let (first, _) = client.clone().send_request(get("/first"), true).unwrap();
    let mut endpoint = arrivals.next().await;
    greet(&mut endpoint, &[]).await;
    let headers = |frame: &Frame| frame.kind == HEADERS;
    let begun = frames::next(&mut endpoint, headers).await.unwrap();
    endpoint.send(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0])).await;
    endpoint.send(frame(PING, 0, 0, &[7; 8])).await;
    frames::next(&mut endpoint, |frame| frame.kind == PING && frame.flags == ACK).await.unwrap();
    endpoint.send(frame(HEADERS, END_HEADERS | END_STREAM, begun.stream, OK)).await;
    within(first).await.unwrap();

    let (second, _) = client.clone().send_request(get("/second"), true).unwrap();
    endpoint.send(frame(PING, 0, 0, &[8; 8])).await;
    let next = frames::next(&mut endpoint, |frame| matches!(frame.kind, HEADERS | PING)).await.unwrap();
    assert_eq!(next.kind, PING, "no stream is begun");
    endpoint.send(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])).await;
    let begun = frames::next(&mut endpoint, headers).await.unwrap();
    endpoint.send(frame(HEADERS, END_HEADERS | END_STREAM, begun.stream, OK)).await;
    assert_eq!(within(second).await.unwrap().status(), 200);
    assert_eq!(plane.metric("floodway_upstream_connects_total", ""), 1.0);
}

#[tokio::test]
async fn an_idle_client_is_told_twice_before_its_connection_closes() {
    let (address, _arrivals) = played().await;
    let plane = Plane::with(to(address), |settings| {
        settings.limits.keep_alive_idle = Duration::from_millis(100);
        settings.limits.stream_buffer_bytes = 20_000;
    });
    let mut client = frames::open(&plane).await;
    let settings = frames::next(&mut client, |frame| frame.kind == SETTINGS && frame.flags == 0).await.unwrap();
    let has = |id: u8, value: u32| {
        let wanted = [&[0, id][..], &value.to_be_bytes()].concat();
        settings.payload.chunks(6).any(|setting| setting == wanted)
    };
    assert!(has(4, 20_000), "what a stream holds: {settings:?}");
    assert!(has(8, 1), "RFC 8441 3");
    let goaway = |frame: &Frame| frame.kind == GOAWAY;
    let warning = frames::next(&mut client, goaway).await.unwrap();
    assert_eq!((&warning.payload[..4], warning.code()), (&[0x7f, 0xff, 0xff, 0xff][..], 0));
    let ping = frames::next(&mut client, |frame| frame.kind == PING && frame.flags == 0).await.unwrap();
    client.send(frame(PING, ACK, 0, &ping.payload)).await;
    let last = frames::next(&mut client, goaway).await.unwrap();
    assert_eq!((&last.payload[..4], last.code()), (&[0; 4][..], 0));
    assert!(frames::next(&mut client, |frame| frame.kind == HEADERS).await.is_none(), "closed");
}

#[tokio::test]
async fn a_client_that_waits_for_a_go_ahead_gets_it_over_http2() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = http2(plane.address).await;
    let mut request = post("/");
    request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
    let (mut answer, mut stream) = client.send_request(request, false).unwrap();
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
    endpoint.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    let told = within(std::future::poll_fn(|cx| answer.poll_informational(cx))).await.unwrap().unwrap();
    assert_eq!(told.status(), 100);
    stream.send_data(Bytes::from_static(b"content"), true).unwrap();
    assert_eq!(endpoint.until("0\r\n\r\n").await, "7\r\ncontent\r\n0\r\n\r\n");
    endpoint.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within(answer).await.unwrap().status(), 204);
}
