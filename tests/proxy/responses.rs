//! Endpoints that are hostile, broken or odd: what reaches the client is exact, a failure after the head is a cut and
//! never a clean end, and bytes that belong to nobody reach nobody.
//!
//! Towards endpoints HTTP/1.1 is our own, as strict as towards clients. What it takes nevertheless, without telling:
//! * any reason phrase, or none (the client gets the usual one), and any status from 100 to 999;
//! * one empty line before the status line, and bytes above 0x7f in values;
//! * up to 16 answers with 1xx, which are passed on (but 101 for who asked, and 100 for who waits);
//! * chunk extensions, which are dropped;
//! * content after an answer that has none (HEAD, 204, 304): the connection is closed, nothing is told.
//!
//! What hyper's client, which read endpoints before, took besides: bare LF as the end of a line, a Content-Length beside a
//! Transfer-Encoding, repeated Content-Length, codings other than chunked (passed on without their name), space after a
//! chunk's size, interim answers without end; and it left out request trailers that `Trailer` does not name.

use super::clients::{get, http2};
use super::endpoints::{Then, nothing_is_left, saying};
use super::support::*;

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn answers_that_are_not_http_become_502() {
    let flood = "X: y\r\n".repeat(300);
    let large = format!("X: {}\r\n", "y".repeat(2 * 1024 * 1024));
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(2 * 1024 * 1024));
    for (said, then, reason) in [
        ("hello\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 OK\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 20 OK\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 2000 OK\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 099 No\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/2.0 200 OK\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("http/1.1 200 OK\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\n\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nX: y\nZ: z\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nX\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\n: y\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 O\0K\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", Then::Stays, "upstream_protocol"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Then::Stays,
            "upstream_protocol",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            Then::Stays,
            "upstream_protocol",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", Then::Closes, "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", Then::Stays, "upstream_protocol"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Then::Stays, "upstream_protocol"),
        (&format!("HTTP/1.1 200 OK\r\n{flood}\r\n"), Then::Stays, "upstream_protocol"),
        (&format!("HTTP/1.1 200 OK\r\n{large}\r\n"), Then::Stays, "upstream_protocol"),
        (&endless, Then::Stays, "upstream_protocol"),
        ("", Then::Closes, "upstream_reset"),
        ("", Then::Resets, "upstream_reset"),
        ("HTTP/1.1 200 OK\r\nX: y", Then::Closes, "upstream_reset"),
        ("HTTP/1.1 200 OK\r\nX: y\r\n", Then::Resets, "upstream_reset"),
        ("HTTP/1.1 100 Continue\r\n\r\n", Then::Closes, "upstream_reset"),
    ] {
        let case = &said[..said.len().min(80)];
        println!("{case:?}");
        let plane = Plane::start(to(saying(said, then).await));
        let answer = plane.exchange(GET).await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{case:?}: {answer}");
        assert!(answer.contains(&format!("\r\nx-floodway-reason: {reason}\r\n")), "{case:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{case:?}: {answer}");
        let line = plane.logged("/x").await;
        assert_eq!((&line["status"], &line["reason"], &line["end"]), (&502.into(), &reason.into(), &"answered".into()));
        nothing_is_left(&plane).await;
    }
}

#[tokio::test]
async fn a_failure_after_the_head_is_a_cut() {
    let old = "GET /x HTTP/1.0\r\nHost: a\r\n\r\n";
    for (request, said, then, clean_prefix) in [
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", Then::Closes, "he"),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", Then::Resets, "he"),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", Then::Closes, "2\r\nhe\r\n"),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", Then::Closes, "2\r\nhe\r\n"),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\nx\r\n", Then::Stays, "2\r\nhe\r\n"),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n", Then::Stays, "2\r\nhe\r\n"),
        (
            GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\nfffffffffffffffff\r\n",
            Then::Stays,
            "2\r\nhe\r\n",
        ),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\nX", Then::Closes, "2\r\nhe\r\n"),
        (GET, "HTTP/1.1 200 OK\r\n\r\nhe", Then::Resets, "2\r\nhe\r\n"),
        (old, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", Then::Closes, "he"),
        (old, "HTTP/1.1 200 OK\r\n\r\nhe", Then::Resets, "he"),
    ] {
        println!("{said:?}");
        let plane = Plane::start(to(saying(said, then).await));
        let mut client = plane.connect().await;
        client.send(request).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"), "{said:?}");
        let ending = client.rest().await;
        assert_eq!(String::from_utf8_lossy(&ending.bytes), clean_prefix, "{said:?}");
        // Only the end of the connection tells a client of HTTP/1.0 that all is there: it must not look like one.
        assert!(ending.reset || request != old, "{said:?} ended cleanly");
        let line = plane.logged("/x").await;
        assert_eq!((&line["status"], &line["end"]), (&200.into(), &"upstream_cut".into()), "{said:?}: {line}");
        assert_eq!(line["reason"], "upstream_cut", "{said:?}");
        drop(client);
        nothing_is_left(&plane).await;
    }
}

/// The bytes behind an answer would be the answer of the next request on that connection, another client's.
#[tokio::test]
async fn bytes_behind_an_answer_reach_nobody() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for (method, said) in [
        ("GET", format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi{poison}")),
        ("GET", format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{poison}")),
        ("GET", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n{poison}")),
        ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{poison}")),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n{poison}")),
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: 47\r\n\r\n{poison}")),
    ] {
        let plane = Plane::start(to(saying(said.clone(), Then::Goes).await));
        for turn in 0..20 {
            let close = "Connection: close\r\n";
            let answer = plane.exchange(format!("{method} /{turn} HTTP/1.1\r\nHost: a\r\n{close}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
            assert!(!answer.contains("poison"), "{said:?}: {answer}");
            assert!(!answer.starts_with("HTTP/1.1 502 "), "{said:?}: {answer}");
        }
        // And within one connection of one client, whose requests follow each other without a pause.
        let mut client = plane.connect().await;
        let two = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\n\r\n{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        );
        client.send(two).await;
        let answers = client.to_end().await;
        assert!(!answers.contains("poison"), "{said:?}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{said:?}: {answers}");
        drop(client);
        nothing_is_left(&plane).await;
    }
}

#[tokio::test]
async fn a_flood_of_interim_answers_is_no_answer() {
    let address = backend(|mut client| async move {
        client.request().await;
        let flood = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(100);
        while tokio::io::AsyncWriteExt::write_all(&mut client.0, flood.as_bytes()).await.is_ok() {}
    })
    .await;
    let plane = Plane::start(to(address));
    let answer = plane.exchange(GET).await;
    let (hints, last) = answer.split_at(answer.find("HTTP/1.1 502 ").unwrap());
    assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(16));
    assert!(last.contains("\r\nx-floodway-reason: upstream_protocol\r\n"), "{answer}");
    nothing_is_left(&plane).await;
}

/// RFC 9110 15.2: "A proxy MUST forward 1xx responses unless the proxy itself requested the generation of the 1xx response."
#[tokio::test]
async fn interim_answers_pass_at_once_without_what_is_the_connections() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let said = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: x-b\r\nX-B: c\r\nVia: inner\r\n\r\n";
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

    let mut client = plane.connect().await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    for _ in 0..2 {
        endpoint.send(said).await;
        assert_eq!(client.head().await, hint);
    }
    endpoint.send(format!("{said}{answer}")).await;
    assert_eq!(client.head().await, hint);
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(client.until("ok").await, "ok");
    drop(client);

    // "since HTTP/1.0 did not define any 1xx status codes, a server MUST NOT send a 1xx response to an HTTP/1.0 client"
    let mut old = plane.connect().await;
    old.send("GET /x HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{said}{answer}")).await;
    assert!(old.to_end().await.starts_with("HTTP/1.1 200 OK\r\n"));

    let client = http2(plane.address).await;
    let mut client = within(client.ready()).await.unwrap();
    let (mut head, _) = client.send_request(get("/x"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(said).await;
    let told = within(std::future::poll_fn(|cx| head.poll_informational(cx))).await.unwrap().unwrap();
    assert_eq!((told.status().as_u16(), told.headers().len()), (103, 1));
    endpoint.send(answer).await;
    assert_eq!(within(head).await.unwrap().status(), 200);
    drop(client);
    nothing_is_left(&plane).await;
}

/// Nothing that an endpoint writes in a value can begin a line of its own.
#[tokio::test]
async fn values_pass_as_they_are() {
    let said =
        b"HTTP/1.1 200 OK\r\nX-Bytes: a\xe9\xff;\"\\%0d%0aSet-Cookie: b\r\nX-Empty:\r\nContent-Length: 0\r\n\r\n";
    let plane = Plane::start(to(saying(&said[..], Then::Stays).await));
    let mut client = plane.connect().await;
    client.send(GET).await;
    let answer = client.rest().await.bytes;
    let field = b"\r\nx-bytes: a\xe9\xff;\"\\%0d%0aSet-Cookie: b\r\n";
    assert!(answer.windows(field.len()).any(|window| window == field));
    assert!(answer.windows(13).any(|window| window == b"\r\nx-empty: \r\n"));
}
