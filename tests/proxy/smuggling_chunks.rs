//! Content that two servers could read differently: chunks and trailers that are refused, of which nothing that follows reaches
//! the endpoint.

use tokio::io::AsyncWriteExt;

use super::endpoints::{Message, Witness, nothing_is_left};
use super::smuggling::SMUGGLED;
use super::support::*;

/// Chunks that are none: the endpoint may have seen the head and the chunks before, but no end, nor what follows.
#[tokio::test]
async fn chunks_that_are_not_exactly_chunks() {
    let witness = Witness::start().await;
    let plane = Plane::start(to(witness.address));
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(2000));
    let endless = "0".repeat(40);
    let trailers = format!("0\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    for chunks in [
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5h\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "\u{b}5\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n",
        "5\r\nhello\r\nGET / HTTP/1.1\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffb\r\nhello\r\n0\r\n\r\n",
        "100000000\u{0}5\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;\u{0}\r\nhello\r\n0\r\n\r\n",
        "5;\u{1b}\r\nhello\r\n0\r\n\r\n",
        "5;\u{e9}\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5:a\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        ";a\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\u{0}\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\rZ: z\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: \ny\r\n\r\n",
        "5\r\nhello\r\n0\r\n: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        &long,
        &endless,
        &trailers,
    ] {
        let head = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut client = plane.connect().await;
        let _ = client.0.write_all(format!("{head}{chunks}{SMUGGLED}").as_bytes()).await;
        let answer = client.to_end().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{chunks:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{chunks:?} has one answer: {answer}");
    }
    nothing_is_left(&plane).await;
    for seen in witness.take() {
        assert!(matches!(&seen, Message::Cut(text) if text.starts_with("POST /chunks ")), "{seen:?}");
    }
    for line in plane.logged_times("/chunks", 45).await {
        assert_eq!((&line["status"], &line["reason"]), (&400.into(), &"bad_request".into()), "{line}");
    }
}

/// The other side of refusing: what is no ambiguity passes, and stays what it is.
#[tokio::test]
async fn a_request_inside_content_stays_content() {
    let witness = Witness::start().await;
    let plane = Plane::start(to(witness.address));
    let length = SMUGGLED.len();
    let chunked = format!("{length:X};a=\"b\"\r\n{SMUGGLED}\r\n0\r\n\r\n");
    for (fields, content) in [
        (format!("Content-Length: {length}"), SMUGGLED.to_owned()),
        (format!("Content-Length: 000{length} \t"), SMUGGLED.to_owned()),
        ("Transfer-Encoding: chunked".to_owned(), chunked.clone()),
        ("transfer-encoding:\t ChUnKeD \t".to_owned(), chunked),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n\r\n{content}");
        let answer = plane.exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{fields}: {answer}");
        match &witness.take()[..] {
            [Message::Whole(only)] => {
                assert!(only.starts_with("POST / HTTP/1.1\r\n") && only.contains(SMUGGLED), "{only}");
                assert!(!only.contains("a=\"b\""), "extensions end here: {only}");
            }
            seen => panic!("{fields}: the endpoint saw {seen:?}"),
        }
    }
    nothing_is_left(&plane).await;
}
