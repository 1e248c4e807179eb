//! Who is signed in passes: tokens in headers, cookies and queries, what of them goes on, and streams that end with them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use floodway::snapshot::{Action, ClaimHeader, ClaimRule, Issuer, Jwt, Keys, Policy, Protocol, Snapshot, TokenPlace};
use http::HeaderName;
use serde_json::{Value, json};

use super::sse::{chunk, event};
use super::support::*;
use super::websocket_bytes::*;
use super::websocket_frames::told;

const SECRET: &[u8] = b"planted-key-planted-key-planted-key-";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of ada's with these claims, too, that is good for so many seconds.
pub fn token(seconds: i64, more: Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let mut claims =
        json!({"iss": "https://id.test", "aud": "chat", "exp": now + seconds, "sub": "ada", "role": "editor"});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let message = format!("{}.{}", encode(r#"{"alg":"HS256","kid":"k"}"#), encode(claims.to_string()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    format!("{message}.{}", encode(ring::hmac::sign(&key, message.as_bytes())))
}

pub fn jwt() -> Jwt {
    let keys = json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": encode(SECRET)}]}).to_string();
    let keys = Keys::read(keys.as_bytes(), &[], true).unwrap();
    let header = |claim: &str, name| ClaimHeader { claim: claim.into(), header: HeaderName::from_static(name) };
    Jwt {
        issuers: [Issuer { issuer: "https://id.test".into(), audiences: ["chat".into()].into(), keys: keys.into() }]
            .into(),
        from: [
            TokenPlace::Header(http::header::AUTHORIZATION, "Bearer".into()),
            TokenPlace::Cookie("session".into()),
            TokenPlace::Query("access_token".into()),
        ]
        .into(),
        skew: Duration::ZERO,
        required: [ClaimRule { claim: "role".into(), values: ["editor".into()].into() }].into(),
        headers: [header("sub", "x-user"), header("mail", "x-forwarded-email")].into(),
        forward: false,
        close_code: Some(4401),
        realm: "chat".into(),
    }
}

/// Everything goes to `endpoint`, for those who are signed in.
fn guarded(endpoint: SocketAddr, jwt: Jwt) -> Snapshot {
    let mut route = forward("", "backend");
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    action.backends[0].policy = Some(Arc::new(Policy { jwt: Some(Arc::new(jwt)), ..Policy::default() }));
    snapshot(vec![route], vec![cluster("backend", Protocol::Http1, &[endpoint])])
}

async fn ask(plane: &Plane, target: &str, fields: &str) -> String {
    plane.exchange(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n")).await
}

#[tokio::test]
async fn only_who_shows_a_good_token_passes() {
    let plane = Plane::start(guarded(mirror().await, jwt()));
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let good = token(60, json!({}));
    assert!(ask(&plane, "/", &bearer(&good)).await.starts_with("HTTP/1.1 200 "));
    let (stem, _) = good.rsplit_once('.').unwrap();
    let twice = bearer(&good) + &bearer(&good);
    let invalid = "Bearer realm=\"chat\", error=\"invalid_token\", error_description=\"the token is not valid\"";
    for (fields, status, reason, challenge) in [
        (String::new(), "401", "token_missing", "Bearer realm=\"chat\""),
        ("Authorization: Basic YTpi\r\n".to_owned(), "401", "token_missing", "Bearer realm=\"chat\""),
        (bearer("x"), "401", "token_invalid", invalid),
        (bearer(&format!("{stem}.AAAA")), "401", "token_invalid", invalid),
        (bearer(&token(60, json!({"aud": "shop"}))), "401", "token_invalid", invalid),
        (bearer(&token(60, json!({"nbf": 99_999_999_999_u64}))), "401", "token_invalid", invalid),
        (twice, "401", "token_invalid", invalid),
        (
            bearer(&token(0, json!({}))),
            "401",
            "token_expired",
            "Bearer realm=\"chat\", error=\"invalid_token\", error_description=\"the token has expired\"",
        ),
        (
            bearer(&token(60, json!({"role": "reader"}))),
            "403",
            "claims_refused",
            "Bearer realm=\"chat\", error=\"insufficient_scope\", error_description=\"the claims do not suffice\"",
        ),
    ] {
        let answer = ask(&plane, "/", &fields).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("x-floodway-reason: {reason}\r\n")), "{answer}");
        assert!(answer.contains(&format!("www-authenticate: {challenge}\r\n")), "{answer}");
    }
}

#[tokio::test]
async fn the_endpoint_is_told_who_it_is_and_neither_gets_the_token_nor_what_clients_claim() {
    let good = token(60, json!({"mail": "ada@a.test"}));
    let spoofed =
        "X-User: root\r\nx_user: root\r\nX-USER: root\r\nX-Forwarded-Email: root\r\nX-Forwarded_Email: root\r\n";
    let plane = Plane::start(guarded(mirror().await, jwt()));
    for (target, fields, goes_on) in [
        ("/a?b=c".to_owned(), format!("Authorization: Bearer {good}\r\n"), "/a?b=c"),
        ("/a?b=c".to_owned(), format!("Cookie: x=1; session={good}; y=2\r\n"), "/a?b=c"),
        (format!("/a?b=c&access_token={good}"), String::new(), "/a?b=c"),
        (format!("/a?access_token={good}"), String::new(), "/a"),
        (format!("/a?access_token={good}"), format!("Authorization: Bearer {good}\r\n"), "/a"),
    ] {
        // What the client calls an option of its connection does not take away what we say.
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close, x-user, x-forwarded-email\r\n{spoofed}{fields}\r\n"
        );
        let answer = plane.exchange(&head).await;
        let (_, told) = answer.split_once("\r\n\r\n").unwrap();
        assert!(told.starts_with(&format!("GET {goes_on} HTTP/1.1\r\n")), "{told}");
        assert!(told.contains("x-user: ada\r\n") && told.contains("x-forwarded-email: ada@a.test\r\n"), "{told}");
        assert!(!told.contains("root") && !told.contains(&good) && !told.contains("uthorization"), "{told}");
        assert_eq!(told.contains("cookie: x=1; y=2\r\n"), fields.contains("Cookie"), "{told}");
    }
    // Who has no mail is told to have none, whatever he says.
    let nobody = token(60, json!({}));
    let answer = ask(&plane, "/", &format!("Authorization: Bearer {nobody}\r\n{spoofed}")).await;
    assert!(!answer.contains("root") && !answer.contains("email"), "{answer}");
    // Fields of the same name that have something else in them are not tokens.
    let cookie = format!("Authorization: Basic YTpi\r\nCookie: session={good}\r\n");
    let answer = ask(&plane, "/", &cookie).await;
    assert!(answer.contains("Basic YTpi") && !answer.contains("session"), "{answer}");

    let forwarding = Plane::start(guarded(mirror().await, Jwt { forward: true, ..jwt() }));
    let answer = ask(&forwarding, &format!("/a?access_token={good}"), "").await;
    assert!(answer.contains(&format!("GET /a?access_token={good} HTTP/1.1\r\n")), "{answer}");
}

#[tokio::test]
async fn nothing_that_is_written_down_has_the_token_or_the_key() {
    let plane = Plane::start(guarded(mirror().await, jwt()));
    let good = token(60, json!({}));
    assert!(ask(&plane, &format!("/planted?access_token={good}"), "").await.starts_with("HTTP/1.1 200 "));
    let bad = good.replace(".ey", ".ez");
    let refused = ask(&plane, &format!("/planted?access_token={bad}"), &format!("Cookie: session={bad}\r\n")).await;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    let logged = format!("{:?}", plane.logged_times("/planted", 2).await);
    let dumped = serde_json::to_string(&guarded(([127, 0, 0, 1], 1).into(), jwt())).unwrap();
    let shown = format!("{:?}", guarded(([127, 0, 0, 1], 1).into(), jwt()));
    let metrics = plane.telemetry.metrics().text();
    for text in [logged, dumped, shown, metrics, refused] {
        for part in good.split('.').chain(bad.split('.')).chain([&*encode(SECRET), "planted-key"]) {
            assert!(!text.contains(part), "{part} in {text}");
        }
    }
}

#[tokio::test]
async fn an_event_stream_ends_between_two_events_when_its_token_expires() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(guarded(address, jwt()));
    let mut client = plane.connect().await;
    let good = token(3, json!({}));
    client.send(format!("GET /events?access_token={good} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.starts_with("GET /events HTTP/1.1\r\n") && head.contains("x-user: ada\r\n"), "{head}");
    endpoint.send(EVENTS).await;
    endpoint.send(chunk(&event(1))).await;
    client.head().await;
    assert_eq!(client.until("0\r\n\r\n").await, chunk(&event(1)) + "0\r\n\r\n");
    endpoint.closed().await;
    let line = plane.logged("/events").await;
    assert_eq!((&line["end"], &line["reason"]), (&"token_expired".into(), &"token_expired".into()), "{line}");
    // Who comes back with the same token is not let in.
    let again = ask(&plane, &format!("/events?access_token={good}"), "").await;
    assert!(again.starts_with("HTTP/1.1 401 ") && again.contains("token_expired"), "{again}");
}

#[tokio::test]
async fn a_websocket_is_closed_when_its_token_expires_with_a_status_of_ones_choosing() {
    for code in [4401, 4000] {
        let (address, mut arrivals) = played().await;
        let plane = Plane::start(guarded(address, Jwt { close_code: Some(code), ..jwt() }));
        let (mut client, mut endpoint) = web_socket(&plane, &mut arrivals).await;
        told(&mut client, true, code, "token_expired").await;
        told(&mut endpoint, false, 1001, "token_expired").await;
        let line = plane.logged("/socket").await;
        assert_eq!((&line["end"], &line["reason"]), (&"token_expired".into(), &"token_expired".into()), "{line}");
    }
}

#[tokio::test]
async fn streams_outlive_their_tokens_where_that_is_wanted() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(guarded(address, Jwt { close_code: None, ..jwt() }));
    let (mut client, mut endpoint) = web_socket(&plane, &mut arrivals).await;
    let expires = tokio::time::Instant::now() + Duration::from_secs(4);
    while tokio::time::Instant::now() < expires {
        client.send(frame(END | TEXT, true, b"still")).await;
        assert_eq!(next(&mut endpoint).await.payload, b"still");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A WebSocket as browsers open it, with a token in the query that is good for two or three seconds.
async fn web_socket(plane: &Plane, arrivals: &mut Arrivals) -> (Raw, Raw) {
    let mut client = plane.connect().await;
    let good = token(3, json!({}));
    client
        .send(format!(
            "GET /socket?access_token={good} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
    let (mut endpoint, head) = arrivals.request().await;
    assert!(head.starts_with("GET /socket HTTP/1.1\r\n"), "{head}");
    endpoint.send(format!("{}\r\n", super::websocket::SWITCHED)).await;
    client.head().await;
    (client, endpoint)
}
