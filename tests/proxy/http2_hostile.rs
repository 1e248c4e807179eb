//! HTTP/2 as no honest client speaks it: what RFC 9113 forbids is refused, and floods end with the connection.

use super::frames::{self, *};
use super::support::*;

const REQUEST: &[(&str, &str)] = &[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

/// What comes of a request with these fields and this content: the frame that answers it.
async fn outcome(plane: &Plane, block: &[(&str, &str)], data: Option<&str>) -> Frame {
    let mut client = frames::open(plane).await;
    let end = if data.is_none() { END_STREAM } else { 0 };
    client.send(frame(HEADERS, END_HEADERS | end, 1, &fields(block))).await;
    if let Some(data) = data {
        client.send(frame(DATA, END_STREAM, 1, data.as_bytes())).await;
    }
    let answers =
        |frame: &Frame| frame.stream == 1 && matches!(frame.kind, HEADERS | RST_STREAM) || frame.kind == GOAWAY;
    frames::next(&mut client, answers).await.unwrap()
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let plane = Plane::start(to(mirror().await));
    let with = |more: &[(&'static str, &'static str)]| [REQUEST, more].concat();
    let answer = outcome(&plane, &with(&[("te", "trailers"), ("x", "y")]), None).await;
    assert_eq!((answer.kind, answer.payload[0]), (HEADERS, 0x88), "a good one: 200 by the static table");

    // RFC 9113 8.1.1: "Malformed requests or responses that are detected MUST be treated as a stream error of type
    // PROTOCOL_ERROR."
    let malformed = [
        with(&[("Upper", "x")]),
        with(&[("sp ace", "x")]),
        with(&[("x", "a\r\nb: c")]),
        with(&[("x", "a\0")]),
        with(&[("connection", "close")]),
        with(&[("keep-alive", "timeout=5")]),
        with(&[("proxy-connection", "keep-alive")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
        with(&[("te", "trailers, gzip")]),
        with(&[(":path", "/again")]),
        with(&[(":status", "200")]),
        with(&[(":unknown", "x")]),
        with(&[("x", "y"), (":path", "/late")]),
        REQUEST[1..].to_vec(),
        [&REQUEST[..1], &REQUEST[2..]].concat(),
        REQUEST[..3].to_vec(),
        [&REQUEST[..3], &[(":path", "")]].concat(),
    ];
    for block in malformed {
        let answer = outcome(&plane, &block, None).await;
        let refused = matches!(answer.kind, RST_STREAM | GOAWAY) && answer.code() == 1
            || answer.kind == HEADERS && answer.payload[0] == 0x8c;
        assert!(refused, "{block:?}: {answer:?}");
    }
    // These are for us to refuse: 400 by the static table.
    let refused = [
        with(&[("x", " padded")]),
        with(&[("x", "padded\t")]),
        with(&[("host", "b")]),
        with(&[("host", "a"), ("host", "a")]),
        [&REQUEST[..2], &REQUEST[3..]].concat(),
        [&REQUEST[..2], &[(":authority", "user@a"), (":path", "/")]].concat(),
    ];
    for block in refused {
        let answer = outcome(&plane, &block, None).await;
        let refused = answer.kind == HEADERS && answer.payload[0] == 0x8c || answer.kind == RST_STREAM;
        assert!(refused, "{block:?}: {answer:?}");
    }
    // Only the good one went on.
    plane.metric_becomes("floodway_requests_total", "200", 1.0).await;
}

#[tokio::test]
async fn a_length_that_disagrees_with_the_data_is_refused() {
    for data in ["abc", "abcdefg"] {
        let (address, mut arrivals) = played().await;
        let plane = Plane::start(to(address));
        let block = [REQUEST, &[("content-length", "5")]].concat();
        let answer = outcome(&plane, &block, Some(data)).await;
        assert!(matches!(answer.kind, RST_STREAM | GOAWAY) && answer.code() == 1, "{data}: {answer:?}");
        // If the endpoint has seen anything of it, then not all of the content.
        drop(plane);
        while let Ok(mut endpoint) = tokio::time::timeout(std::time::Duration::from_millis(300), arrivals.next()).await
        {
            let seen = endpoint.to_end().await;
            assert!(!seen.contains("abcde"), "{seen}");
        }
    }
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::with(to(address), |settings| settings.limits.http2_streams = 5);
    let mut client = frames::open(&plane).await;
    for stream in 0..6 {
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &fields(REQUEST))).await;
    }
    let reset = frames::next(&mut client, |frame| frame.kind == RST_STREAM).await.unwrap();
    assert_eq!((reset.stream, reset.code()), (11, 7), "REFUSED_STREAM");
    for _ in 0..5 {
        arrivals.next().await;
    }
}

#[tokio::test]
async fn a_flood_of_resets_closes_the_connection() {
    let (address, _arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = frames::open(&plane).await;
    let mut flood = Vec::new();
    for stream in (1..20_001).step_by(2) {
        flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(REQUEST)));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let (mut reader, mut writer) = client.0.split();
    let flooding = async {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, &flood).await;
    };
    let mut all = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut all);
    let _ = within(async { tokio::join!(flooding, reading) }).await;
    plane.metric_becomes("floodway_connections_open", "", 0.0).await;
    plane.metric_becomes("floodway_active_streams", "", 0.0).await;
    let calm = frame(GOAWAY, 0, 0, &[]);
    assert!(all.windows(5).any(|part| part == &calm[3..8]) || all.len() < 1000, "GOAWAY before the close");
    let answer = plane.exchange("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "it goes on serving: {answer}");
}

#[tokio::test]
async fn a_head_without_end_closes_the_connection() {
    let plane = Plane::start(to(mirror().await));
    // Many fields, and CVE-2024-27316: many CONTINUATION frames with next to nothing.
    for block in [fields(&[("x-long-name", &"y".repeat(100))]).repeat(100), fields(&[("x", "y")]), Vec::new()] {
        let mut client = frames::open(&plane).await;
        client.send(frame(HEADERS, 0, 1, &fields(REQUEST))).await;
        let piece = frame(CONTINUATION, 0, 1, &block);
        let (mut reader, mut writer) = client.0.split();
        let flooding = async {
            let mut sent = 0;
            while tokio::io::AsyncWriteExt::write_all(&mut writer, &piece).await.is_ok() {
                sent += piece.len();
                assert!(sent < 64 << 20, "nobody stops it");
            }
        };
        let mut all = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut all);
        let _ = within(async { tokio::join!(flooding, reading) }).await;
    }
    plane.metric_becomes("floodway_connections_open", "", 0.0).await;
    assert_eq!(plane.metric("floodway_requests_total", "200"), 0.0);
}
