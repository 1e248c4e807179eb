//! Fields that neither side may send, and those that every answer gets.

use std::sync::Arc;

use floodway::snapshot::{HeaderEdits, Headers, Names, Policy, Protocol};
use http::{HeaderName, HeaderValue};

use super::endpoints::{Message, Then, Witness, saying};
use super::policies::under;
use super::support::*;

fn policy(headers: Headers) -> Policy {
    Policy { headers: Some(Arc::new(headers)), ..Policy::default() }
}

fn field(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

async fn get(plane: &Plane, path: &str, fields: &str) -> String {
    plane.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n")).await
}

#[tokio::test]
async fn clients_cannot_say_what_others_believe() {
    let endpoint = Witness::start().await;
    let names = Headers { request_remove: Names::new(["X-User", "x-internal-*"]), ..Headers::default() };
    let underscored = Headers { request_remove_underscored: true, ..Headers::default() };
    let routes = vec![
        under(policy(names), forward("/names", "backend")),
        under(policy(underscored), forward("/underscored", "backend")),
    ];
    let plane = Plane::start(snapshot(routes, vec![cluster("backend", Protocol::Http1, &[endpoint.address])]));
    let said = "X-USER: root\r\nX_User: root\r\nX-Internal-A: 1\r\nX_INTERNAL_b: 2\r\nX-Users: a\r\nX-Internal: b\r\nx_y: c\r\n";
    for (path, kept) in [
        ("/names", &["x-users: a", "x-internal: b", "x_y: c"][..]),
        ("/underscored", &["x-user: root", "x-internal-a: 1", "x-users: a", "x-internal: b"]),
    ] {
        get(&plane, path, said).await;
        let seen = endpoint.take();
        let [Message::Whole(head)] = &seen[..] else { panic!("{seen:?}") };
        let ours = |line: &&str| {
            let line = line.replace('_', "-");
            ["x-user", "x-internal", "x-y"].iter().any(|name| line.starts_with(name))
        };
        assert_eq!(head.lines().filter(ours).collect::<Vec<_>>(), kept, "{path}");
    }
}

const SAID: &str = "HTTP/1.1 200 OK\r\nServer: Apache/2.4\r\nX-Powered-By: PHP/7\r\nX-Debug-Sql: 3\r\nX-Debug: 4\r\n\
                    Referrer-Policy: no-referrer\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn answers_hide_what_they_should_and_get_what_is_missing() {
    let backend = saying(SAID, Then::Goes).await;
    let preset = |replace| Headers {
        hide: Names::new(["server", "x-powered-by", "x-debug-*"]),
        give: [
            field("x-content-type-options", "nosniff"),
            field("referrer-policy", "same-origin"),
            field("x-rule", "p"),
        ]
        .into(),
        replace,
        ..Headers::default()
    };
    let mut edited = forward("/edited", "backend");
    let set = vec![field("x-rule", "r"), field("server", "ours")];
    edited.response_headers = Some(Box::new(HeaderEdits { set, ..HeaderEdits::default() }));
    let routes = vec![
        under(policy(preset(false)), forward("/fills", "backend")),
        under(policy(preset(true)), forward("/replaces", "backend")),
        under(policy(preset(false)), edited),
        under(policy(preset(false)), forward("/nobody", "nobody")),
    ];
    let clusters = vec![cluster("backend", Protocol::Http1, &[backend]), cluster("nobody", Protocol::Http1, &[])];
    let plane = Plane::start(snapshot(routes, clusters));
    for (path, referrer, rule) in [
        ("/fills", "no-referrer", "p"),
        ("/replaces", "same-origin", "p"),
        // A rule comes first: what it gives is hidden and kept like what the backend gives.
        ("/edited", "no-referrer", "r"),
        ("/nobody", "same-origin", "p"),
    ] {
        let answer = get(&plane, path, "").await;
        for (name, expected) in [
            ("server", None),
            ("x-powered-by", None),
            ("x-debug-sql", None),
            ("x-debug", Some("4").filter(|_| path != "/nobody")),
            ("x-content-type-options", Some("nosniff")),
            ("referrer-policy", Some(referrer)),
            ("x-rule", Some(rule)),
        ] {
            let values = answer.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            assert_eq!(
                values.collect::<Vec<_>>(),
                expected.into_iter().collect::<Vec<_>>(),
                "{name} of {path}: {answer}"
            );
        }
    }
}
