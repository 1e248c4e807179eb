//! CORS as browsers use it: preflights, what pages may read, and what a backend says of it itself.

use std::sync::Arc;

use floodway::snapshot::{Cors, Origins, Policy, Protocol};

use super::endpoints::{Then, Witness, saying};
use super::policies::{responding, under};
use super::support::*;

fn cors(origins: &[&str]) -> Cors {
    Cors {
        origins: Origins::new(origins.iter().copied()),
        methods: Some("PUT, DELETE".into()),
        headers: Some("authorization, x-tenant".into()),
        expose: Some("x-total".into()),
        credentials: false,
        max_age: Some(600),
        refuse_others: false,
    }
}

fn policy(cors: Cors) -> Policy {
    Policy { cors: Some(Arc::new(cors)), ..Policy::default() }
}

async fn ask(plane: &Plane, line: &str, fields: &str) -> String {
    plane.exchange(format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n")).await
}

/// The lines of an answer by which browsers and caches go, in their order.
fn told(answer: &str) -> Vec<&str> {
    let lines = answer.lines().take_while(|line| !line.is_empty());
    let mut told: Vec<_> =
        lines.filter(|line| line.starts_with("access-control-") || line.starts_with("vary: ")).collect();
    told.sort_unstable();
    told
}

const PREFLIGHT: &str = "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization\r\n\
                         Access-Control-Request-Private-Network: true\r\n";
const VARY: &str = "vary: origin, access-control-request-method, access-control-request-headers";

#[tokio::test]
async fn preflights_are_answered_before_a_backend_is_asked() {
    let endpoint = Witness::start().await;
    let policy = policy(cors(&["https://*.shop.test"]));
    let routes = vec![under(policy.clone(), forward("/", "backend")), under(policy, responding("/respond"))];
    let plane = Plane::start(snapshot(routes, vec![cluster("backend", Protocol::Http1, &[endpoint.address])]));
    for path in ["/", "/respond"] {
        let answer =
            ask(&plane, &format!("OPTIONS {path}"), &format!("Origin: https://a.shop.test\r\n{PREFLIGHT}")).await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        assert_eq!(
            told(&answer),
            [
                "access-control-allow-headers: authorization, x-tenant",
                "access-control-allow-methods: PUT, DELETE",
                "access-control-allow-origin: https://a.shop.test",
                "access-control-max-age: 600",
                VARY,
            ]
        );
    }
    // Nothing of a stranger comes back to it, nor of somebody who says two things at once.
    for stranger in [
        "https://shop.test",
        "null",
        "https://evil.test/.shop.test",
        "https://a.shop.test\r\nOrigin: https://a.shop.test",
    ] {
        let answer = ask(&plane, "OPTIONS /", &format!("Origin: {stranger}\r\n{PREFLIGHT}")).await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        assert_eq!(told(&answer), [VARY], "{stranger}");
    }
    assert!(endpoint.take().is_empty());
    // These are requests like others: one asks for nothing, the other comes from no page.
    for fields in ["Origin: https://a.shop.test\r\n", PREFLIGHT] {
        assert!(ask(&plane, "OPTIONS /", fields).await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(endpoint.take().len(), 2);
}

const OWN: &str = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://evil.test\r\nAccess-Control-Allow-Credentials: true\r\n\
                   Access-Control-Allow-Private-Network: true\r\nVary: Accept\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn what_the_backend_says_of_it_is_replaced() {
    let backend = saying(OWN, Then::Goes).await;
    let with_credentials = Cors { credentials: true, ..cors(&["https://shop.test"]) };
    let routes = vec![
        under(policy(cors(&["https://shop.test"])), forward("/some", "backend")),
        under(policy(cors(&["*"])), forward("/any", "backend")),
        under(policy(with_credentials), forward("/credentials", "backend")),
        forward("/", "backend"),
    ];
    let plane = Plane::start(snapshot(routes, vec![cluster("backend", Protocol::Http1, &[backend])]));
    let (expose, origin) = ("access-control-expose-headers: x-total", "access-control-allow-origin: https://shop.test");
    let (vary, theirs) = ("vary: origin", "vary: Accept");
    for (path, fields, expected) in [
        ("/some", "Origin: https://shop.test\r\n", vec![origin, expose, theirs, vary]),
        ("/some", "Origin: https://evil.test\r\n", vec![theirs, vary]),
        ("/some", "", vec![theirs, vary]),
        ("/any", "Origin: https://evil.test\r\n", vec!["access-control-allow-origin: *", expose, theirs]),
        ("/any", "", vec!["access-control-allow-origin: *", expose, theirs]),
        (
            "/credentials",
            "Origin: https://shop.test\r\n",
            vec!["access-control-allow-credentials: true", origin, expose, theirs, vary],
        ),
        ("/credentials", "Origin: https://evil.test\r\n", vec![theirs, vary]),
    ] {
        let answer = ask(&plane, &format!("GET {path}"), fields).await;
        assert_eq!(told(&answer), expected, "{path} {fields}");
    }
    let untouched = ask(&plane, "GET /", "Origin: https://shop.test\r\n").await;
    assert!(untouched.contains("https://evil.test"), "{untouched}");
}

#[tokio::test]
async fn strangers_are_refused_where_the_policy_says_so() {
    let endpoint = Witness::start().await;
    let policy = policy(Cors { refuse_others: true, ..cors(&["https://shop.test"]) });
    let routes = vec![under(policy, forward("/", "backend"))];
    let plane = Plane::start(snapshot(routes, vec![cluster("backend", Protocol::Http1, &[endpoint.address])]));
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (line, more) in [("GET /", ""), ("GET /", upgrade), ("POST /", ""), ("OPTIONS /", PREFLIGHT)] {
        let refused = ask(&plane, line, &format!("Origin: https://evil.test\r\n{more}")).await;
        assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("origin_denied"), "{refused}");
        assert_eq!(told(&refused).len(), 1, "{refused}");
        assert!(!refused.contains("evil"), "{refused}");
    }
    assert!(endpoint.take().is_empty());
    // Who is no page has no origin.
    for fields in ["", "Origin: https://shop.test\r\n"] {
        assert!(ask(&plane, "GET /", fields).await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn pages_can_read_why_they_are_refused() {
    let policy = policy(cors(&["https://shop.test"]));
    let routes = vec![under(policy, forward("/", "backend"))];
    let plane = Plane::start(snapshot(routes, vec![cluster("backend", Protocol::Http1, &[])]));
    let answer = ask(&plane, "GET /", "Origin: https://shop.test\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("no_endpoint"), "{answer}");
    assert!(told(&answer).contains(&"access-control-allow-origin: https://shop.test"), "{answer}");
}
