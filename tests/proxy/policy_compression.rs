//! Compressed answers as clients get them: which are, that nothing waits, and that streams stay streams.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use floodway::snapshot::{Action, Compression, MediaTypes, Policy, Protocol, Route, Snapshot, Streaming};
use tokio::io::AsyncReadExt as _;
use zlib_rs::{Inflate, InflateFlush, Status};

use super::clients::*;
use super::endpoints::{Then, saying};
use super::policies::under;
use super::support::*;

pub fn compression() -> Compression {
    Compression { types: MediaTypes::new(["text/*"]), min_bytes: 10, event_streams: false, level: 4 }
}

pub fn compressing(route: Route, compression: Compression) -> Route {
    under(Policy { compression: Some(Arc::new(compression)), ..Policy::default() }, route)
}

pub fn to_endpoint(endpoint: std::net::SocketAddr, compression: Compression) -> Snapshot {
    let route = compressing(forward("", "backend"), compression);
    snapshot(vec![route], vec![cluster("backend", Protocol::Http1, &[endpoint])])
}

/// A client that reads what it gets.
pub struct Reader(Inflate);

impl Reader {
    pub fn new() -> Self {
        Reader(Inflate::new(true, 16 + 15))
    }

    /// What it can read so far, and whether that is all.
    pub fn read(&mut self, bytes: &[u8]) -> (String, bool) {
        let (mut text, mut rest) = (Vec::new(), bytes);
        loop {
            let mut room = vec![0; 64 * 1024];
            let (taken, written) = (self.0.total_in(), self.0.total_out());
            let status = self.0.decompress(rest, &mut room, InflateFlush::NoFlush).unwrap();
            rest = &rest[(self.0.total_in() - taken) as usize..];
            let written = (self.0.total_out() - written) as usize;
            text.extend_from_slice(&room[..written]);
            if status == Status::StreamEnd || rest.is_empty() && written < room.len() {
                return (String::from_utf8(text).unwrap(), status == Status::StreamEnd);
            }
        }
    }
}

/// The head of an answer, and its content without chunks.
async fn get(plane: &Plane, line: &str, fields: &str) -> (String, Vec<u8>) {
    let mut client = plane.connect().await;
    client.send(format!("{line}\r\nHost: a\r\n{fields}Connection: close\r\n\r\n")).await;
    let bytes = client.rest().await.bytes;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let (head, mut rest) = (String::from_utf8(bytes[..end].to_vec()).unwrap(), &bytes[end..]);
    if !head.contains("transfer-encoding: chunked") {
        return (head, rest.to_vec());
    }
    let mut content = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest = &rest[line + 2..];
        if size == 0 {
            return (head, content);
        }
        content.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// What the next chunk holds.
pub async fn chunk(client: &mut Raw) -> Vec<u8> {
    let size = client.until("\r\n").await;
    let mut part = vec![0; usize::from_str_radix(size.trim_end(), 16).unwrap() + 2];
    within(client.0.read_exact(&mut part)).await.unwrap();
    part.truncate(part.len() - 2);
    part
}

/// Reads chunks until they say `expected`.
async fn hears(client: &mut Raw, reader: &mut Reader, expected: &str) {
    let mut heard = String::new();
    while heard != expected {
        assert!(expected.starts_with(&heard), "{heard:?} instead of {expected:?}");
        heard += &reader.read(&chunk(client).await).0;
    }
}

const TEXT: &str = "A text that is said, and said, and said, and said, and said again. ";

#[tokio::test]
async fn clients_that_take_it_get_less_and_others_the_same() {
    let said = TEXT.repeat(50);
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: \"a\"\r\nContent-Length: {}\r\n\r\n", said.len());
    let backend = saying(format!("{head}{said}"), Then::Goes).await;
    let plane = Plane::start(to_endpoint(backend, compression()));

    let (head, content) = get(&plane, "GET /small HTTP/1.1", "Accept-Encoding: br, gzip;q=0.8\r\n").await;
    assert!(
        head.contains("\r\ncontent-encoding: gzip\r\n") && head.contains("\r\nvary: accept-encoding\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\netag: W/\"a\"\r\n") && !head.contains("content-length"), "{head}");
    assert!(content.len() < said.len() / 10, "{}", content.len());
    assert_eq!(Reader::new().read(&content), (said.clone(), true));
    assert_eq!(plane.logged("/small").await["bytes_sent"], content.len(), "what was sent is counted");
    // Somebody else's gzip reads it, too.
    let mut gzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(&content).unwrap();
    let output = gzip.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout == said.as_bytes());

    for (line, fields) in [
        ("GET /same HTTP/1.1", ""),
        ("GET /same HTTP/1.1", "Accept-Encoding: gzip;q=0, identity\r\n"),
        ("GET /same HTTP/1.1", "Accept-Encoding: gzip\r\nCache-Control: no-transform\r\n"),
        ("GET /same HTTP/1.0", "Accept-Encoding: gzip\r\n"),
    ] {
        let (head, content) = get(&plane, line, fields).await;
        assert!(content == said.as_bytes() && !head.contains("content-encoding"), "{line} {fields}: {head}");
        assert!(head.contains("\r\nvary: accept-encoding\r\n") && head.contains("\r\netag: \"a\"\r\n"), "{head}");
    }
    let (head, content) = get(&plane, "HEAD /same HTTP/1.1", "Accept-Encoding: gzip\r\n").await;
    assert!(content.is_empty() && head.contains("\r\nvary: accept-encoding\r\n"), "{head}");
}

#[tokio::test]
async fn over_http2_too() {
    let said = TEXT.repeat(50);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", said.len());
    let backend = saying(format!("{head}{said}"), Then::Goes).await;
    let plane = Plane::start(to_endpoint(backend, compression()));
    let client = http2(plane.address).await;
    let mut request = super::clients::get("/");
    request.headers_mut().insert("accept-encoding", http::HeaderValue::from_static("gzip"));
    let mut answer = ask(&client, request).await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    assert!(!answer.headers().contains_key("content-length"));
    let (content, _) = content(answer.body_mut()).await.unwrap();
    assert_eq!(Reader::new().read(&content), (said, true));
}

#[tokio::test]
async fn what_came_is_there_before_more_comes() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to_endpoint(address, compression()));
    let mut client = plane.connect().await;
    client.send("GET /log HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
    let mut reader = Reader::new();
    for line in ["one\n", "two\n", "three\n"] {
        endpoint.send(format!("{:x}\r\n{line}\r\n", line.len())).await;
        hears(&mut client, &mut reader, line).await;
    }
    // A client can tell an answer that broke off.
    drop(endpoint);
    let rest = client.rest().await;
    assert!(!rest.bytes.ends_with(b"0\r\n\r\n"), "{:?}", rest.bytes);
    assert_eq!(plane.logged("/log").await["reason"], "upstream_cut");
}

#[tokio::test]
async fn event_streams_pass_as_they_are_unless_it_is_wanted() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to_endpoint(address, compression()));
    let mut client = plane.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(EVENTS).await;
    let head = client.head().await;
    assert!(!head.contains("content-encoding") && !head.contains("vary"), "{head}");
    tell(&mut endpoint, &mut client).await;
}

#[tokio::test]
async fn compressed_event_streams_pass_event_by_event_and_end_politely() {
    let (address, mut arrivals) = played().await;
    let mut route = forward("", "backend");
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    action.streaming = Some(Streaming::default().into());
    let route = compressing(route, Compression { event_streams: true, ..compression() });
    let plane = Plane::start(snapshot(vec![route], vec![cluster("backend", Protocol::Http1, &[address])]));
    let mut client = plane.connect().await;
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(EVENTS).await;
    let head = client.head().await;
    assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
    let mut reader = Reader::new();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        endpoint.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        hears(&mut client, &mut reader, event).await;
    }
    plane.drain.begin(std::time::Duration::from_secs(20));
    // The last words, and the end of what is compressed, and of the content.
    let (mut over, mut words) = (false, String::new());
    while !over {
        let (text, end) = reader.read(&chunk(&mut client).await);
        words += &text;
        over = end;
    }
    assert!(words.is_empty() || words.starts_with("retry: "), "{words}");
    assert_eq!(client.until("0\r\n\r\n").await, "0\r\n\r\n");
    let line = plane.logged("/events").await;
    assert_eq!((&line["end"], &line["events"]), (&"drained".into(), &2.into()), "{line}");
}
