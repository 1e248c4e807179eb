//! Heads as bytes, and what becomes of them.

use super::*;

fn read(raw: &[u8]) -> Result<Option<Head>, Error> {
    let mut buffer = BytesMut::from(raw);
    match HeadScan::default().find(&mut buffer)? {
        Some(length) => parse(buffer.split_to(length).freeze(), &Limits::default()).map(Some),
        None => Ok(None),
    }
}

#[test]
fn framing_is_what_the_head_says() {
    for (fields, framing) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("Content-Length: 42 \r\n", Framing::Length(42)),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("transfer-encoding:CHUNKED\r\n", Framing::Chunked),
    ] {
        let head = read(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
        assert_eq!(head.expect("valid").expect("complete").framing, framing, "{fields}");
    }
}

#[test]
fn the_end_is_found_wherever_the_bytes_are_split() {
    let raw = b"\r\nGET /x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    for split in 2..raw.len() {
        let mut scan = HeadScan::default();
        let mut buffer = BytesMut::from(&raw[..split]);
        assert_eq!(scan.find(&mut buffer), Ok(None), "split at {split}");
        buffer.extend_from_slice(&raw[split..]);
        assert_eq!(scan.find(&mut buffer), Ok(Some(raw.len() - 2)), "split at {split}");
    }
}

#[test]
fn keep_alive_is_what_version_and_connection_say() {
    for (version, connection, keep) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, Close\r\n", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
    ] {
        let head = read(format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n").as_bytes());
        assert_eq!(head.expect("valid").expect("complete").keep_alive, keep, "{version} {connection}");
    }
}

#[test]
fn what_two_servers_could_read_differently_is_refused() {
    for raw in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\x7fT / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1 1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert!(matches!(read(raw.as_bytes()), Err(Error::BadRequest(_))), "{raw:?}: {:?}", read(raw.as_bytes()));
    }
}

#[test]
fn each_refusal_has_its_own_status() {
    let many = "X: y\r\n".repeat(101);
    for (raw, error) in [
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), Error::Version),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(), Error::Version),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), Error::HeadersTooLarge),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(MAX_TARGET)), Error::TargetTooLong),
        ("GET / HTTP/1.1\r\nExpect: 200-ok\r\n\r\n".to_owned(), Error::Expectation),
    ] {
        assert_eq!(read(raw.as_bytes()).err(), Some(error), "{}", &raw[..40]);
    }
}
