//! Heads as bytes, and what becomes of them.

use super::*;

fn read(raw: &[u8]) -> Result<Option<Head>, Error> {
    match HeadScan::default().find(raw)? {
        Some(head) => parse(&raw[head], &Limits::default()).map(Some),
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
        assert_eq!(scan.find(&raw[..split]), Ok(None), "split at {split}");
        assert_eq!(scan.find(raw), Ok(Some(2..raw.len())), "split at {split}");
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

#[test]
fn a_head_that_does_not_end_is_refused_by_the_line_that_is_too_long() {
    for (raw, error) in [("GET /xxx", Error::TargetTooLong), ("GET / HTTP/1.1\r\nX: y", Error::HeadersTooLarge)] {
        let mut scan = HeadScan::default();
        assert_eq!(scan.find(raw.as_bytes()), Ok(None));
        assert_eq!(scan.too_large(100), error, "{raw}");
    }
}

/// What httparse, which hyper's server reads with, makes of a head; alone, without hyper's own checks.
fn httparse_accepts(raw: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    matches!(httparse::Request::new(&mut fields).parse(raw), Ok(httparse::Status::Complete(_)))
}

/// Pieces that heads of requests are made of, right and wrong.
fn pieces() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let piece = prop_oneof![
        8 => proptest::sample::select(&[
            "GET / HTTP/1.1\r\n", "POST /x HTTP/1.1\r\n", "GET / HTTP/1.0\r\n", "Host: a\r\n", "X: y\r\n", "\r\n",
            "Content-Length: 5\r\n", "Content-Length: 6\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n",
        ][..]).prop_map(|text| text.as_bytes().to_vec()),
        2 => proptest::sample::select(&[
            "\n", "\r", "\0", " ", "\t", ":", ",", "X : y\r\n", " folded\r\n", "X: y\n", "Transfer-Encoding: gzip\r\n",
            "Content-Length: +5\r\n", "Expect: 100-continue\r\n", "GET /#x HTTP/1.1\r\n", "GET  / HTTP/1.1\r\n",
        ][..]).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ];
    proptest::collection::vec(piece, 1..8).prop_map(|pieces| {
        let mut raw = pieces.concat();
        raw.extend_from_slice(b"\r\n\r\n");
        raw
    })
}

proptest::proptest! {
    /// Whatever we take, httparse takes, too, and reads the same number of fields up to the same end; so our rules only
    /// ever refuse more.
    #[test]
    fn our_verdict_is_never_milder_than_httparse(raw in pieces()) {
        if let Ok(Some(head)) = HeadScan::default().find(&raw) {
            let head = &raw[head];
            let taken = parse(head, &Limits::default());
            if let Ok(taken) = &taken {
                proptest::prop_assert!(httparse_accepts(head), "{head:?}");
                let mut fields = [httparse::EMPTY_HEADER; 128];
                let mut theirs = httparse::Request::new(&mut fields);
                proptest::prop_assert_eq!(theirs.parse(head), Ok(httparse::Status::Complete(head.len())));
                proptest::prop_assert_eq!(theirs.headers.len(), taken.request.fields.len());
            }
            if httparse_accepts(head) {
                // Each refusal of what httparse takes has a reason with a name.
                let named = match taken {
                    Ok(_) => true,
                    Err(Error::BadRequest(why)) => !why.is_empty(),
                    Err(error) => !error.reason().is_empty(),
                };
                proptest::prop_assert!(named);
            }
        }
    }

    /// A head means the same however it arrives.
    #[test]
    fn any_split_of_a_head_gives_the_same_verdict(raw in pieces(), cuts in proptest::collection::vec(0usize..200, 0..6)) {
        let whole = HeadScan::default().find(&raw);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(raw.len())).collect();
        cuts.push(raw.len());
        cuts.sort_unstable();
        let mut scan = HeadScan::default();
        let mut parted = Ok(None);
        for cut in cuts {
            parted = scan.find(&raw[..cut]);
            if parted != Ok(None) {
                break;
            }
        }
        proptest::prop_assert_eq!(parted, whole);
    }
}
