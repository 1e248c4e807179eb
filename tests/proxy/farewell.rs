//! Event streams that are asked to end do so between two events.

use std::net::SocketAddr;
use std::time::Duration;

use floodway::snapshot::{Action, Protocol, Snapshot, Sse, Streaming};

use super::clients::*;
use super::sse::{EVENTS, chunk, event};
use super::support::*;

/// Long enough to get a stream going on a busy machine.
pub const AGE: Duration = Duration::from_secs(2);
const RETRY: &str = "retry: 2500\n\n";

/// Everything goes to `endpoint`, with these wishes for its streams.
pub fn streaming(endpoint: SocketAddr, protocol: Protocol, streaming: Streaming) -> Snapshot {
    let mut route = forward("", "backend");
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    action.streaming = Some(streaming.into());
    snapshot(vec![route], vec![cluster("backend", protocol, &[endpoint])])
}

fn aged(endpoint: SocketAddr, retry: Option<Duration>) -> Snapshot {
    let sse = Sse { retry, ..Sse::default() };
    streaming(endpoint, Protocol::Http1, Streaming { max_age: Some(AGE), sse, ..Streaming::default() })
}

pub async fn events(plane: &Plane, arrivals: &mut Arrivals, path: &str) -> (Raw, Raw) {
    let mut client = plane.connect().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
    client.head().await;
    (client, endpoint)
}

/// The content of the chunks up to `end` of the content.
pub async fn content_until(client: &mut Raw, end: &str) -> String {
    let mut content = String::new();
    while !content.ends_with(end) {
        let size = client.until("\r\n").await;
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        assert!(size > 0, "the end, after {content:?}");
        let mut part = vec![0; size + 2];
        within(tokio::io::AsyncReadExt::read_exact(&mut client.0, &mut part)).await.unwrap();
        content.push_str(std::str::from_utf8(&part[..size]).unwrap());
    }
    content
}

pub async fn says_max_age(plane: &Plane, path: &str, bytes: usize) {
    let line = plane.logged(path).await;
    assert_eq!((&line["end"], &line["reason"], &line["status"]), (&"max_age".into(), &"max_age".into(), &200.into()));
    assert_eq!(line["bytes_sent"], bytes, "{line}");
}

#[tokio::test]
async fn a_stream_of_the_greatest_age_ends_between_events_over_http1() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address, Some(Duration::from_millis(2500))));
    let (mut client, mut endpoint) = events(&plane, &mut arrivals, "/between").await;
    endpoint.send(chunk(&event(1))).await;
    assert_eq!(client.until("\n\n\r\n").await, chunk(&event(1)));
    let (mut other, mut telling) = events(&plane, &mut arrivals, "/within").await;
    telling.send(chunk("id: 1\ndata: to be")).await;
    assert_eq!(other.until("be\r\n").await, chunk("id: 1\ndata: to be"));

    let ended = format!("{}0\r\n\r\n", chunk(RETRY));
    assert_eq!(client.until("0\r\n\r\n").await, ended);
    endpoint.closed().await;
    says_max_age(&plane, "/between", event(1).len() + RETRY.len()).await;
    // The client's connection is as good as before.
    client.send("GET /more HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204 "));

    // Whether it has been asked to leave by now or will be: what has begun is told to its end.
    telling.send(chunk(" continued\n")).await;
    assert_eq!(other.until("ed\n\r\n").await, chunk(" continued\n"));
    telling.send(chunk("\n")).await;
    assert_eq!(other.until("0\r\n\r\n").await, format!("{}{ended}", chunk("\n")));
    telling.closed().await;
    says_max_age(&plane, "/within", "id: 1\ndata: to be continued\n\n".len() + RETRY.len()).await;
}

#[tokio::test]
async fn a_stream_of_the_greatest_age_ends_cleanly_for_http10() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address, None));
    let mut client = plane.connect().await;
    client.send("GET /events HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{EVENTS}\r\n{}", event(1))).await;
    client.head().await;
    assert_eq!(client.until("\n\n").await, event(1));
    assert!(!client.closed().await, "a clean end");
    endpoint.closed().await;
    says_max_age(&plane, "/events", event(1).len()).await;
}

#[tokio::test]
async fn whatever_ends_its_lines_a_stream_ends_behind_a_whole_event() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address, None));
    let mut client = http2(plane.address).await;
    // What comes before the greatest age is reached, and what comes after; of that, "|" is where the client's stream ends.
    let cases = [
        ("data: a\n\nda", "ta: b\n\n|data: c\n\n"),
        ("data: a\r\n\r\ndata: b\r\n\r", "\n|"),
        ("data: a\r\rdata: b\r", "\r|data: c\r\r"),
        ("data: a\r\rdata: b", "\r\r|"),
        ("data: b\r\n", "\r\n|data: c\r\n\r\n"),
        ("\u{feff}: hello", " there\n|data: c"),
        (": a\n: b", "\n|\ndata: c\n\n"),
        ("id: 7\n", "|"),
        ("data: a\n\n", "|"),
        ("data: a\n\n: a comment\n", "|"),
        ("\u{feff}", "|"),
        ("", "|"),
    ];
    // Only these end by themselves.
    let in_gap = |index: usize| index > 7 || index == 1;
    let mut streams = Vec::new();
    for (index, (before, _)) in cases.iter().enumerate() {
        let (answer, _) = client.send_request(get(&format!("/{index}")), true).unwrap();
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
        for byte in before.as_bytes() {
            endpoint.send([b"1\r\n", &[*byte][..], b"\r\n"].concat()).await;
        }
        let mut body = within(answer).await.unwrap().into_body();
        let mut got = Vec::new();
        while got.len() < before.len() {
            got.extend_from_slice(&piece(&mut body).await.unwrap().unwrap());
        }
        streams.push((endpoint, body, got));
    }
    // All of them have the same age but for moments, and the same worker.
    let (answer, _) = client.send_request(get("/last"), true).unwrap();
    let (mut last, _) = arrivals.request().await;
    last.send(format!("{EVENTS}Transfer-Encoding: chunked\r\n\r\n")).await;
    assert!(piece(&mut within(answer).await.unwrap().into_body()).await.is_none(), "a clean end");
    for (index, ((before, after), (mut endpoint, mut body, mut got))) in cases.into_iter().zip(streams).enumerate() {
        let (taken, left) = after.split_once('|').unwrap();
        if index == 7 {
            // Nothing completes this one's event.
            continue;
        }
        let ends = if in_gap(index) {
            before.to_owned()
        } else {
            endpoint.send(chunk(&format!("{taken}{left}"))).await;
            format!("{before}{taken}")
        };
        while let Some(piece) = piece(&mut body).await {
            got.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(String::from_utf8_lossy(&got), ends, "{before:?} {after:?}");
        endpoint.closed().await;
        says_max_age(&plane, &format!("/{index}"), ends.len()).await;
    }
    // The connection goes on; what has no end is cut in the end, visibly.
    let (answer, _) = client.send_request(get("/more"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within(answer).await.unwrap().status(), 204);
}

#[tokio::test]
async fn a_stream_that_never_comes_between_events_is_cut() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address, Some(Duration::from_secs(1))));
    let (mut client, mut endpoint) = events(&plane, &mut arrivals, "/endless").await;
    endpoint.send(chunk("data: and")).await;
    assert_eq!(client.until("and\r\n").await, chunk("data: and"));
    assert_eq!(client.to_end().await, "", "no last chunk");
    endpoint.closed().await;
    says_max_age(&plane, "/endless", "data: and".len()).await;
}

#[tokio::test]
async fn an_encoded_stream_is_cut_when_it_is_asked_and_one_with_a_length_left_to_end() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address, Some(Duration::from_secs(1))));
    // This one is given some time to come to the end of its event, and began before the others.
    let (mut patient, mut telling) = events(&plane, &mut arrivals, "/patient").await;
    telling.send(chunk("data: to be")).await;
    patient.until("be\r\n").await;
    let mut bound = plane.connect().await;
    bound.send("GET /bound HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut lasting, _) = arrivals.request().await;
    lasting.send(format!("{EVENTS}Content-Length: 18\r\n\r\ndata: a\n\n")).await;
    bound.until("data: a\n\n").await;
    let mut encoded = plane.connect().await;
    encoded.send("GET /encoded HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut unseen, _) = arrivals.request().await;
    unseen
        .send(format!("{EVENTS}Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk("packed")))
        .await;
    encoded.until("packed\r\n").await;

    assert_eq!(encoded.to_end().await, "", "no last chunk");
    unseen.closed().await;
    says_max_age(&plane, "/encoded", "packed".len()).await;
    telling.send(chunk("\n\n")).await;
    assert!(patient.until("0\r\n\r\n").await.ends_with(&format!("{}0\r\n\r\n", chunk("retry: 1000\n\n"))));
    lasting.send("data: b\n\n").await;
    assert_eq!(bound.until("data: b\n\n").await, "data: b\n\n");
    assert_eq!(plane.logged("/bound").await["end"], "complete");
}

#[tokio::test]
async fn a_stream_that_never_pauses_ends_between_events_all_the_same() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address, None));
    let mut client = plane.connect().await;
    client.send("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{EVENTS}\r\n")).await;
    let flood = tokio::spawn(async move {
        let events = event(1).repeat(2000);
        while tokio::io::AsyncWriteExt::write_all(&mut endpoint.0, events.as_bytes()).await.is_ok() {}
    });
    client.head().await;
    let mut content = Vec::new();
    let (mut all, mut whole) = (Vec::new(), 0);
    while !all.ends_with(b"\r\n0\r\n\r\n") {
        let mut part = vec![0; 256 * 1024];
        let read = within(tokio::io::AsyncReadExt::read(&mut client.0, &mut part)).await.unwrap();
        assert!(read > 0, "cut");
        all.extend_from_slice(&part[..read]);
        // Chunks are taken off as they are complete; the last bytes stay for the condition.
        let mut at = 0;
        while let Some(line) = all[at..].windows(2).position(|pair| pair == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&all[at..at + line]).unwrap(), 16).unwrap();
            let from = at + line + 2;
            if size == 0 || all.len() < from + size + 2 + 7 {
                break;
            }
            content.extend_from_slice(&all[from..from + size]);
            at = from + size + 2;
        }
        all.drain(..at);
        let event = event(1);
        while content.len() >= event.len() {
            assert!(content.starts_with(event.as_bytes()));
            content.drain(..event.len());
            whole += 1;
        }
    }
    let last = String::from_utf8(all).unwrap();
    let (_, last) = last.split_once("\r\n").unwrap();
    content.extend_from_slice(last.strip_suffix("\r\n0\r\n\r\n").unwrap().as_bytes());
    assert_eq!(String::from_utf8(content).unwrap().replace(&event(1), ""), "", "whole events after {whole}");
    flood.await.unwrap();
}

#[tokio::test]
async fn big_events_pass_whole_and_are_waited_for() {
    let big = format!("data: {}\n\n", (0..150_000).map(|number| format!("{number:06} ")).collect::<String>());
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(aged(address, Some(Duration::from_millis(2500))));
    let (mut client, mut endpoint) = events(&plane, &mut arrivals, "/big").await;
    let (first, rest) = big.split_at(500_000);
    let sending = async {
        endpoint.send(chunk(first)).await;
        endpoint
    };
    let (mut endpoint, start) = tokio::join!(sending, content_until(&mut client, &first[499_000..]));
    assert!(start == first);
    // One that began later has ended: this one is to leave, too.
    let (mut later, mut silent) = events(&plane, &mut arrivals, "/later").await;
    assert_eq!(later.until("0\r\n\r\n").await, format!("{}0\r\n\r\n", chunk(RETRY)));
    silent.closed().await;
    let sending = async {
        endpoint.send(chunk(rest)).await;
        endpoint
    };
    let (mut endpoint, end) = tokio::join!(sending, content_until(&mut client, RETRY));
    assert!(end == format!("{rest}{RETRY}"), "the rest, and the last words");
    assert_eq!(client.until("0\r\n\r\n").await, "0\r\n\r\n");
    endpoint.closed().await;
    says_max_age(&plane, "/big", big.len() + RETRY.len()).await;
}

/// Reads an event stream to its end over either version: what came, and whether it ended cleanly.
async fn listen(plane: &Plane, number: u32) -> (String, bool) {
    let path = format!("/{number}");
    let mut got = Vec::new();
    if number.is_multiple_of(2) {
        let mut client = plane.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        client.head().await;
        loop {
            let size = client.until("\r\n").await;
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            let mut part = vec![0; size + 2];
            within(tokio::io::AsyncReadExt::read_exact(&mut client.0, &mut part)).await.unwrap();
            got.extend_from_slice(&part[..size]);
            if size == 0 {
                return (String::from_utf8(got).unwrap(), !client.closed().await);
            }
        }
    }
    let client = http2(plane.address).await;
    let mut body = ask(&client, get(&path)).await.into_body();
    while let Some(piece) = piece(&mut body).await {
        let Ok(piece) = piece else { return (String::from_utf8(got).unwrap(), false) };
        got.extend_from_slice(&piece);
    }
    (String::from_utf8(got).unwrap(), true)
}

#[tokio::test]
async fn a_drain_ends_busy_streams_between_events() {
    let address = backend(|mut endpoint| async move {
        endpoint.head().await;
        endpoint.send(format!("{EVENTS}\r\n")).await;
        for number in 0.. {
            // An event in two parts, so that most of the time one is half sent.
            let event = event(number);
            let (one, other) = event.split_at(event.len() / 2);
            for part in [one, other] {
                if tokio::io::AsyncWriteExt::write_all(&mut endpoint.0, part.as_bytes()).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })
    .await;
    let sse = Sse { retry: Some(Duration::from_millis(2500)), ..Sse::default() };
    let plane = Plane::start(streaming(address, Protocol::Http1, Streaming { sse, ..Streaming::default() }));
    let streams = 40;
    let listening = futures_util::future::join_all((0..streams).map(|number| listen(&plane, number)));
    let draining = async {
        plane.metric_becomes("floodway_active_streams", "sse", f64::from(streams)).await;
        plane.drain.begin(Duration::from_secs(6));
    };
    let (ended, ()) = tokio::join!(listening, draining);
    for (number, (content, clean)) in ended.into_iter().enumerate() {
        let events = content.strip_suffix(RETRY).unwrap_or_else(|| panic!("no last words: {content:?}"));
        let whole = events.matches("\n\n").count() as u32;
        assert_eq!(events, (0..whole).map(event).collect::<String>());
        assert!(clean, "{number} was cut");
        let line = plane.logged(&format!("/{number}")).await;
        assert_eq!((&line["end"], &line["reason"]), (&"drained".into(), &"draining".into()), "{line}");
        assert_eq!((&line["events"], &line["bytes_sent"]), (&whole.into(), &content.len().into()), "{line}");
    }
    plane.metric_becomes("floodway_drained_streams_total", "polite", f64::from(streams)).await;
    within(plane.ended()).await;
}
