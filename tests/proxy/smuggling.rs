//! Requests that two servers could read differently (RFC 9112 section 11.2 and its kin): each is refused, the connection
//! is closed, and neither it nor what follows it reaches the endpoint.

use tokio::io::AsyncWriteExt;

use super::endpoints::{Witness, nothing_is_left};
use super::support::*;

/// What an attacker hopes to have read as a request of its own.
pub const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends each head and, behind it, another request, and checks that the answer is one refusal with this status.
async fn refused(cases: &[(&str, u16)]) {
    let witness = Witness::start().await;
    let plane = Plane::start(to(witness.address));
    for (head, status) in cases {
        refused_bytes(&plane, &witness, head.as_bytes(), *status).await;
    }
    nothing_is_left(&plane).await;
}

async fn refused_bytes(plane: &Plane, witness: &Witness, head: &[u8], status: u16) {
    let case = String::from_utf8_lossy(head);
    // Shown only if the test fails.
    println!("{case:?}");
    let mut client = plane.connect().await;
    // The proxy may have closed before everything is written.
    let _ = client.0.write_all(&[head, SMUGGLED.as_bytes()].concat()).await;
    let answer = client.to_end().await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{case:?}: {answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{case:?}: {answer}");
    assert!(answer.contains("\r\nx-floodway-reason: "), "{case:?}: {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{case:?} has one answer: {answer}");
    witness.saw_nothing_else(plane, &case).await;
}

/// Refuses a POST with these fields, which a reader might take for framing.
async fn fields_refused(fields: &[&str]) {
    let heads: Vec<String> =
        fields.iter().map(|fields| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n")).collect();
    let cases: Vec<(&str, u16)> = heads.iter().map(|head| (&**head, 400)).collect();
    refused(&cases).await;
}

#[tokio::test]
async fn content_length_beside_transfer_encoding() {
    fields_refused(&[
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length:",
        "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 5\r\nConnection: Content-Length",
        "Transfer-Encoding: identity\r\nContent-Length: 5",
        "Transfer-Encoding: xchunked\r\nContent-Length: 5",
    ])
    .await;
}

#[tokio::test]
async fn transfer_encodings_that_are_not_exactly_chunked() {
    fields_refused(&[
        "Transfer-Encoding:",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked;",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunke",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chun ked",
        "Transfer-Encoding: chunked\tx",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked\u{b}",
        "Transfer-Encoding: \u{c}chunked",
        "Transfer-Encoding: chunked\u{0}",
        "Transfer-Encoding: chunked\u{7f}",
        "Transfer-Encoding: \u{a0}chunked",
        "Transfer-Encoding: ch\u{fc}nked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: x",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chunked\r\n , identity",
        "Transfer-Encoding\u{b}: chunked",
        "Transfer-Encoding\u{0}: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "\rTransfer-Encoding: chunked",
    ])
    .await;
    refused(&[
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    ])
    .await;
}

#[tokio::test]
async fn lengths_that_are_not_one_number() {
    fields_refused(&[
        "Content-Length:",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: -0",
        "Content-Length: 0x5",
        "Content-Length: 5x",
        "Content-Length: 5.0",
        "Content-Length: 5e0",
        "Content-Length: 5 5",
        "Content-Length: 5_0",
        "Content-Length: 5,",
        "Content-Length: ,5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: \"5\"",
        "Content-Length: \u{665}",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 5\r\ncontent-length: 6",
        "Content-Length: 18446744073709551615",
        "Content-Length: 18446744073709551616",
        "Content-Length: 18446744073709551621",
        "Content-Length: 4294967301999999999999999",
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Content-Length:\r\n 5",
        "Content-Length: 5\r\n 0",
        "Content-Length: \u{b}5",
        "Content-Length: 5\u{0}",
        "X: y\rContent-Length: 5",
        "X: y\nContent-Length: 5",
        "X: y\r\rContent-Length: 5",
        "X: y\r\n\tContent-Length: 5",
    ])
    .await;
}

#[tokio::test]
async fn heads_that_are_not_lines_of_fields() {
    fields_refused(&[
        "X: y\n",
        "X: y\r",
        "X: \ry",
        "X: y\u{0}z",
        "X: y\u{1}z",
        "X: y\u{8}z",
        "X: y\u{7f}z",
        "X\u{0}: y",
        "X\u{80}: y",
        "X y",
        "X y: z",
        ": y",
        " : y",
        "X:\r\n y",
        "X: y\r\n\tz",
        " X: y",
        "\tX: y",
        "X(: y",
        "X,: y",
        "X/: y",
        "X=: y",
        "X@: y",
        "X[]: y",
        "X{}: y",
        "\"X\": y",
        "X;: y",
        "X\\: y",
        "GET /smuggled HTTP/1.1",
    ])
    .await;
    refused(&[
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        ("GET / HTTP/1.1\rHost: a\r\r", 400),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", 400),
        ("\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\r\nGET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\u{feff}GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\u{0}GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}", 400),
    ])
    .await;
}

#[tokio::test]
async fn request_lines_that_are_not_three_words() {
    let lines: &[(&str, u16)] = &[
        ("GET /", 400),
        ("GET", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET\t/\tHTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET / HTTP/1.1\t", 400),
        ("GET / HTTP/1.1 x", 400),
        ("GET / x HTTP/1.1", 400),
        ("GET HTTP/1.1", 400),
        ("/ HTTP/1.1", 400),
        ("GET\u{b}/ HTTP/1.1", 400),
        ("GET\u{a0}/ HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/1.", 400),
        ("GET / HTTP/.1", 400),
        ("GET / HTTP/11", 400),
        ("GET / HTTP/1.1.1", 400),
        ("GET / HTTP/01.1", 400),
        ("GET / HTTP/1.01", 400),
        ("GET / HTTP/1,1", 400),
        ("GET / HTTP /1.1", 400),
        ("GET / HTTPS/1.1", 400),
        ("GET / ICY/1.1", 400),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/3.0", 505),
        ("GET / HTTP/9.9", 505),
        ("G(T / HTTP/1.1", 400),
        ("G\u{e9}T / HTTP/1.1", 400),
        ("GE\u{0}T / HTTP/1.1", 400),
        ("GET: / HTTP/1.1", 400),
        ("\"GET\" / HTTP/1.1", 400),
        ("GET \u{0} HTTP/1.1", 400),
        ("GET /\u{0} HTTP/1.1", 400),
        ("GET /\u{1} HTTP/1.1", 400),
        ("GET /\u{7f} HTTP/1.1", 400),
        ("GET /\u{e9} HTTP/1.1", 400),
        ("GET /\u{ff0f} HTTP/1.1", 400),
        ("GET /a\tb HTTP/1.1", 400),
        ("GET /#x HTTP/1.1", 400),
        ("GET /?q#x HTTP/1.1", 400),
        ("GET #x HTTP/1.1", 400),
        ("GET x HTTP/1.1", 400),
        ("GET ?x HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("OPTIONS */x HTTP/1.1", 400),
        ("GET a/ HTTP/1.1", 400),
        ("GET a:80 HTTP/1.1", 400),
        ("GET http:// HTTP/1.1", 400),
        ("GET http:/// HTTP/1.1", 400),
        ("GET http:/a/ HTTP/1.1", 400),
        ("GET http:a HTTP/1.1", 400),
        ("GET ftp://a/ HTTP/1.1", 400),
        ("GET file:///a HTTP/1.1", 400),
        ("GET http://u@a/ HTTP/1.1", 400),
        ("GET http://u:p@a/ HTTP/1.1", 400),
        ("GET http://@a/ HTTP/1.1", 400),
        ("GET http://b/ HTTP/1.1", 400),
        ("GET http://a:81/ HTTP/1.1", 400),
        ("GET http://a/#x HTTP/1.1", 400),
        ("GET http://a b/ HTTP/1.1", 400),
    ];
    let heads: Vec<String> = lines.iter().map(|(line, _)| format!("{line}\r\nHost: a\r\n\r\n")).collect();
    let cases: Vec<(&str, u16)> = heads.iter().zip(lines).map(|(head, (_, status))| (&**head, *status)).collect();
    refused(&cases).await;
}

#[tokio::test]
async fn bytes_that_are_not_ascii() {
    let witness = Witness::start().await;
    let plane = Plane::start(to(witness.address));
    for head in [
        &b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"G\xffT / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\xff\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\xff: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \xb2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\xa0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x85chunked\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
    ] {
        refused_bytes(&plane, &witness, head, 400).await;
    }
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn hosts_in_doubt() {
    refused(&[
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a?\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a#\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a%00\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /..%2f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a/..\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\n\r\n", 417),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 37\r\n\r\n", 400),
    ])
    .await;
}
