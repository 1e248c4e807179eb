//! Pages of one's own for the failures that Floodway tells of.

use std::sync::Arc;

use floodway::snapshot::{ErrorPage, Page, Policy, Protocol};

use super::endpoints::{Then, saying};
use super::policies::under;
use super::support::*;

async fn get(plane: &Plane, path: &str, accept: &str) -> String {
    plane.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn failures_look_as_the_policy_says_in_the_clients_format() {
    let page = |text| Some(Page::new(text));
    let pages = |reasons: &[&str], html, json| ErrorPage {
        statuses: vec![(500, 599)],
        reasons: reasons.iter().map(|reason| (*reason).into()).collect(),
        html,
        json,
        plain: None,
    };
    let pages = [
        pages(&["connect_failed"], page("<p>never"), None),
        pages(&[], page("<h1>{{status}} {{reason}} {{requestId}}</h1>"), page("{\"why\": \"{{reason}}\"}")),
    ];
    let policy = Policy { error_pages: Some(Arc::new(pages)), ..Policy::default() };
    let own = saying("HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nown!", Then::Goes).await;
    let routes = vec![under(policy.clone(), forward("/none", "none")), under(policy, forward("/own", "own"))];
    let clusters = vec![cluster("none", Protocol::Http1, &[]), cluster("own", Protocol::Http1, &[own])];
    let plane = Plane::start(snapshot(routes, clusters));

    let html = get(&plane, "/none", "text/html").await;
    let id = plane.logged("/none").await["request_id"].as_str().unwrap().to_owned();
    assert!(html.starts_with("HTTP/1.1 503 ") && html.contains("\r\nx-floodway-reason: no_endpoint\r\n"), "{html}");
    assert!(html.contains("\r\ncontent-type: text/html; charset=utf-8\r\n"), "{html}");
    assert!(html.ends_with(&format!("\r\n\r\n<h1>503 no_endpoint {id}</h1>")), "{html}");
    let json = get(&plane, "/none", "application/json").await;
    assert!(json.ends_with("\r\n\r\n{\"why\": \"no_endpoint\"}") && json.contains("application/json"), "{json}");
    // There is none in this format, nor for what is under no policy: Floodway's own is shown.
    let plain = get(&plane, "/none", "text/plain").await;
    assert!(plain.contains("reason: no_endpoint"), "{plain}");
    let unknown = get(&plane, "/nowhere", "text/html").await;
    assert!(unknown.starts_with("HTTP/1.1 404 ") && unknown.contains("<code>no_route</code>"), "{unknown}");
    // What an endpoint says stays.
    assert!(get(&plane, "/own", "text/html").await.ends_with("\r\n\r\nown!"));
}
