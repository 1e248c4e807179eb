//! Who has a password that a policy knows: what others are told, what the backend learns, and that comparing holds nobody else up.

use std::sync::Arc;

use floodway::snapshot::{BasicAuth, Policy, Protocol, SecretBytes};
use http::{HeaderName, HeaderValue};

use super::endpoints::nothing_is_left;
use super::policies::under;
use super::support::*;

const REALM: &str = "Basic realm=\"Shop\", charset=\"UTF-8\"";

/// `ada` with the password `open sesame`.
pub fn users(cost: u32, forward: bool) -> Policy {
    let hash = SecretBytes::from(bcrypt::hash("open sesame", cost).unwrap().into_bytes());
    let basic = BasicAuth {
        users: [("ada".into(), hash.clone())].into_iter().collect(),
        decoy: hash,
        challenge: HeaderValue::from_static(REALM),
        forward_user: Some(HeaderName::from_static("x-user")),
        forward,
    };
    Policy { basic_auth: Some(Arc::new(basic)), ..Policy::default() }
}

/// What the backend sees of a request with these lines, or the refusal.
async fn ask(plane: &Plane, path: &str, lines: &str) -> String {
    plane.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n")).await
}

// ada:open sesame, ada:open sesam, eve:open sesame
pub const RIGHT: &str = "Authorization: Basic YWRhOm9wZW4gc2VzYW1l\r\n";
const WRONG: &str = "Authorization: Basic YWRhOm9wZW4gc2VzYW0=\r\n";
const STRANGER: &str = "Authorization: Basic ZXZlOm9wZW4gc2VzYW1l\r\n";

#[tokio::test]
async fn only_who_has_the_password_passes_and_the_backend_learns_the_name() {
    let routes =
        vec![under(users(4, false), forward("/closed", "backend")), under(users(4, true), forward("/told", "backend"))];
    let plane = Plane::start(snapshot(routes, vec![cluster("backend", Protocol::Http1, &[mirror().await])]));
    for (lines, reason) in [
        (String::new(), "basic_auth_missing"),
        ("Authorization: Bearer abc\r\n".to_owned(), "basic_auth_missing"),
        (WRONG.to_owned(), "basic_auth_invalid"),
        (STRANGER.to_owned(), "basic_auth_invalid"),
        (format!("{RIGHT}{WRONG}"), "basic_auth_invalid"),
        ("Authorization: Basic !\r\n".to_owned(), "basic_auth_invalid"),
    ] {
        let answer = ask(&plane, "/closed", &lines).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{lines}: {answer}");
        assert!(answer.contains(&format!("\r\nx-floodway-reason: {reason}\r\n")), "{lines}: {answer}");
        assert!(answer.contains(&format!("\r\nwww-authenticate: {REALM}\r\n")), "{lines}: {answer}");
    }
    // The second time it is known.
    for _ in 0..2 {
        let spoofed = format!("{RIGHT}X-User: root\r\nX_User: root\r\nConnection: x-user\r\n");
        let seen = ask(&plane, "/closed", &spoofed).await;
        assert!(seen.starts_with("HTTP/1.1 200 ") && seen.contains("\r\nx-user: ada\r\n"), "{seen}");
        assert!(!seen.contains("root") && !seen.contains("uthorization"), "{seen}");
    }
    let seen = ask(&plane, "/told", RIGHT).await;
    assert!(
        seen.to_lowercase().contains("\r\nauthorization: basic ") && seen.contains("\r\nx-user: ada\r\n"),
        "{seen}"
    );
    assert!(ask(&plane, "/closed", WRONG).await.starts_with("HTTP/1.1 401 "), "what is known is not the user alone");
    nothing_is_left(&plane).await;
    // Workers write each for itself.
    let lines = plane.logged_times("/closed", 9).await;
    assert!(lines.iter().any(|line| line["reason"] == "basic_auth_missing"), "{lines:?}");
}

#[tokio::test]
async fn comparing_holds_nobody_else_up() {
    let routes = vec![under(users(11, false), forward("/closed", "backend")), forward("/", "backend")];
    let clusters = vec![cluster("backend", Protocol::Http1, &[mirror().await])];
    let plane = Plane::with_workers(1, snapshot(routes, clusters), |_| {});
    let mut slow = plane.connect().await;
    slow.send(format!("GET /closed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{WRONG}\r\n")).await;
    assert!(ask(&plane, "/", "").await.starts_with("HTTP/1.1 200 "));
    let nothing_yet = slow.0.try_read(&mut [0; 1]);
    assert!(nothing_yet.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "it takes a second");
    assert!(slow.to_end().await.starts_with("HTTP/1.1 401 "));
    // Who leaves meanwhile leaves nothing behind.
    let mut leaver = plane.connect().await;
    leaver.send(format!("GET /closed HTTP/1.1\r\nHost: a\r\n{WRONG}\r\n")).await;
    leaver.reset();
    nothing_is_left(&plane).await;
}
