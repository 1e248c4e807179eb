//! Pages of one's own for the failures that Floodway tells of.

use std::sync::Arc;

use floodway::snapshot::{ErrorPage, IpAccess, Networks, Page, Policy, Protocol};

use super::endpoints::{Then, saying};
use super::policies::{responding, under};
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
        endpoint_answers: false,
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

#[tokio::test]
async fn answers_of_endpoints_look_like_that_where_it_is_wanted() {
    let pages = [ErrorPage {
        statuses: vec![(404, 404), (500, 599)],
        reasons: [].into(),
        endpoint_answers: true,
        html: Some(Page::new("<h1>{{status}} {{reason}} {{requestId}}</h1>")),
        json: None,
        plain: None,
    }];
    let policy = Policy { error_pages: Some(Arc::new(pages)), ..Policy::default() };
    let answers = [
        ("/missing", "404 Not Found", "Content-Type: text/plain\r\nContent-Language: en\r\nETag: \"a\"\r\nX-Own: 1"),
        ("/gone", "410 Gone", "Content-Type: text/plain"),
        ("/events", "500 Oh", "Content-Type: text/event-stream"),
        ("/call", "500 Oh", "Content-Type: application/grpc"),
    ];
    let mut routes = Vec::new();
    let mut clusters = Vec::new();
    for (path, status, fields) in answers {
        let own = saying(format!("HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: 4\r\n\r\nown!"), Then::Goes).await;
        routes.push(under(policy.clone(), forward(path, path)));
        clusters.push(cluster(path, Protocol::Http1, &[own]));
    }
    let plane = Plane::start(snapshot(routes, clusters));

    let html = get(&plane, "/missing", "text/html").await;
    let line = plane.logged("/missing").await;
    let id = line["request_id"].as_str().unwrap();
    assert!(html.starts_with("HTTP/1.1 404 ") && html.contains("\r\nx-own: 1\r\n"), "{html}");
    assert!(html.contains("\r\ncontent-type: text/html; charset=utf-8\r\n"), "{html}");
    assert!(
        !html.contains("etag") && !html.contains("content-language") && !html.contains("x-floodway-reason"),
        "{html}"
    );
    assert!(html.ends_with(&format!("\r\n\r\n<h1>404 endpoint {id}</h1>")), "{html}");
    assert_eq!((&line["status"], line.get("reason")), (&404.into(), None), "it is the endpoint's failure");

    // Another format, another status, and what is not there to be looked at.
    for (path, accept) in
        [("/missing", "application/json"), ("/gone", "text/html"), ("/events", "text/html"), ("/call", "text/html")]
    {
        assert!(get(&plane, path, accept).await.ends_with("\r\n\r\nown!"), "{path} {accept}");
    }
    let head = "HEAD /missing HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nConnection: close\r\n\r\n";
    let head = plane.exchange(head).await;
    assert!(head.contains("\r\netag: \"a\"\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let upgrade = "GET /missing HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut client = plane.connect().await;
    client.send(upgrade).await;
    assert!(client.until("own!").await.starts_with("HTTP/1.1 404 "), "a WebSocket that was refused");
}

#[tokio::test]
async fn refusals_of_policies_look_like_that() {
    let pages = [ErrorPage {
        statuses: vec![(400, 499)],
        reasons: [].into(),
        endpoint_answers: false,
        html: None,
        json: None,
        plain: Some(Page::new("{{status}}: {{reason}}")),
    }];
    let denied = IpAccess { allow: Some(Networks::default()), ..IpAccess::default() };
    let policy = Policy { error_pages: Some(Arc::new(pages)), ip_access: Some(Arc::new(denied)), ..Policy::default() };
    let plane = Plane::start(snapshot(vec![under(policy, responding("/"))], vec![]));
    assert!(get(&plane, "/", "text/plain").await.ends_with("\r\n\r\n403: address_denied"));
}
