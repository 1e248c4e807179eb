//! How many requests pass by what a policy says, over all workers; what is told of it; and how much there may be at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use floodway::snapshot::{Issuer, MissingKey, Policy, Protocol, RateKey, RateLimit, RequestRate, Snapshot, Tell};
use http::{HeaderName, StatusCode};

use serde_json::json;

use super::endpoints::Witness;
use super::policies::{responding, under};
use super::policy_basic::{RIGHT, users};
use super::policy_jwt::{jwt, token};
use super::policy_key::keys;
use super::support::*;

const HOUR: Duration = Duration::from_secs(3600);

pub fn limit(name: &str, keys: &[RateKey], requests: u32) -> RateLimit {
    RateLimit {
        identity: format!("shop/fair {name} {requests} {keys:?}").into(),
        policy: "shop/fair".into(),
        name: name.into(),
        keys: keys.into(),
        missing: MissingKey::Share,
        rate: Some(RequestRate { requests, per: HOUR, burst: requests }),
        at_once: None,
        shared: None,
        web_socket: None,
        max_keys: 1000,
        status: StatusCode::TOO_MANY_REQUESTS,
        tell: Tell::Refused,
    }
}

fn user() -> RateKey {
    RateKey::Header(HeaderName::from_static("x-user"))
}

fn limited(limits: &[RateLimit]) -> Snapshot {
    let policy = || Policy { rate_limit: Some(limits.into()), ..Policy::default() };
    snapshot(vec![under(policy(), responding("/other")), under(policy(), responding("/"))], Vec::new())
}

fn trusting(snapshot: Snapshot) -> Plane {
    Plane::with(snapshot, |settings| settings.forwarding.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
}

async fn ask(plane: &Plane, target: &str, fields: &str) -> String {
    plane.exchange(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n")).await
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

fn refused(answer: &str, expected: u16, reason: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{reason}: {answer}");
    assert!(answer.contains(&format!("\r\nx-floodway-reason: {reason}\r\n")), "{reason}: {answer}");
}

#[tokio::test]
async fn each_key_has_its_own_and_refusals_say_when_to_come_again() {
    let plane = Plane::start(limited(&[limit("per-user", &[user()], 2)]));
    for user in ["ann", "bob"] {
        let user = format!("X-User: {user}\r\n");
        for _ in 0..2 {
            let passed = ask(&plane, "/", &user).await;
            assert!(passed.starts_with("HTTP/1.1 200 ") && !passed.contains("ratelimit"), "{passed}");
        }
        let answer = ask(&plane, "/", &user).await;
        refused(&answer, 429, "rate_limited");
        // One of 2 in an hour comes back each half hour.
        for field in
            ["retry-after: 1800", "ratelimit: \"per-user\";r=0;t=1800", "ratelimit-policy: \"per-user\";q=2;w=3600"]
        {
            assert!(answer.contains(&format!("\r\n{field}\r\n")), "{answer}");
        }
    }
    plane.metric_becomes("floodway_rate_limited_total", "limit=\"per-user\",policy=\"shop/fair\"", 2.0).await;
    plane.metric_becomes("floodway_rate_limit_keys", "limit=\"per-user\",policy=\"shop/fair\"", 2.0).await;
    plane.metric_becomes("floodway_failures_total", "reason=\"rate_limited\"", 2.0).await;
}

#[tokio::test]
async fn every_answer_tells_if_it_is_to_and_none_if_none_is() {
    let limits = [
        RateLimit { tell: Tell::Always, ..limit("some", &[], 2) },
        RateLimit { tell: Tell::Never, status: StatusCode::SERVICE_UNAVAILABLE, ..limit("quiet", &[user()], 1) },
    ];
    let plane = Plane::start(limited(&limits));
    let passed = ask(&plane, "/", "X-User: ann\r\n").await;
    assert!(passed.contains("\r\nratelimit: \"some\";r=1;t=1800\r\n"), "{passed}");
    let answer = ask(&plane, "/", "X-User: ann\r\n").await;
    refused(&answer, 503, "rate_limited");
    assert!(!answer.contains("\r\nratelimit"), "{answer}");
    let passed = ask(&plane, "/", "X-User: bob\r\n").await;
    assert!(passed.contains("\r\nratelimit: \"some\";r=0;"), "a refusal by another limit cost nothing: {passed}");
}

#[tokio::test]
async fn keys_are_made_of_addresses_cookies_queries_and_routes() {
    let one = |key: RateKey| limited(&[limit("one", &[key], 1)]);
    let address = |prefix4, prefix6| RateKey::Address { prefix4, prefix6 };
    let from = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    // What comes one after the other, and whether it passes.
    type Case = (&'static str, String, bool);
    let case = |target, fields: &str, passes| (target, fields.to_owned(), passes);
    let cases: [(Snapshot, Vec<Case>); 6] = [
        (
            one(address(32, 64)),
            vec![
                case("/", &from("192.0.2.1"), true),
                case("/", &from("::ffff:192.0.2.1"), false),
                case("/", &from("192.0.2.2"), true),
                case("/", &from("2001:db8::1"), true),
                case("/", &from("2001:db8::ffff:0:0:1"), false),
                case("/", &from("2001:db8:0:1::1"), true),
            ],
        ),
        (one(address(24, 128)), vec![case("/", &from("192.0.2.1"), true), case("/", &from("192.0.2.255"), false)]),
        (
            one(RateKey::Cookie("sid".into())),
            vec![
                case("/", "Cookie: a=1; sid=x\r\n", true),
                case("/", "Cookie: sid=x\r\n", false),
                case("/", "Cookie: sid=y\r\n", true),
            ],
        ),
        (
            one(RateKey::Query("key".into())),
            vec![case("/?key=a%62", "", true), case("/?x=1&key=ab", "", false), case("/?key=b", "", true)],
        ),
        (one(RateKey::Route), vec![case("/", "", true), case("/?a", "", false), case("/other", "", true)]),
        (limited(&[limit("all", &[], 1)]), vec![case("/", "", true), case("/other", "X-User: ann\r\n", false)]),
    ];
    for (snapshot, asked) in cases {
        let plane = trusting(snapshot);
        for (target, fields, passes) in asked {
            let expected = if passes { "200" } else { "429" };
            assert_eq!(status(&ask(&plane, target, &fields).await), expected, "{target} {fields}");
        }
    }
}

#[tokio::test]
async fn keys_are_made_of_claims() {
    let mut jwt = jwt();
    let other = Issuer { issuer: "https://other.test".into(), ..jwt.issuers[0].clone() };
    jwt.issuers = [jwt.issuers[0].clone(), other].into();
    let jwt = Some(Arc::new(jwt));
    for (claim, tokens) in [
        (
            "sub",
            vec![
                (json!({"jti": "1"}), "200"),
                (json!({"jti": "2"}), "429"),
                (json!({"sub": "bob"}), "200"),
                // Neither of them could stand in a header field.
                (json!({"sub": "J\u{fc}rgen"}), "200"),
                (json!({"sub": "J\u{f6}rg"}), "200"),
                (json!({"sub": "J\u{fc}rgen"}), "429"),
                (json!({"iss": "https://other.test"}), "200"),
            ],
        ),
        (
            "org.id",
            vec![
                (json!({"org": {"id": 7}}), "200"),
                (json!({"org": {"id": 7, "x": 1}}), "429"),
                (json!({"org": {"id": 8}}), "200"),
                // These lack it, and share one.
                (json!({"org": {"id": null}}), "200"),
                (json!({}), "429"),
            ],
        ),
    ] {
        let limits = [limit("per-user", &[RateKey::Claim(claim.into())], 1)];
        let policy = Policy { jwt: jwt.clone(), rate_limit: Some(limits.into()), ..Policy::default() };
        let plane = Plane::start(snapshot(vec![under(policy, responding("/"))], Vec::new()));
        for (claims, expected) in tokens {
            let fields = format!("Authorization: Bearer {}\r\n", token(60, claims.clone()));
            assert_eq!(status(&ask(&plane, "/", &fields).await), expected, "{claim} {claims}");
        }
    }
}

/// A token that nobody verified is none, and where nobody is asked who they are, nobody is anybody.
#[tokio::test]
async fn without_a_section_that_asks_who_it_is_the_key_is_missing() {
    for key in [RateKey::Claim("sub".into()), RateKey::User] {
        let plane = Plane::start(limited(&[limit("per-user", &[key], 1)]));
        for (more, expected) in [(json!({}), "200"), (json!({"sub": "bob"}), "429")] {
            let fields = format!("Authorization: Bearer {}\r\n", token(60, more));
            assert_eq!(status(&ask(&plane, "/", &fields).await), expected);
        }
    }
}

#[tokio::test]
async fn keys_are_made_of_users_with_passwords_and_of_who_has_a_key() {
    let limits: Arc<[RateLimit]> = [limit("per-user", &[RateKey::User], 1)].into();
    let with = |policy| Policy { rate_limit: Some(Arc::clone(&limits)), ..policy };
    let routes = vec![under(with(users(4, false)), responding("/users")), under(with(keys()), responding("/"))];
    let plane = Plane::start(snapshot(routes, Vec::new()));
    let key = "X-Api-Key: an-example-of-a-key+1\r\n";
    for (path, fields, expected) in
        [("/users", RIGHT, "200"), ("/", key, "200"), ("/users", RIGHT, "429"), ("/", key, "429"), ("/", "", "401")]
    {
        assert_eq!(status(&ask(&plane, path, fields).await), expected, "{path} {fields}");
    }
}

#[tokio::test]
async fn parts_of_a_key_are_one_and_do_not_run_into_each_other() {
    let keys = [user(), RateKey::Query("k".into())];
    let plane = Plane::start(limited(&[limit("both", &keys, 1)]));
    for (user, query, expected) in [("ab", "c", "200"), ("a", "bc", "200"), ("ab", "d", "200"), ("ab", "c", "429")] {
        let answer = ask(&plane, &format!("/?k={query}"), &format!("X-User: {user}\r\n")).await;
        assert_eq!(status(&answer), expected, "{user} {query}");
    }
}

#[tokio::test]
async fn who_lacks_a_key_shares_one_or_is_free_or_refused() {
    for (missing, expected) in
        [(MissingKey::Share, ["200", "429"]), (MissingKey::Skip, ["200", "200"]), (MissingKey::Refuse, ["400", "400"])]
    {
        let plane = Plane::start(limited(&[RateLimit { missing, ..limit("per-user", &[user()], 1) }]));
        // An empty value is none.
        for (fields, expected) in ["", "X-User: \r\n"].into_iter().zip(expected) {
            let answer = ask(&plane, "/", fields).await;
            assert_eq!(status(&answer), expected, "{missing:?}");
            assert_eq!(answer.contains("no_rate_key"), expected == "400", "{answer}");
        }
        assert_eq!(status(&ask(&plane, "/", "X-User: ann\r\n").await), "200");
    }
}

/// 40 of 400, whichever workers serve them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_pass_as_may_over_all_workers() {
    let plane = Arc::new(Plane::with_workers(4, limited(&[limit("all", &[], 40)]), |_| {}));
    let (passed, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients = (0..20).map(|_| {
        let (plane, passed, refused) = (Arc::clone(&plane), Arc::clone(&passed), Arc::clone(&refused));
        tokio::spawn(async move {
            for _ in 0..20 {
                match status(&ask(&plane, "/", "").await) {
                    "200" => passed.fetch_add(1, Ordering::Relaxed),
                    "429" => refused.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{other}"),
                };
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!((passed.load(Ordering::Relaxed), refused.load(Ordering::Relaxed)), (40, 360));
}

#[tokio::test]
async fn what_is_counted_outlives_snapshots() {
    let plane = Plane::start(limited(&[limit("all", &[], 1)]));
    assert_eq!(status(&ask(&plane, "/", "").await), "200");
    let same = limited(&[RateLimit { tell: Tell::Never, ..limit("all", &[], 1) }]);
    plane.publisher.publish(same);
    assert_eq!(status(&ask(&plane, "/", "").await), "429", "the same limit");
    plane.publisher.publish(limited(&[limit("all", &[], 2)]));
    assert_eq!(status(&ask(&plane, "/", "").await), "200", "another one");
}

#[tokio::test]
async fn streams_count_until_they_are_over() {
    // It sends a head and then nothing, until its client leaves.
    let endpoint = backend(|mut client| async move {
        client.head().await;
        client.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await;
        client.to_end().await;
    })
    .await;
    let at_once = RateLimit { rate: None, at_once: Some(2), ..limit("streams", &[user()], 1) };
    let policy = Policy { rate_limit: Some([at_once].into()), ..Policy::default() };
    let routes = vec![under(policy, forward("/", "backend"))];
    let plane = Plane::start(snapshot(routes, vec![cluster("backend", Protocol::Http1, &[endpoint])]));
    let open = async |user: &str| {
        let mut client = plane.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n")).await;
        let head = client.head().await;
        (client, head)
    };
    let (first, head) = open("ann").await;
    assert_eq!(status(&head), "200");
    let (_second, head) = open("ann").await;
    assert_eq!(status(&head), "200");
    let (_refused, head) = open("ann").await;
    refused(&head, 429, "too_many_streams");
    assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
    let (_other, head) = open("bob").await;
    assert_eq!(status(&head), "200", "another key");
    drop(first);
    plane.metric_becomes("floodway_active_streams", "kind=\"sse\"", 2.0).await;
    let (_third, head) = open("ann").await;
    assert_eq!(status(&head), "200", "a place is free again");
}

#[tokio::test]
async fn who_is_refused_reaches_nobody_and_keeps_the_connection() {
    let endpoint = Witness::start().await;
    let policy = Policy { rate_limit: Some([limit("all", &[], 1)].into()), ..Policy::default() };
    let routes = vec![under(policy, forward("/", "backend"))];
    let plane = Plane::start(snapshot(routes, vec![cluster("backend", Protocol::Http1, &[endpoint.address])]));
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer =
        plane.exchange(format!("{request}{request}GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "429", "429"]);
    assert_eq!(endpoint.take().len(), 1);
}
