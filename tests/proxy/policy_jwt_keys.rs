//! Tokens of keys that were not fetched yet: their requests wait for the fetch, and for nothing else; nobody else waits with them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use floodway::snapshot::{
    Action, Cors, FetchedKeys, Headers, Issuer, IssuerKeys, Jwt, Keys, Names, Origins, Policy, Protocol, RemoteKeys,
    Snapshot, TokenPlace,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use tokio::task::JoinHandle;

use super::policy_jwt::jwt;
use super::support::*;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A key of the issuer, as the set has it, and a token of ada's that it has signed.
fn issued(kid: &str) -> (String, String) {
    let (random, scheme) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(scheme, pkcs8.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    let key = format!(r#"{{"kty": "EC", "crv": "P-256", "kid": "{kid}", "x": "{x}", "y": "{y}"}}"#);
    let header = encode(format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#));
    let claims = r#"{"iss":"https://id.test","aud":"chat","exp":99999999999,"sub":"ada","role":"editor"}"#;
    let message = format!("{header}.{}", encode(claims));
    let signature = pair.sign(&random, message.as_bytes()).unwrap();
    (key, format!("{message}.{}", encode(signature)))
}

fn put(keys: &FetchedKeys, set: &[&str]) {
    let set = format!(r#"{{"keys": [{}]}}"#, set.join(", "));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(keys.put(Keys::fetched(set.as_bytes()).unwrap(), now));
}

/// For those who show a token of the issuer in the query.
fn fetching(keys: &Arc<FetchedKeys>) -> Policy {
    let remote = RemoteKeys {
        fetched: "https://id.test/keys".into(),
        max_stale: Duration::from_secs(3600),
        algorithms: [].into(),
        keys: Some(Arc::clone(keys)),
    };
    let issuer = "https://id.test".into();
    let issuer = Issuer { issuer, audiences: ["chat".into()].into(), keys: IssuerKeys::Fetched(remote) };
    let jwt = Jwt { issuers: [issuer].into(), from: [TokenPlace::Query("t".into())].into(), ..jwt() };
    Policy { jwt: Some(Arc::new(jwt)), ..Policy::default() }
}

fn guarded(endpoint: SocketAddr, policy: Policy) -> Snapshot {
    let mut route = forward("", "backend");
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    action.backends[0].policy = Some(Arc::new(policy));
    snapshot(vec![route], vec![cluster("backend", Protocol::Http1, &[endpoint])])
}

/// A request on its way, with some fields.
fn asking(plane: &Arc<Plane>, token: &str, fields: &str) -> JoinHandle<String> {
    let head = format!("GET /?t={token} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    let plane = Arc::clone(plane);
    tokio::spawn(async move { plane.exchange(head).await })
}

/// The answer to a request that waits: whoever fetches has looked.
async fn settled(keys: &FetchedKeys, waiting: JoinHandle<String>) -> String {
    eventually("an answer", || {
        keys.settle();
        waiting.is_finished()
    })
    .await;
    waiting.await.unwrap()
}

#[tokio::test]
async fn a_token_of_a_new_key_waits_for_it_and_nobody_else_does() {
    let ((old, known), (new, unknown)) = (issued("old"), issued("new"));
    let keys = FetchedKeys::new(Arc::default());
    put(&keys, &[&old]);
    let plane = Arc::new(Plane::start(guarded(mirror().await, fetching(&keys))));
    let waiting = asking(&plane, &unknown, "");
    eventually("it is missed", || keys.was_missed()).await;
    for _ in 0..3 {
        assert!(asking(&plane, &known, "").await.unwrap().starts_with("HTTP/1.1 200 "));
    }
    assert!(!waiting.is_finished());
    put(&keys, &[&old, &new]);
    let answer = settled(&keys, waiting).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-user: ada\r\n"), "{answer}");
    assert!(!answer.contains(&unknown), "the token goes no farther: {answer}");
    // From now on it is known.
    assert!(asking(&plane, &unknown, "").await.unwrap().starts_with("HTTP/1.1 200 "));
    assert!(!keys.was_missed());
    // And a key that is gone is.
    put(&keys, &[&new]);
    let answer = settled(&keys, asking(&plane, &known, "")).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("token_invalid"), "{answer}");
}

#[tokio::test]
async fn a_made_up_key_is_refused_when_the_fetch_has_not_brought_it() {
    let ((old, _), (_, unknown)) = (issued("old"), issued("new"));
    let keys = FetchedKeys::new(Arc::default());
    put(&keys, &[&old]);
    let plane = Arc::new(Plane::start(guarded(mirror().await, fetching(&keys))));
    let waiting = asking(&plane, &unknown, "");
    eventually("it is missed", || keys.was_missed()).await;
    let answer = settled(&keys, waiting).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("x-floodway-reason: token_invalid"), "{answer}");
}

/// Makes a policy ask for more.
type Change<'a> = &'a dyn Fn(&mut Policy);

/// What other sections do with a request and its answer, they do once.
#[tokio::test]
async fn a_request_that_waited_goes_on_like_others() {
    let (new, unknown) = issued("new");
    let (old, _) = issued("old");
    let cors = Cors {
        origins: Origins::new(["https://shop.test"]),
        methods: None,
        headers: None,
        expose: Some("x-total".into()),
        credentials: true,
        max_age: None,
        refuse_others: false,
    };
    let api_key = super::policy_key::keys().api_key;
    let headers = Headers { request_remove: Names::new(["x-secret"]), ..Headers::default() };
    let with = |change: Change<'_>, keys: &Arc<FetchedKeys>| {
        let mut policy = Policy { cors: Some(Arc::new(cors.clone())), ..fetching(keys) };
        change(&mut policy);
        policy
    };
    let fields = "Origin: https://shop.test\r\nX-Secret: 1\r\nX-Api-Key: an-example-of-a-key+1\r\n";
    let cases: [(Change<'_>, bool); 3] = [
        (&|_| {}, true),
        (&|policy| policy.api_key = api_key.clone(), true),
        (&|policy| policy.headers = Some(Arc::new(headers.clone())), false),
    ];
    for (change, secret) in cases {
        let keys = FetchedKeys::new(Arc::default());
        put(&keys, &[&old]);
        let plane = Arc::new(Plane::start(guarded(mirror().await, with(change, &keys))));
        let waiting = asking(&plane, &unknown, fields);
        eventually("it is missed", || keys.was_missed()).await;
        put(&keys, &[&old, &new]);
        let answer = settled(&keys, waiting).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-user: ada\r\n"), "{answer}");
        for once in ["allow-origin: https://shop.test", "allow-credentials: true", "expose-headers: x-total"] {
            assert_eq!(answer.matches(&format!("access-control-{once}\r\n")).count(), 1, "{once}: {answer}");
        }
        assert_eq!(answer.to_lowercase().contains("x-secret: 1"), secret, "{answer}");
    }
}

#[tokio::test]
async fn who_leaves_while_waiting_takes_no_place() {
    let ((old, _), (_, unknown)) = (issued("old"), issued("new"));
    let keys = FetchedKeys::new(Arc::default());
    put(&keys, &[&old]);
    let plane = Plane::start(guarded(mirror().await, fetching(&keys)));
    let mut client = plane.connect().await;
    client.send(format!("GET /left?t={unknown} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    eventually("it is missed", || keys.was_missed()).await;
    drop(client);
    let line = plane.logged("/left").await;
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_gone".into()), "{line}");
}
