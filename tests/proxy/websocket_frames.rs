//! What a tunnel makes of frames: limits, violations, counts, and the difference between an end and a cut.

use std::time::Duration;

use floodway::snapshot::{Protocol, Snapshot, Streaming, WebSocket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::endpoints::nothing_is_left;
use super::farewell::streaming;
use super::support::*;
use super::websocket::{SWITCHED, UPGRADE, tunnel};
use super::websocket_bytes::*;

/// Reads a close of the proxy's and answers it, as the client or as the endpoint.
pub async fn told(side: &mut Raw, client: bool, code: u16, reason: &str) {
    let came = next(side).await;
    assert_eq!((came.first, &came.payload), (END | CLOSE, &close(code, reason)), "{came:?}");
    assert_eq!(came.key.is_none(), client, "masked towards the endpoint alone: {came:?}");
    side.send(frame(END | CLOSE, client, &came.payload)).await;
}

/// Everything goes to `endpoint`, with these wishes for WebSockets.
pub fn wishing(endpoint: std::net::SocketAddr, web_socket: WebSocket) -> Snapshot {
    streaming(endpoint, Protocol::Http1, Streaming { web_socket, ..Streaming::default() })
}

/// Asserts how the `count`th exchange ended.
pub async fn ended(plane: &Plane, count: usize, end: &str, reason: Option<&str>) -> serde_json::Value {
    let line = plane.logged_times("/socket", count).await.remove(count - 1);
    let reason = reason.map_or(serde_json::Value::Null, serde_json::Value::from);
    assert_eq!((&line["kind"], &line["end"], &line["reason"]), (&"websocket".into(), &end.into(), &reason), "{line}");
    line
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_refused_before_a_byte_of_it_passes() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(wishing(address, WebSocket { max_frame: Some(1000), ..WebSocket::default() }));
    let mut count = 0;
    for by_client in [true, false] {
        for length in [1001, u64::from(u32::MAX), i64::MAX as u64] {
            let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
            let (offender, other) = if by_client { (&mut client, &mut endpoint) } else { (&mut endpoint, &mut client) };
            offender.send(frame(END | BINARY, by_client, &[b'x'; 1000])).await;
            assert_eq!(next(other).await.payload, [b'x'; 1000], "what is allowed passes");
            // Byte by byte, so that nothing can be judged until the last.
            for byte in header(END | BINARY, by_client, length) {
                offender.send([byte]).await;
                offender.0.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            told(other, !by_client, 1009, "message_too_large").await;
            told_while_sending(offender, by_client, length).await;
            count += 1;
            let line = ended(&plane, count, "too_large", Some("message_too_large")).await;
            assert!(line["duration_ms"].as_f64().unwrap() < 60_000.0);
        }
    }
    let failures = plane.metric("floodway_failures_total", "message_too_large");
    assert_eq!(failures, f64::from(u32::try_from(count).unwrap()));
    assert_eq!(plane.metric("floodway_websocket_violations_total", ""), 0.0);
    nothing_is_left(&plane).await;
}

/// The offender goes on for a while and then answers the close, or gives up.
async fn told_while_sending(offender: &mut Raw, by_client: bool, length: u64) {
    if length > 100_000 {
        offender.send([b'x'; 5000]).await;
        assert_eq!(next(offender).await.payload, close(1009, "message_too_large"));
        offender.0.shutdown().await.unwrap();
    } else {
        offender.send(vec![b'x'; length as usize]).await;
        told(offender, by_client, 1009, "message_too_large").await;
    }
    assert!(!offender.closed().await, "an end, not a reset");
}

#[tokio::test]
async fn a_message_that_grows_too_large_is_ended_between_its_frames() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(wishing(address, WebSocket { max_message: Some(100), ..WebSocket::default() }));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    for _ in 0..3 {
        client.send(frame(TEXT, true, &[b'a'; 60])).await;
        client.send(frame(END | PING, true, b"in between")).await;
        client.send(frame(END | CONTINUATION, true, &[b'b'; 40])).await;
        for first in [TEXT, END | PING, END | CONTINUATION] {
            assert_eq!(next(&mut endpoint).await.first, first);
        }
    }
    // All in one piece: what is allowed of it passes.
    let pieces = [
        frame(TEXT, true, &[b'a'; 60]),
        frame(CONTINUATION, true, &[b'b'; 40]),
        frame(END | CONTINUATION, true, b"c"),
        frame(END | TEXT, true, b"never"),
        frame(END | CLOSE, true, &close(1009, "")),
    ];
    client.send(pieces.concat()).await;
    assert_eq!(next(&mut endpoint).await.payload, [b'a'; 60]);
    assert_eq!(next(&mut endpoint).await.payload, [b'b'; 40]);
    told(&mut endpoint, false, 1009, "message_too_large").await;
    assert!(!endpoint.closed().await);
    assert_eq!(next(&mut client).await.payload, close(1009, "message_too_large"));
    assert!(!client.closed().await);
    ended(&plane, 1, "too_large", Some("message_too_large")).await;
}

#[tokio::test]
async fn who_does_not_answer_a_close_is_not_waited_for_for_ever() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(wishing(address, WebSocket { max_frame: Some(10), ..WebSocket::default() }));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    endpoint.send(frame(END | TEXT, false, b"far too much")).await;
    assert_eq!(next(&mut client).await.payload, close(1009, "message_too_large"));
    assert_eq!(next(&mut endpoint).await.payload, close(1009, "message_too_large"));
    // Nothing passes any more, in neither direction, however long it takes.
    client.send(frame(END | TEXT, true, b"hello?")).await;
    assert!(!endpoint.closed().await);
    assert!(client.rest().await.bytes.is_empty());
    ended(&plane, 1, "too_large", Some("message_too_large")).await;
}

#[tokio::test]
async fn without_limits_a_header_passes_byte_by_byte() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    for byte in header(END | BINARY, true, 70_000) {
        client.send([byte]).await;
        assert_eq!(within(endpoint.0.read_u8()).await.unwrap(), byte, "at once");
    }
    for byte in header(END | BINARY, false, 70_000) {
        endpoint.send([byte]).await;
        assert_eq!(within(client.0.read_u8()).await.unwrap(), byte, "at once");
    }
}

#[tokio::test]
async fn with_limits_no_more_than_a_header_is_held_and_it_is_not_lost() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(wishing(address, WebSocket { max_frame: Some(1 << 20), ..WebSocket::default() }));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let header = header(END | BINARY, true, 70_000);
    client.send(&header).await;
    for byte in header {
        assert_eq!(within(endpoint.0.read_u8()).await.unwrap(), byte, "as soon as it is whole");
    }
    client.send([b'x']).await;
    assert_eq!(within(endpoint.0.read_u8()).await.unwrap(), b'x');
    // Half a header, and then an end: all of it arrives.
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    client.send([END | BINARY, 0xff, 0, 0]).await;
    client.0.shutdown().await.unwrap();
    assert_eq!(endpoint.rest().await.bytes, [END | BINARY, 0xff, 0, 0]);
    drop(endpoint);
    client.closed().await;
    ended(&plane, 1, "client_gone", Some("client_gone")).await;
}

#[tokio::test]
async fn violations_are_counted_once_and_the_bytes_flow_on() {
    let (address, mut arrivals) = played().await;
    let limits = WebSocket { max_frame: Some(10), ..WebSocket::default() };
    let plane = Plane::start(wishing(address, limits));
    let masked = |first| frame(first, true, b"abc");
    let plain = |first| frame(first, false, b"abc");
    let cases = [
        (true, "mask", plain(END | TEXT)),
        (false, "mask", masked(END | TEXT)),
        (true, "reserved_bits", masked(END | TEXT | 0x40)),
        (false, "reserved_bits", plain(END | TEXT | 0x10)),
        (true, "opcode", masked(END | 3)),
        (false, "opcode", plain(END | 11)),
        (true, "control", masked(PING)),
        (false, "control", frame(END | PONG, false, &[0; 126])),
        (true, "continuation", masked(END | CONTINUATION)),
        (false, "continuation", [plain(TEXT), plain(END | TEXT)].concat()),
        (true, "length", vec![END | TEXT, 0x80 | 126, 0, 5, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o']),
        (false, "length", vec![END | TEXT, 127, 0x80, 0, 0, 0, 0, 0, 0, 1, b'x']),
        (false, "after_close", [plain(END | CLOSE), plain(END | TEXT)].concat()),
    ];
    for (count, (by_client, kind, bytes)) in cases.into_iter().enumerate() {
        let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
        let (from, to) = if by_client { (&mut client, &mut endpoint) } else { (&mut endpoint, &mut client) };
        let side = if by_client { "client" } else { "upstream" };
        let labels = format!("kind=\"{kind}\",side=\"{side}\"");
        assert_eq!(plane.metric("floodway_websocket_violations_total", &labels), 0.0);
        // What follows is over every limit, if these are frames at all.
        let all = [bytes, vec![0x82, 0xfe, 0xff, 0xff], b"and so on".to_vec()].concat();
        from.send(&all).await;
        let mut came = vec![0; all.len()];
        within(to.0.read_exact(&mut came)).await.unwrap();
        assert_eq!(came, all, "{kind}");
        plane.metric_becomes("floodway_websocket_violations_total", &labels, 1.0).await;
        // The other direction is not affected.
        to.send(frame(END | TEXT, !by_client, b"still here")).await;
        assert_eq!(next(from).await.payload, b"still here");
        drop((client, endpoint));
        plane.logged_times("/socket", count + 1).await;
    }
}

#[tokio::test]
async fn reserved_bits_belong_to_an_extension_that_was_agreed_on() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(wishing(address, WebSocket { max_frame: Some(10), ..WebSocket::default() }));
    let mut client = plane.connect().await;
    client.send(format!("GET /socket HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")).await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{SWITCHED}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")).await;
    client.head().await;
    let compressed = frame(END | TEXT | 0x40, true, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    client.send(&compressed).await;
    let mut came = vec![0; compressed.len()];
    within(endpoint.0.read_exact(&mut came)).await.unwrap();
    assert_eq!(came, compressed, "untouched");
    endpoint.send(frame(END | TEXT | 0x40, false, &[b'z'; 11])).await;
    told(&mut client, true, 1009, "message_too_large").await;
    told(&mut endpoint, false, 1009, "message_too_large").await;
    ended(&plane, 1, "too_large", Some("message_too_large")).await;
    assert_eq!(plane.metric("floodway_websocket_violations_total", ""), 0.0);
}

#[tokio::test]
async fn frames_and_messages_are_counted_each_way() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
    let up = [
        frame(TEXT, true, b"a"),
        frame(END | PING, true, b"b"),
        frame(CONTINUATION, true, b""),
        frame(END | CONTINUATION, true, &[b'c'; 300]),
        frame(END | BINARY, true, &[b'd'; 70_000]),
    ];
    client.send(up.concat()).await;
    for _ in 0..5 {
        next(&mut endpoint).await;
    }
    for number in 0..100 {
        endpoint.send(frame(END | TEXT, false, format!("{number}").as_bytes())).await;
        assert_eq!(next(&mut client).await.payload, format!("{number}").into_bytes());
    }
    for (name, direction, value) in [
        ("floodway_websocket_frames_total", "received", 5.0),
        ("floodway_websocket_messages_total", "received", 2.0),
        ("floodway_websocket_frames_total", "sent", 100.0),
        ("floodway_websocket_messages_total", "sent", 100.0),
    ] {
        plane.metric_becomes(name, direction, value).await;
    }
    assert_eq!(plane.metric("floodway_stream_events_total", "websocket"), 0.0, "one place for each fact");
    client.send(frame(END | CLOSE, true, &close(1000, ""))).await;
    assert_eq!(next(&mut endpoint).await.payload, close(1000, ""));
    endpoint.send(frame(END | CLOSE, false, &close(1000, ""))).await;
    assert_eq!(next(&mut client).await.payload, close(1000, ""));
    drop(endpoint);
    assert!(!client.closed().await);
    drop(client);
    assert_eq!(ended(&plane, 1, "complete", None).await["events"], 100);
}

#[tokio::test]
async fn an_end_without_a_close_is_no_clean_end() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut count = 0;
    for (client_leaves, end) in [(true, "client_gone"), (false, "upstream_cut")] {
        // Between frames, in a header, in a payload.
        let whole = frame(END | TEXT, client_leaves, b"hello");
        for cut in [whole.len(), whole.len() + 1, whole.len() + 6] {
            let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
            let (leaver, other) =
                if client_leaves { (&mut client, &mut endpoint) } else { (&mut endpoint, &mut client) };
            let sent = &[&whole[..], &whole[..]].concat()[..cut];
            leaver.send(sent).await;
            leaver.0.shutdown().await.unwrap();
            assert_eq!(other.rest().await.bytes, sent, "all of it arrives");
            // The other side may still speak.
            other.send(frame(END | TEXT, !client_leaves, b"where are you")).await;
            assert_eq!(next(leaver).await.payload, b"where are you");
            drop((client, endpoint));
            count += 1;
            ended(&plane, count, end, Some(end)).await;
        }
        // A reset.
        for sent in [&b""[..], &whole[..3]] {
            let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
            let (leaver, other) =
                if client_leaves { (&mut client, &mut endpoint) } else { (&mut endpoint, &mut client) };
            leaver.send(sent).await;
            let mut came = vec![0; sent.len()];
            within(other.0.read_exact(&mut came)).await.unwrap();
            if client_leaves {
                client.reset()
            } else {
                endpoint.reset()
            }
            count += 1;
            ended(&plane, count, end, Some(end)).await;
        }
    }
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn once_both_have_said_goodbye_no_end_is_a_cut() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    for (count, reset) in [false, true].into_iter().enumerate() {
        let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
        // The endpoint says goodbye and waits.
        endpoint.send(frame(END | CLOSE, false, &close(4000, "done"))).await;
        assert_eq!(next(&mut client).await.payload, close(4000, "done"));
        client.send(frame(END | CLOSE, true, &close(4000, "done"))).await;
        assert_eq!(next(&mut endpoint).await.payload, close(4000, "done"));
        if reset {
            endpoint.reset();
        } else {
            drop(endpoint);
        }
        client.closed().await;
        drop(client);
        ended(&plane, count + 1, "complete", None).await;
    }
}

#[tokio::test]
async fn who_takes_nothing_is_ended() {
    let (address, mut arrivals) = played().await;
    let mut snapshot = wishing(address, WebSocket::default());
    let mut route = forward("", "backend");
    let floodway::snapshot::Action::Forward(action) = &mut route.action else { unreachable!() };
    action.timeouts.stall = Duration::from_millis(500);
    snapshot.router = super::support::snapshot(vec![route], vec![]).router;
    let plane = Plane::start(snapshot);
    for (count, by_client) in [true, false].into_iter().enumerate() {
        let (mut client, mut endpoint) = tunnel(&plane, &mut arrivals).await;
        let writer = if by_client { &mut client } else { &mut endpoint };
        writer.send(header(END | BINARY, by_client, 1 << 40)).await;
        let piece = vec![b'x'; 64 * 1024];
        let broken = async { while writer.0.write_all(&piece).await.is_ok() {} };
        within(broken).await;
        let reason = if by_client { "upstream_stalled" } else { "client_stalled" };
        ended(&plane, count + 1, "stalled", Some(reason)).await;
    }
}
