//! Fields on their way: what ends here, what is made here, what is believed, and what rules change.

use floodway::snapshot::{Action, Cluster, HeaderEdits, PathRewrite, Protocol, Redirect, Rewrite, Route, Snapshot};
use http::{HeaderName, HeaderValue};

use super::endpoints::{Then, saying};
use super::support::*;

/// The head that an endpoint gets for a request with these fields.
async fn forwarded(plane: &Plane, fields: &str) -> String {
    let answer = plane.exchange(format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n")).await;
    let (head, seen) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{fields}: {head}");
    seen.to_owned()
}

fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut values = head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let value = values.next();
    assert_eq!(values.next(), None, "one {name} in {head}");
    value
}

#[tokio::test]
async fn fields_of_the_connection_end_here_in_requests() {
    let plane = Plane::start(to(mirror().await));
    let seen = forwarded(
        &plane,
        "Connection: x-hop, Keep-Alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         TE: gzip, trailers;q=1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nProxy-Authorization: Basic x\r\n\
         Connection: X-Other, Host, , te\r\nX-Other: 2\r\nX-Stays: 3\r\nAuthorization: Bearer y\r\nCookie: c=d\r\n",
    )
    .await;
    for name in [
        "x-hop",
        "x-other",
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
        "via",
        "transfer-encoding",
        "content-length",
    ] {
        assert_eq!(value(&seen, name), None, "{name} in {seen}");
    }
    for (name, kept) in [("host", "a"), ("x-stays", "3"), ("authorization", "Bearer y"), ("cookie", "c=d")] {
        assert_eq!(value(&seen, name), Some(kept), "{seen}");
    }
    assert_eq!(value(&forwarded(&plane, "TE: trailers\r\nConnection: TE\r\n").await, "te"), Some("trailers"));
    assert_eq!(value(&forwarded(&plane, "TE: gzip\r\n").await, "te"), None);
}

#[tokio::test]
async fn fields_of_the_connection_end_here_in_answers() {
    let said = "HTTP/1.1 200 OK\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                Proxy-Authenticate: Basic\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nVia: 1.1 inner-host\r\n\
                Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nServer: them\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n";
    let plane = Plane::start(to(saying(said, Then::Stays).await));
    let answer = plane.exchange("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    for name in ["x-hop", "keep-alive", "proxy-authenticate", "proxy-connection", "upgrade", "via"] {
        assert_eq!(value(&answer, name), None, "{name} in {answer}");
    }
    assert_eq!(value(&answer, "connection"), Some("close"));
    assert_eq!(value(&answer, "server"), Some("them"));
    assert!(answer.contains("\r\nset-cookie: a=b\r\nset-cookie: c=d\r\n"), "{answer}");
    assert_eq!(value(&answer, "x-request-id"), plane.logged("/x").await["request_id"].as_str());
}

const CLAIMS: &str = "X-Forwarded-For: 1.1.1.1, 10.0.0.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                      X-Forwarded-Port: 443\r\nX_Forwarded_For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n\
                      X-Request-Id: claimed-1\r\n";

#[tokio::test]
async fn strangers_are_not_believed() {
    let plane = Plane::start(to(mirror().await));
    let seen = forwarded(&plane, CLAIMS).await;
    for (name, kept) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("a")),
        ("x-forwarded-port", None),
        ("x_forwarded_for", None),
        ("x-real-ip", None),
        ("forwarded", None),
    ] {
        assert_eq!(value(&seen, name), kept, "{name} in {seen}");
    }
    let id = value(&seen, "x-request-id").unwrap();
    assert!(id.len() == 32 && id != "claimed-1", "{id}");
    let line = plane.logged("/x").await;
    assert_eq!((&line["client"], &line["request_id"]), (&"127.0.0.1".into(), &id.into()));
}

#[tokio::test]
async fn trusted_proxies_are_believed() {
    let plane = Plane::with(to(mirror().await), |settings| {
        settings.forwarding.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    });
    let seen = forwarded(&plane, CLAIMS).await;
    for (name, kept) in [
        ("x-forwarded-for", Some("1.1.1.1, 10.0.0.7, 127.0.0.1")),
        ("x-forwarded-proto", Some("https")),
        ("x-forwarded-host", Some("evil")),
        ("x-forwarded-port", Some("443")),
        ("x_forwarded_for", None),
        ("x-request-id", Some("claimed-1")),
    ] {
        assert_eq!(value(&seen, name), kept, "{name} in {seen}");
    }
    let line = plane.logged("/x").await;
    assert_eq!((&line["client"], &line["request_id"]), (&"1.1.1.1".into(), &"claimed-1".into()));
    // Not even a trusted proxy passes on what would break a log or a header.
    for id in ["a b", "a\"b", "<a>", &"x".repeat(200)] {
        let seen = forwarded(&plane, &format!("X-Request-Id: {id}\r\n")).await;
        assert_eq!(value(&seen, "x-request-id").unwrap().len(), 32, "{id}");
    }
}

fn edits(
    remove: &[&'static str],
    set: &[(&'static str, &'static str)],
    add: &[(&'static str, &'static str)],
) -> HeaderEdits {
    let fields = |fields: &[(&'static str, &'static str)]| {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    };
    HeaderEdits {
        remove: remove.iter().map(|name| HeaderName::from_static(name)).collect(),
        set: fields(set),
        add: fields(add),
    }
}

#[tokio::test]
async fn rules_edit_fields_both_ways() {
    let said = "HTTP/1.1 200 OK\r\nServer: them\r\nX-Set: old\r\nX-Add: one\r\nContent-Length: 0\r\n\r\n";
    let change = || edits(&["server", "x-gone"], &[("x-set", "new")], &[("x-add", "two")]);
    let mut answering = forward("", "answering");
    answering.response_headers = Some(Box::new(change()));
    let mut mirroring = forward("/m", "mirror");
    mirroring.request_headers = Some(Box::new(change()));
    let clusters = vec![
        cluster("answering", Protocol::Http1, &[saying(said, Then::Stays).await]),
        cluster("mirror", Protocol::Http1, &[mirror().await]),
    ];
    let plane = Plane::start(snapshot(vec![answering, mirroring], clusters));
    let answer = plane.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let fields = "Server: x\r\nX-Gone: y\r\nX-Set: old\r\nX-Add: one\r\n";
    let request = plane.exchange(format!("GET /m HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n")).await;
    for edited in [answer, request.split_once("\r\n\r\n").unwrap().1.to_owned()] {
        assert_eq!((value(&edited, "server"), value(&edited, "x-gone")), (None, None), "{edited}");
        assert_eq!(value(&edited, "x-set"), Some("new"), "{edited}");
        assert!(edited.contains("\r\nx-add: one\r\n") && edited.contains("\r\nx-add: two\r\n"), "{edited}");
    }
}

fn rewriting(prefix: &str, path: Option<PathRewrite>, host: Option<&'static str>) -> Route {
    let mut route = forward(prefix, "backend");
    if let Action::Forward(forward) = &mut route.action {
        forward.rewrite = Some(Box::new(Rewrite { path, host: host.map(HeaderValue::from_static) }));
    }
    route
}

async fn mirrored(routes: Vec<Route>) -> Snapshot {
    let clusters: Vec<Cluster> = vec![cluster("backend", Protocol::Http1, &[mirror().await])];
    snapshot(routes, clusters)
}

#[tokio::test]
async fn rules_rewrite_the_target() {
    let plane = Plane::start(
        mirrored(vec![
            rewriting("/prefix", Some(PathRewrite::Prefix("/new".into())), None),
            rewriting("/full", Some(PathRewrite::Full("/only".into())), None),
            rewriting("/host", None, Some("inner.example")),
        ])
        .await,
    );
    for (target, seen, host) in [
        ("/prefix/a?b=%2F", "/new/a?b=%2F", "a:81"),
        ("/prefix", "/new", "a:81"),
        ("/full/a?b", "/only?b", "a:81"),
        ("/host/a", "/host/a", "inner.example"),
    ] {
        let answer = plane.exchange(format!("GET {target} HTTP/1.1\r\nHost: a:81\r\nConnection: close\r\n\r\n")).await;
        let head = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(head.starts_with(&format!("GET {seen} HTTP/1.1\r\n")), "{target}: {head}");
        assert_eq!(value(head, "host"), Some(host), "{target}");
        assert_eq!(value(head, "x-forwarded-host"), Some("a:81"), "{target}");
    }
}

#[tokio::test]
async fn rules_redirect() {
    let redirect = Redirect {
        scheme: Some("https".into()),
        host: None,
        port: None,
        path: Some(PathRewrite::Prefix("/new".into())),
        status: http::StatusCode::PERMANENT_REDIRECT,
    };
    let plane = Plane::start(snapshot(vec![route("/old", Action::Redirect(redirect))], vec![]));
    for (target, location) in [
        ("/old/a?b=c", "https://a.example/new/a?b=c"),
        ("/old/../old/%2e/a", "https://a.example/new/a"),
        ("/old//evil.example/", "https://a.example/new//evil.example/"),
        ("/old/a?x=%0d%0aSet-Cookie:%20b", "https://a.example/new/a?x=%0d%0aSet-Cookie:%20b"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: A.example:8080\r\nConnection: close\r\n\r\n");
        let answer = plane.exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{answer}");
        assert_eq!(value(&answer, "location"), Some(location), "{target}");
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn strangers_may_begin_traces_and_trusted_proxies_go_on_with_theirs() {
    let given = format!("00-{TRACE}-00f067aa0ba902b7-00");
    let said = format!("Traceparent: {given}\r\nTracestate: a=1, b=2\r\n");
    let plane = Plane::start(to(mirror().await));
    let seen = forwarded(&plane, &said).await;
    assert_eq!((value(&seen, "traceparent"), value(&seen, "tracestate")), (None, None), "what strangers say");

    let plane = Plane::with(to(mirror().await), |settings| settings.tracing.begin = true);
    let seen = forwarded(&plane, &said).await;
    let (id, parent) = (value(&seen, "x-request-id").unwrap(), value(&seen, "traceparent").unwrap());
    assert!(parent.len() == 55 && parent.starts_with(&format!("00-{id}-")) && parent.ends_with("-01"), "{parent}");
    assert_eq!(value(&seen, "tracestate"), None);
    assert_eq!(plane.logged("/x").await["trace_id"], id);

    let trusting = |begin| {
        move |settings: &mut floodway::settings::Settings| {
            settings.forwarding.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            settings.tracing.begin = begin;
        }
    };
    let plane = Plane::with(to(mirror().await), trusting(true));
    let seen = forwarded(&plane, &format!("{said}X-Request-Id: theirs\r\n")).await;
    let logged = plane.logged("/x").await;
    // The same trace, not recorded as before, and our own span as the parent of what the endpoint does.
    let own = format!("00-{TRACE}-{}-00", logged["span_id"].as_str().unwrap());
    assert_eq!((value(&seen, "traceparent"), value(&seen, "tracestate")), (Some(&*own), Some("a=1, b=2")));
    assert!(logged["trace_id"] == TRACE && own != given, "{own}");

    // Their request's id is of no form that a trace could have.
    let plane = Plane::with(to(mirror().await), trusting(true));
    let seen = forwarded(&plane, "Traceparent: 00-0-0-01\r\nTracestate: a=1\r\nX-Request-Id: theirs\r\n").await;
    let logged = plane.logged("/x").await;
    let begun = format!("00-{}-", logged["trace_id"].as_str().unwrap());
    assert!(value(&seen, "traceparent").unwrap().starts_with(&begun) && begun.len() == 36, "{seen} {begun}");
    assert_eq!((value(&seen, "tracestate"), &logged["request_id"]), (None, &"theirs".into()));

    let plane = Plane::with(to(mirror().await), trusting(false));
    let seen = forwarded(&plane, "Tracestate: a=1\r\n").await;
    assert_eq!((value(&seen, "traceparent"), value(&seen, "tracestate")), (None, None));
    assert!(plane.logged("/x").await.get("trace_id").is_none());
}
