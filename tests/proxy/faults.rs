//! Faults of either side in each phase of an exchange: what the other side gets, what the log says, and that nothing is
//! left. What endpoints of HTTP/1.1 say wrong is in `responses`, what clients do in `smuggling` and `limits`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use floodway::snapshot::{Protocol, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::clients;
use super::endpoints::{Message, Witness, message, nothing_is_left};
use super::frames::{self, *};
use super::sse::with_idle;
use super::support::*;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
const UPGRADE: &str = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The connection is there, and nothing was said.
    Connected,
    InHead,
    InContent,
    AwaitingHead,
    InAnswer,
    InTunnel,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Closes,
    Resets,
    ResetsStream,
    /// With the code that hyper takes for an end.
    ResetsStreamWithoutError,
}

/// A client in this phase, and its endpoint, if one knows of it.
async fn http1_client(plane: &Plane, arrivals: &mut Arrivals, phase: Phase, path: &str) -> (Raw, Option<Raw>) {
    let mut client = plane.connect().await;
    match phase {
        Phase::Connected => {}
        Phase::InHead => client.send(format!("GET {path} HTTP/1.1\r\nHo")).await,
        Phase::InContent => {
            client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello")).await;
        }
        Phase::InTunnel => client.send(format!("GET {path} HTTP/1.1\r\n{UPGRADE}")).await,
        _ => client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await,
    }
    if matches!(phase, Phase::Connected | Phase::InHead) {
        return (client, None);
    }
    let (mut endpoint, _) = arrivals.request().await;
    match phase {
        Phase::InContent => drop(endpoint.until("hello").await),
        Phase::InAnswer => {
            endpoint.send(CHUNKED).await;
            client.until("hello").await;
        }
        Phase::InTunnel => {
            endpoint.send(SWITCHED).await;
            client.head().await;
            client.send("ping").await;
            endpoint.until("ping").await;
        }
        _ => {}
    }
    (client, Some(endpoint))
}

/// The same in HTTP/2, on stream 1 of a connection of its own.
async fn http2_client(plane: &Plane, arrivals: &mut Arrivals, phase: Phase, path: &str) -> (Raw, Option<Raw>) {
    let mut client = frames::open(plane).await;
    let method = if phase == Phase::InContent { "POST" } else { "GET" };
    let block = fields(&[(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]);
    match phase {
        Phase::Connected => {}
        Phase::InHead => client.send(&frame(HEADERS, END_HEADERS, 1, &block)[..12]).await,
        Phase::InContent => {
            client.send(frame(HEADERS, END_HEADERS, 1, &block)).await;
            client.send(frame(DATA, 0, 1, b"hello")).await;
        }
        _ => client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await,
    }
    if matches!(phase, Phase::Connected | Phase::InHead) {
        return (client, None);
    }
    let (mut endpoint, _) = arrivals.request().await;
    match phase {
        Phase::InContent => drop(endpoint.until("hello").await),
        Phase::InAnswer => {
            endpoint.send(CHUNKED).await;
            frames::next(&mut client, |frame| frame.kind == DATA).await.unwrap();
        }
        _ => {}
    }
    (client, Some(endpoint))
}

#[tokio::test]
async fn a_client_may_leave_in_any_phase() {
    use Phase::*;
    use Way::*;
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let gone = Some((499, "client_gone", "client_gone"));
    let answered = Some((200, "client_gone", "client_gone"));
    for (version, phase, way, said) in [
        (1, Connected, Closes, None),
        (1, Connected, Resets, None),
        (1, InHead, Closes, None),
        (1, InHead, Resets, None),
        // It may still be reading.
        (1, InContent, Closes, Some((400, "answered", "body_incomplete"))),
        (1, InContent, Resets, gone),
        (1, AwaitingHead, Closes, gone),
        (1, AwaitingHead, Resets, gone),
        (1, InAnswer, Closes, answered),
        (1, InAnswer, Resets, answered),
        (1, InTunnel, Resets, Some((101, "client_gone", "client_gone"))),
        (2, Connected, Closes, None),
        (2, Connected, Resets, None),
        (2, InHead, Closes, None),
        (2, InHead, Resets, None),
        (2, InContent, Closes, gone),
        (2, InContent, Resets, gone),
        (2, InContent, ResetsStream, gone),
        (2, InContent, ResetsStreamWithoutError, gone),
        (2, AwaitingHead, Closes, gone),
        (2, AwaitingHead, Resets, gone),
        (2, AwaitingHead, ResetsStream, gone),
        (2, InAnswer, Closes, answered),
        (2, InAnswer, Resets, answered),
        (2, InAnswer, ResetsStream, answered),
    ] {
        let case = format!("HTTP/{version} {phase:?} {way:?}");
        println!("{case}");
        let path = format!("/{}", case.replace(['/', ' '], "-"));
        let (mut client, endpoint) = match version {
            1 => http1_client(&plane, &mut arrivals, phase, &path).await,
            _ => http2_client(&plane, &mut arrivals, phase, &path).await,
        };
        let mut kept = None;
        match way {
            Closes => drop(client),
            Resets => client.reset(),
            ResetsStream | ResetsStreamWithoutError => {
                let code = if way == ResetsStream { 8_u32 } else { 0 };
                client.send(frame(RST_STREAM, 0, 1, &code.to_be_bytes())).await;
                kept = Some(client);
            }
        }
        if let Some(mut endpoint) = endpoint {
            assert!(!endpoint.to_end().await.contains("0\r\n\r\n"), "{case}: a cut looks like an end");
        }
        if let Some((status, end, reason)) = said {
            let line = plane.logged(&path).await;
            let seen = (&line["status"], &line["end"], &line["reason"]);
            assert_eq!(seen, (&status.into(), &end.into(), &reason.into()), "{case}: {line}");
        }
        drop(kept);
        nothing_is_left(&plane).await;
    }
    assert_eq!(plane.metric("floodway_failures_total", "upstream"), 0.0, "no endpoint is to blame");
}

/// A table with one endpoint that is spoken to in HTTP/2.
fn to_http2(endpoint: SocketAddr) -> Snapshot {
    snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http2, &[endpoint])])
}

/// An endpoint that reads a client's preface and one request, says `bytes`, and closes or says nothing more.
async fn saying_frames(bytes: Vec<u8>, closes: bool) -> SocketAddr {
    let bytes = Arc::new(bytes);
    backend(move |mut connection| {
        let bytes = Arc::clone(&bytes);
        async move {
            let mut preface = [0; 24];
            if connection.0.read_exact(&mut preface).await.is_err() {
                return;
            }
            if !bytes.is_empty() && bytes[3] == SETTINGS {
                let request = |frame: &Frame| frame.kind == HEADERS;
                let _ = connection.0.write_all(&bytes[..9]).await;
                if frames::next(&mut connection, request).await.is_none() {
                    return;
                }
                let _ = connection.0.write_all(&bytes[9..]).await;
            } else {
                let _ = connection.0.write_all(&bytes).await;
            }
            if !closes {
                let _ = connection.0.read_to_end(&mut Vec::new()).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_http2_endpoint_that_says_something_wrong_is_a_bad_gateway() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let with = |more: &[u8]| [&settings[..], more].concat();
    let ok = |flags| frame(HEADERS, flags, 1, &[0x88]);
    for (case, said, closes, reason) in [
        ("not HTTP/2", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(), true, "upstream"),
        ("noise", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), false, "upstream"),
        ("nothing", Vec::new(), true, "upstream"),
        ("no answer", with(b""), true, "upstream_reset"),
        ("half a head of a frame", with(&ok(END_HEADERS)[..5]), true, "upstream_reset"),
        ("half a frame", with(&frame(HEADERS, END_HEADERS, 1, &[0x88; 100])[..40]), true, "upstream_reset"),
        ("half a block", with(&ok(0)), true, "upstream_reset"),
        ("DATA before HEADERS", with(&frame(DATA, 0, 1, b"hello")), false, "upstream"),
        ("a block that is none", with(&frame(HEADERS, END_HEADERS, 1, &[0xff; 20])), false, "upstream"),
        ("no status", with(&frame(HEADERS, END_HEADERS, 1, &fields(&[("x", "y")]))), false, "upstream"),
        ("a frame too large", with(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]), false, "upstream"),
        ("a stream nobody opened", with(&frame(HEADERS, END_HEADERS, 3, &[0x88])), false, "upstream"),
        ("a reset", with(&frame(RST_STREAM, 0, 1, &2_u32.to_be_bytes())), false, "upstream_reset"),
        ("a push", with(&frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])), false, "upstream"),
    ] {
        println!("{case}");
        let plane = Plane::start(to_http2(saying_frames(said, closes).await));
        let answer = plane.exchange("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{case}: {answer}");
        let line = plane.logged("/x").await;
        assert_eq!((&line["status"], &line["end"]), (&502.into(), &"answered".into()), "{case}: {line}");
        let said = line["reason"].as_str().unwrap();
        // Whether a connection that never was one counts as refused or as broken is the network's to say.
        assert!(said.starts_with(reason) || said == "connect_failed" && reason == "upstream", "{case}: {line}");
        nothing_is_left(&plane).await;
    }
}

#[tokio::test]
async fn an_http2_endpoint_that_stops_in_its_answer_cuts_the_client() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let length = fields(&[(":status", "200"), ("content-length", "10")]);
    let chunked = frame(HEADERS, END_HEADERS, 1, &[0x88]);
    let known = frame(HEADERS, END_HEADERS, 1, &length);
    let hello = frame(DATA, 0, 1, b"hello");
    let reset = |code: u32| frame(RST_STREAM, 0, 1, &code.to_be_bytes());
    for (case, said, closes) in [
        ("half a frame", [&settings[..], &chunked, &hello, &hello[..11]].concat(), true),
        ("no end", [&settings[..], &chunked, &hello].concat(), true),
        ("less than announced", [&settings[..], &known, &frame(DATA, END_STREAM, 1, b"hello")].concat(), false),
        ("an error", [&settings[..], &chunked, &hello, &reset(2)].concat(), false),
        ("a reset without an error", [&settings[..], &chunked, &hello, &reset(0)].concat(), false),
        ("a cancellation", [&settings[..], &chunked, &hello, &reset(8)].concat(), false),
    ] {
        println!("{case}");
        for version in [1, 2] {
            let plane = Plane::start(to_http2(saying_frames(said.clone(), closes).await));
            let path = format!("/{version}");
            if version == 1 {
                let mut client = plane.connect().await;
                client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
                let answer = client.to_end().await;
                assert!(!answer.ends_with("0\r\n\r\n"), "{case}: no last chunk: {answer}");
            } else {
                let mut client = clients::http2(plane.address).await;
                let (answer, _) = client.send_request(clients::get(&path), true).unwrap();
                if let Ok(answer) = within(answer).await
                    && answer.status() == 200
                {
                    assert!(clients::content(&mut answer.into_body()).await.is_err(), "{case}: a clean end");
                }
            }
            // What is wrong may be found before the head has gone on.
            let line = plane.logged(&path).await;
            let said = (line["status"].as_u64().unwrap(), line["end"].as_str().unwrap());
            assert!(matches!(said, (200, "upstream_cut") | (502, "answered")), "{case}: {line}");
            nothing_is_left(&plane).await;
        }
    }
}

/// A frame that announces more than there is memory for costs none.
#[tokio::test]
async fn a_giant_frame_header_is_only_a_header() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    for (path, masked) in [("/up", true), ("/down", false)] {
        let mut client = plane.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\n{UPGRADE}")).await;
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(SWITCHED).await;
        client.head().await;
        let mut frame = vec![0x82, if masked { 0xff } else { 0x7f }, 0x7f];
        frame.extend([0xff; 7]);
        frame.extend(if masked { &b"mask"[..] } else { b"" });
        frame.extend(b"some of it");
        let (from, to) = if masked { (&mut client, &mut endpoint) } else { (&mut endpoint, &mut client) };
        from.send(&frame).await;
        let mut seen = vec![0; frame.len()];
        // Passed on as it is, or refused with the tunnel.
        if within(to.0.read_exact(&mut seen)).await.is_ok() && seen[1..] == frame[1..] {
            assert_eq!(seen, frame);
        }
        client.reset();
        endpoint.to_end().await;
        assert_eq!(plane.logged(path).await["status"], 101);
        nothing_is_left(&plane).await;
    }
}

/// A client that sends one byte now and then is slow, not gone; one that stops in the middle is.
#[tokio::test]
async fn a_trickle_is_taken_as_it_comes() {
    let witness = Witness::start().await;
    let plane = Plane::start(with_idle(witness.address, Duration::from_millis(1000)));
    for framing in ["Content-Length: 15\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"] {
        let mut client = plane.connect().await;
        client.0.set_nodelay(true).unwrap();
        client.send(format!("POST /trickle HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        for byte in b"5\r\nhello\r\n0\r\n\r\n" {
            client.send([*byte]).await;
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"), "longer than the idle time, but never idle");
        assert!(matches!(&witness.take()[..], [Message::Whole(_)]));
    }
    {
        let mut client = plane.connect().await;
        client.send("POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\nhe").await;
        let answer = client.to_end().await;
        assert!(answer.contains("\r\nx-floodway-reason: upload_idle\r\n"), "{answer}");
        let line = plane.logged("/half").await;
        assert_eq!((&line["status"], &line["reason"]), (&408.into(), &"upload_idle".into()), "{line}");
    }
    nothing_is_left(&plane).await;
}

/// The endpoint of a kept connection goes away with it, just as it is used again: another one answers.
#[tokio::test]
async fn a_request_on_a_connection_that_dies_goes_to_another_endpoint() {
    for reset in [false, true] {
        let used = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&used);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dying = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            // One connection, and nobody listens any more.
            let mut connection = Raw(listener.accept().await.unwrap().0);
            drop(listener);
            message(&mut connection).await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            message(&mut connection).await;
            counted.fetch_add(1, Ordering::SeqCst);
            if reset {
                connection.reset();
            }
        });
        let witness = Witness::start().await;
        let both = vec![cluster("backend", Protocol::Http1, &[dying, witness.address])];
        let plane = Plane::start(snapshot(vec![forward("", "backend")], both));
        // One client, so one worker. Sooner or later each endpoint has had a request, and the one that dies another.
        let mut client = plane.connect().await;
        for turn in 0..1000 {
            client.send(format!("GET /{turn} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let head = client.head().await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "turn {turn}: {head}");
            if used.load(Ordering::SeqCst) > 0 {
                break;
            }
        }
        within(serving).await.unwrap();
        assert_eq!(used.load(Ordering::SeqCst), 1);
        assert_eq!(plane.metric("floodway_failures_total", ""), 0.0);
        drop(client);
        nothing_is_left(&plane).await;
    }
}
