#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

/// Messages made of pieces, right and wrong, of both kinds.
pub(in crate::proxy::http1) fn messages(first: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    const FIELDS: &[&str] = &[
        "Host: a\r\n",
        "X:\t y \r\n",
        "X: \r\n",
        "Date: now\r\n",
        "Connection: keep-alive\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "X : y\r\n",
        "X: y\n",
    ];
    const CONTENT: &[&str] = &[
        "hello",
        "5\r\nhello\r\n",
        "5;x=\"y\"\r\nhello\r\n",
        "00a\r\n0123456789\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "0\r\nX-Sum: 1\r\n\r\n",
        "Content-Length: 9\r\n",
        "X: y\r\n",
        "\r\n",
        "\n",
        "\r",
        "f",
    ];
    let fields = proptest::collection::vec(proptest::sample::select(FIELDS), 0..5);
    let content = proptest::collection::vec(proptest::sample::select(CONTENT), 0..7);
    let noise = proptest::option::weighted(0.2, (any::<proptest::sample::Index>(), any::<u8>()));
    (proptest::sample::select(first), fields, content, noise).prop_map(|(first, fields, content, noise)| {
        let mut raw = [first, &fields.concat(), "\r\n", &content.concat()].concat().into_bytes();
        if let Some((at, byte)) = noise {
            let at = at.index(raw.len());
            raw[at] = byte;
        }
        raw
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_keep_the_laws(raw in messages(&[
        "GET / HTTP/1.1\r\n", "POST /x?y HTTP/1.1\r\n", "PUT / HTTP/1.0\r\n", "OPTIONS * HTTP/1.1\r\n",
        "GET http://a?q HTTP/1.1\r\n", "\r\nGET / HTTP/1.1\r\n",
    ])) {
        request(&raw);
    }

    #[test]
    fn responses_keep_the_laws(raw in messages(&[
        "HTTP/1.1 200 OK\r\n", "HTTP/1.1 204\r\n", "HTTP/1.0 304 Not Modified\r\n", "HTTP/1.1 103 Early Hints\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n", "HTTP/1.1 999 \r\n",
    ])) {
        response(&raw);
    }
}

/// Where fuzzing begins, and what it has found.
#[test]
fn seeds_keep_the_laws() {
    for (folder, law) in [("request", request as fn(&[u8])), ("response", response)] {
        let folder = format!("{}/fuzz/seeds/{folder}", env!("CARGO_MANIFEST_DIR"));
        let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()).collect();
        assert!(seeds.len() > 5);
        for seed in seeds {
            law(&std::fs::read(seed).unwrap());
        }
    }
}
