//! Who has a key that a policy knows: wherever it is, it does not reach the backend, which learns whose it was.

use std::sync::Arc;

use floodway::snapshot::{ApiKey, Keyring, Policy, Protocol, TokenPlace};
use http::HeaderName;

use super::policies::under;
use super::support::*;

pub fn keys() -> Policy {
    let mut keys = Keyring::default();
    keys.add("acme", b"an-example-of-a-key+1").unwrap();
    let from = [
        TokenPlace::Header(HeaderName::from_static("x-api-key"), "".into()),
        TokenPlace::Query("key".into()),
        TokenPlace::Cookie("key".into()),
    ];
    let api_key = ApiKey { keys, from: from.into(), forward_name: Some(HeaderName::from_static("x-client")) };
    Policy { api_key: Some(Arc::new(api_key)), ..Policy::default() }
}

#[tokio::test]
async fn only_who_has_a_key_passes_and_the_key_does_not() {
    let routes = vec![under(keys(), forward("", "backend"))];
    let plane = Plane::start(snapshot(routes, vec![cluster("backend", Protocol::Http1, &[mirror().await])]));
    let ask = |target: &str, lines: &str| {
        plane.exchange(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close, x-client\r\n{lines}\r\n"))
    };
    for (target, lines, line) in [
        ("/a", "X-Api-Key: an-example-of-a-key+1\r\nX-Client: root\r\nX_Client: root\r\n", "GET /a HTTP/1.1"),
        ("/a?key=an-example-of-a-key%2B1&x=1", "", "GET /a?x=1 HTTP/1.1"),
        ("/a?key=an-example-of-a-key+1", "Cookie: a=1; key=other\r\n", "GET /a HTTP/1.1"),
        ("/a", "Cookie: key=an-example-of-a-key+1; b=2\r\n", "GET /a HTTP/1.1"),
    ] {
        let seen = ask(target, lines).await;
        assert!(seen.starts_with("HTTP/1.1 200 ") && seen.contains(&format!("\r\n\r\n{line}\r\n")), "{seen}");
        assert!(seen.contains("\r\nx-client: acme\r\n"), "{seen}");
        assert!(!seen.contains("example") && !seen.contains("key") && !seen.contains("root"), "{seen}");
    }
    for (target, lines, reason) in [
        ("/b", "", "api_key_missing"),
        ("/b?key=", "Cookie: keys=1\r\n", "api_key_missing"),
        ("/b?key=an-example-of-a-key", "", "api_key_invalid"),
        ("/b?key=an-example-of-a-key%2B1&key=x", "", "api_key_invalid"),
        // The first place counts.
        ("/b?key=an-example-of-a-key%2B1", "X-Api-Key: other\r\n", "api_key_invalid"),
        ("/b", "X-Api-Key: an-example-of-a-key+1\r\nX-Api-Key: an-example-of-a-key+1\r\n", "api_key_invalid"),
    ] {
        let answer = ask(target, lines).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{target} {lines}: {answer}");
        assert!(answer.contains(&format!("\r\nx-floodway-reason: {reason}\r\n")), "{target} {lines}: {answer}");
        assert!(answer.contains("\r\nwww-authenticate: ApiKey "), "{answer}");
    }
    let logged = plane.logged_times("/b", 6).await;
    assert!(!format!("{logged:?}").contains("example"), "{logged:?}");
}
