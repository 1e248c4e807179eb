//! What goes on is framed anew: an endpoint reads exactly the bytes that are written here, and a client exactly its answer.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::endpoints::{Message, Then, Witness, message, nothing_is_left, saying};
use super::support::*;

/// First line, fields in the order of the alphabet, and content of a message; the id is any.
fn parts(message: &str) -> (String, Vec<String>, String) {
    let (head, content) = message.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n").map(|line| match line.split_once(": ") {
        Some(("x-request-id", id)) if id.len() == 32 => "x-request-id: ID".to_owned(),
        _ => line.to_owned(),
    });
    let first = lines.next().unwrap();
    let mut fields: Vec<String> = lines.collect();
    fields.sort();
    (first, fields, content.to_owned())
}

/// What the proxy adds to every request.
const FORWARDED: &str =
    "x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: a\r\nx-request-id: ID\r\n";

#[tokio::test]
async fn requests_are_written_anew() {
    let witness = Witness::start().await;
    let plane = Plane::start(to(witness.address));
    for (raw, head, content) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", ""),
        ("\r\nGET / HTTP/1.1\r\nhOsT:a\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", ""),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", ""),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t007 \r\nX-A:  1\t \r\n\r\ncontent",
            "POST / HTTP/1.1\r\nhost: a\r\nx-a: 1\r\n{}content-length: 7\r\n\r\n",
            "content",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\n{}content-length: 0\r\n\r\n",
            "",
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 7\r\n\r\ncontent",
            "POST / HTTP/1.1\r\nhost: a\r\n{}content-length: 7\r\n\r\n",
            "content",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n007;x=y\r\ncontent\r\n00\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\n{}transfer-encoding: chunked\r\n\r\n",
            "7\r\ncontent\r\n0\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n{}transfer-encoding: chunked\r\n\r\n",
            "7\r\ncontent\r\n0\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\ncontent",
            "GET / HTTP/1.1\r\nhost: a\r\n{}content-length: 7\r\n\r\n",
            "content",
        ),
        (
            "DELETE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "DELETE / HTTP/1.1\r\nhost: a\r\n{}transfer-encoding: chunked\r\n\r\n",
            "0\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\nc\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntrailer: X-Sum\r\n{}transfer-encoding: chunked\r\n\r\n",
            "1\r\nc\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\nX-Unnamed: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\n{}transfer-encoding: chunked\r\n\r\n",
            "1\r\nc\r\n0\r\nx-unnamed: 1\r\n\r\n",
        ),
    ] {
        let mut client = plane.connect().await;
        client.send(raw).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"), "{raw:?}");
        let seen = witness.take();
        let [Message::Whole(seen)] = &seen[..] else { panic!("{raw:?}: the endpoint saw {seen:?}") };
        assert_eq!(parts(seen), parts(&format!("{}{content}", head.replace("{}", FORWARDED))), "{raw:?}");
    }
    nothing_is_left(&plane).await;
}

/// What an endpoint says, and what a client of each kind gets: head without the fields of the moment, content, and whether
/// the connection ended with a reset.
async fn answered(request: &str, said: &str, then: Then) -> (String, Vec<String>, String) {
    let plane = Plane::start(to(saying(said, then).await));
    let mut client = plane.connect().await;
    client.send(request).await;
    let answer = client.to_end().await;
    let (first, mut fields, content) = parts(&answer);
    fields.retain(|field| !field.starts_with("date: ") && !field.starts_with("x-request-id: "));
    drop(client);
    nothing_is_left(&plane).await;
    (first, fields, content)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn answers_are_written_anew() {
    use Then::{Closes, Stays};
    for (request, said, then, first, fields, content) in [
        (GET, "200 OK\r\nContent-Length: 2\r\n\r\nhi", Stays, "200 OK", &["content-length: 2"][..], "hi"),
        (GET, "200 Fine, thanks\r\nContent-Length: 2\r\n\r\nhi", Stays, "200 OK", &["content-length: 2"], "hi"),
        (GET, "299\r\nContent-Length: 0\r\n\r\n", Stays, "299 ", &["content-length: 0"], ""),
        (GET, "999 x\r\nContent-Length: 0\r\n\r\n", Stays, "999 ", &["content-length: 0"], ""),
        (
            GET,
            "200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n01;a=b\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
            Stays,
            "200 OK",
            &["transfer-encoding: chunked"],
            "1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
        ),
        (
            GET,
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\n\
             Set-Cookie: a=b\r\n\r\n",
            Stays,
            "200 OK",
            &["transfer-encoding: chunked"],
            "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
        (GET, "200 OK\r\n\r\nhi", Closes, "200 OK", &["transfer-encoding: chunked"], "2\r\nhi\r\n0\r\n\r\n"),
        (OLD, "200 OK\r\n\r\nhi", Closes, "200 OK", &[], "hi"),
        (OLD, "200 OK\r\nContent-Length: 2\r\n\r\nhi", Stays, "200 OK", &["content-length: 2"], "hi"),
        (
            OLD,
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\nX: y\r\n\r\n",
            Stays,
            "200 OK",
            &[],
            "hi",
        ),
        (HEAD, "200 OK\r\nContent-Length: 2\r\n\r\n", Stays, "200 OK", &["content-length: 2"], ""),
        (HEAD, "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Stays, "200 OK", &[], ""),
        (HEAD, "200 OK\r\nContent-Length: 2\r\n\r\nhi", Stays, "200 OK", &["content-length: 2"], ""),
        (GET, "204 No Content\r\nContent-Length: 0\r\n\r\n", Stays, "204 No Content", &[], ""),
        (GET, "204 No Content\r\nContent-Length: 2\r\n\r\nhi", Stays, "204 No Content", &[], ""),
        (GET, "205 Reset Content\r\nContent-Length: 0\r\n\r\n", Stays, "205 Reset Content", &["content-length: 0"], ""),
        (
            GET,
            "304 Not Modified\r\nContent-Length: 2\r\nETag: x\r\n\r\n",
            Stays,
            "304 Not Modified",
            &["content-length: 2", "etag: x"],
            "",
        ),
        (
            GET,
            "206 Partial Content\r\nContent-Range: bytes 1-2/9\r\nContent-Length: 2\r\n\r\nhi",
            Stays,
            "206 Partial Content",
            &["content-length: 2", "content-range: bytes 1-2/9"],
            "hi",
        ),
        (
            GET,
            "100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Stays,
            "200 OK",
            &["content-length: 0"],
            "",
        ),
    ] {
        let (seen_first, seen_fields, seen_content) = answered(request, &format!("HTTP/1.1 {said}"), then).await;
        let mut expected: Vec<&str> = fields.to_vec();
        expected.push("connection: close");
        expected.sort_unstable();
        assert_eq!(seen_first, format!("HTTP/1.1 {first}"), "{said:?}");
        assert_eq!(seen_fields, expected, "{said:?} to {request:?}");
        assert_eq!(unchunked(&seen_content), unchunked(content), "{said:?} to {request:?}");
    }
}

/// How content is cut into chunks is the network's choice; what is compared is what it says, with its trailers.
fn unchunked(content: &str) -> String {
    let mut said = String::new();
    let mut rest = content;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { return content.to_owned() };
        if size == 0 {
            return format!("{said} then {after:?}");
        }
        said.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    content.to_owned()
}

#[tokio::test]
async fn connections_are_kept_as_version_and_fields_say() {
    let plane = Plane::start(to(Witness::start().await.address));
    for (version, connection, kept, said) in [
        ("1.1", "", true, None),
        ("1.1", "Connection: keep-alive\r\n", true, None),
        ("1.1", "Connection: close\r\n", false, Some("close")),
        ("1.1", "Connection: x, Close\r\n", false, Some("close")),
        ("1.0", "", false, Some("close")),
        ("1.0", "Connection: keep-alive\r\n", true, Some("keep-alive")),
        ("1.0", "Connection: close, keep-alive\r\n", false, Some("close")),
    ] {
        let mut client = plane.connect().await;
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n")).await;
        let head = client.head().await;
        let field = head.lines().find_map(|line| line.strip_prefix("connection: "));
        assert_eq!(field, said, "{version} {connection}");
        if kept {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"), "{version} {connection}");
        } else {
            assert!(!client.closed().await, "an orderly close: {version} {connection}");
        }
    }
    nothing_is_left(&plane).await;
}

/// RFC 9110 10.1.1: a client that waits for 100 (Continue) gets it when its content is wanted, and not otherwise.
#[tokio::test]
async fn content_is_asked_for_only_when_it_is_wanted() {
    let (address, mut arrivals) = played().await;
    let clusters = vec![cluster("backend", floodway::snapshot::Protocol::Http1, &[address])];
    let plane = Plane::with(snapshot(vec![forward("/x", "backend")], clusters), |settings| {
        settings.limits.body_bytes = Some(100);
    });
    let post = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut client = plane.connect().await;
    client.send(post("/x", 7)).await;
    let mut endpoint = arrivals.next().await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("content").await;
    assert!(matches!(message(&mut endpoint).await, Some(Message::Whole(all)) if all.ends_with("\r\n\r\ncontent")));
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    drop((client, endpoint));

    // Refused by us: no 100 before, and no other request on the connection, since the content may come or not.
    for (path, length, status) in [("/nowhere", 7, 404), ("/x", 101, 413)] {
        let mut client = plane.connect().await;
        client.send(post(path, length)).await;
        let answer = client.to_end().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }

    // RFC 9110 10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that
    // expectation"; and content that is there already needs no asking.
    for request in [post("/x", 7).replace("HTTP/1.1", "HTTP/1.0"), post("/x", 7)] {
        let mut client = plane.connect().await;
        client.send(format!("{request}content")).await;
        let mut endpoint = arrivals.next().await;
        assert!(matches!(message(&mut endpoint).await, Some(Message::Whole(_))), "{request}");
        endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"), "{request}");
    }
}

/// An endpoint that refuses before it has the content: the client reads the refusal, and the rest of its content is not
/// taken for a request.
#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_still_sends() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\npart").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
    assert!(client.head().await.starts_with("HTTP/1.1 403 Forbidden\r\n"));
    assert_eq!(client.until("no").await, "no");
    client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.to_end().await, "", "nothing more is answered");
    drop((client, endpoint));
    nothing_is_left(&plane).await;
}

/// The same for a client that waits for 100 (Continue): it gets the refusal instead.
#[tokio::test]
async fn an_endpoint_may_refuse_content_before_it_is_sent() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
    endpoint.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 417 Expectation Failed\r\n"), "no 100 before it");
    drop((client, endpoint));
    nothing_is_left(&plane).await;
}

/// However the bytes of a request are cut into packets, the endpoint reads the same. (Few cases: each is an exchange.)
#[test]
fn any_split_over_the_network_gives_the_same_request() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let raw = "\r\nPOST /split HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
               5;x=y\r\nhello\r\n0006\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
    let (plane, witness) = runtime.block_on(async {
        let witness = Witness::start().await;
        (Plane::start(to(witness.address)), witness)
    });
    let cuts = proptest::collection::vec(0..raw.len(), 0..12);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let law = |mut cuts: Vec<usize>| {
        cuts.push(raw.len());
        cuts.sort_unstable();
        let seen = runtime.block_on(async {
            let mut client = plane.connect().await;
            client.0.set_nodelay(true).unwrap();
            let mut from = 0;
            for cut in cuts {
                client.send(&raw[from..cut]).await;
                // Most packets arrive apart when others run in between; the law holds either way.
                tokio::task::yield_now().await;
                from = cut;
            }
            assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
            witness.take()
        });
        let [Message::Whole(seen)] = &seen[..] else { panic!("the endpoint saw {seen:?}") };
        let (first, _, content) = parts(seen);
        prop_assert_eq!(first, "POST /split HTTP/1.1");
        prop_assert!(unchunked(&content).starts_with("hello world then "), "{}", content);
        Ok(())
    };
    runner.run(&cuts, law).unwrap();
}
