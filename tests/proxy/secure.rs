//! Requests that have to come by TLS and do not: they are sent there, before anybody asks who they are.

use std::sync::Arc;

use floodway::snapshot::{Invalid, Policy, Redirect, Route, Transport};

use super::policies::{responding, under};
use super::support::*;

fn secure(mut route: Route, redirect: bool) -> Route {
    let to = |port| Redirect {
        scheme: Some("https".into()),
        host: None,
        port: Some(port),
        path: None,
        status: http::StatusCode::PERMANENT_REDIRECT,
    };
    let hsts = Some(http::HeaderValue::from_static("max-age=7"));
    route.transport = Some(Arc::new(Transport { redirect: redirect.then(|| to(8443)), hsts, ..Transport::default() }));
    route
}

async fn ask(plane: &Plane, target: &str, more: &str) -> String {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: www.example.com:8080\r\nContent-Length: 0\r\n{more}Connection: close\r\n\r\n"
    );
    plane.exchange(&head).await
}

#[tokio::test]
async fn who_comes_without_tls_is_sent_to_it() {
    let locked = Policy { invalid: Some(Invalid("why".into())), ..Policy::default() };
    let routes = vec![
        secure(under(locked, responding("/locked")), true),
        secure(responding("/said"), false),
        responding("/open"),
    ];
    let plane = Plane::start(snapshot(routes, vec![]));
    let moved = ask(&plane, "/locked/a%20b/./c?d=e%2Ff", "").await;
    assert!(moved.starts_with("HTTP/1.1 308 "), "{moved}");
    assert!(moved.contains("\r\nlocation: https://www.example.com:8443/locked/a%20b/c?d=e%2Ff\r\n"), "{moved}");
    // Whoever says that it came by TLS and is not to be believed.
    assert!(ask(&plane, "/locked", "X-Forwarded-Proto: https\r\n").await.starts_with("HTTP/1.1 308 "));
    assert!(ask(&plane, "/open", "").await.starts_with("HTTP/1.1 200 "));
    let said = ask(&plane, "/said", "").await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    for answer in [&moved, &said] {
        assert!(!answer.to_ascii_lowercase().contains("strict-transport"), "nothing of it without TLS: {answer}");
    }
    assert_eq!(plane.logged("/locked/a%20b/./c").await["status"], 308);
}

#[tokio::test]
async fn who_came_by_tls_to_a_trusted_proxy_is_not_sent_away() {
    let plane = Plane::with(snapshot(vec![secure(responding("/"), true)], vec![]), |settings| {
        settings.forwarding.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let answer = ask(&plane, "/", "X-Forwarded-Proto: https\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("strict-transport"), "over TLS to us alone: {answer}");
    assert!(ask(&plane, "/", "X-Forwarded-Proto: http\r\n").await.starts_with("HTTP/1.1 308 "));
    assert!(ask(&plane, "/", "").await.starts_with("HTTP/1.1 308 "));
}
