//! Whom another service lets pass: what it is asked, what becomes of its answers, and what happens when it gives none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::snapshot::{BreakerMode, Cluster, ClusterName, ExternalAuth, Policy, Protocol, Resilience};
use http::HeaderName;

use super::clients::http2_backend;
use super::outcomes::breaker;
use super::policies::under;
use super::support::*;

fn asking(path: &str, change: impl FnOnce(&mut ExternalAuth)) -> Policy {
    let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect();
    let mut external = ExternalAuth {
        cluster: ClusterName::new("auth"),
        path: path.into(),
        host: None,
        timeout: Duration::from_secs(20),
        pass_on_failure: false,
        request_headers: names(&["cookie", "x-tenant"]),
        backend_headers: names(&["x-user", "x-group", "x-forwarded-user"]),
        success_headers: names(&["set-cookie", "x-plan"]),
        refusal_headers: names(&["location", "set-cookie", "www-authenticate"]),
    };
    change(&mut external);
    Policy { external_auth: Some(Arc::new(external)), ..Policy::default() }
}

/// A service that lets everybody pass whose cookie is `in`, and the requests that it got.
async fn service() -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let (sender, asked) = tokio::sync::mpsc::channel(64);
    let address = backend(move |mut client| {
        let sender = sender.clone();
        async move {
            while let Some(head) = client.request().await {
                let answer = match () {
                    () if head.contains("cookie: in\r\n") => {
                        "200 OK\r\nX-User: ada\r\nX-Group: a\r\nX-Group: b\r\nX-Forwarded-User: ada\r\nX-Other: x\r\n\
                         Set-Cookie: s=1\r\nX-Plan: free"
                    }
                    () if head.contains("cookie: hop\r\n") => "200 OK\r\nX-User: ada\r\nConnection: x-user",
                    () if head.contains("cookie: broken\r\n") => "500 Oops\r\nX-Other: x",
                    () if head.contains("cookie: cached\r\n") => "304 Not Modified\r\nX-Other: x",
                    () if head.contains("cookie: who\r\n") => "401 Who\r\nWWW-Authenticate: Bearer realm=\"a\"",
                    () => "302 Found\r\nLocation: /login\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Other: x",
                };
                let _ = sender.try_send(head);
                let length = if answer.starts_with("304") { "" } else { "Content-Length: 5\r\n\r\nhello" };
                let end = if length.is_empty() { "\r\n" } else { length };
                client.send(format!("HTTP/1.1 {answer}\r\n{end}")).await;
            }
        }
    });
    (address.await, asked)
}

fn plane_of(policy: Policy, protocol: Protocol, auth: &[SocketAddr], endpoint: SocketAddr) -> Plane {
    let routes = vec![under(policy, forward("", "backend"))];
    let clusters = vec![cluster("backend", Protocol::Http1, &[endpoint]), cluster("auth", protocol, auth)];
    Plane::start(snapshot(routes, clusters))
}

async fn plane(policy: Policy, auth: Vec<SocketAddr>) -> Plane {
    plane_of(policy, Protocol::Http1, &auth, mirror().await)
}

async fn ask(plane: &Plane, lines: &str) -> String {
    plane
        .exchange(format!(
            "POST /x/../a%20b?q=1 HTTP/1.1\r\nHost: shop.test\r\nConnection: close, x-user\r\n{lines}\r\n"
        ))
        .await
}

#[tokio::test]
async fn it_is_asked_about_each_request_and_its_answer_counts() {
    let (address, mut asked) = service().await;
    let plane = plane(asking("/verify?strict", |_| {}), vec![address]).await;
    let spoofed = "X-User: root\r\nX_User: root\r\nX-Forwarded-User: root\r\nX-Forwarded-Uri: /public\r\n\
                   X-Original-Url: /public\r\nX-Original-Method: root\r\n";
    let seen = ask(&plane, &format!("Cookie: in\r\nAuthorization: hush\r\n{spoofed}Content-Length: 0\r\n")).await;
    assert!(seen.starts_with("HTTP/1.1 200 ") && seen.contains("\r\n\r\nPOST /a%20b?q=1 HTTP/1.1\r\n"), "{seen}");
    for line in ["x-user: ada", "x-group: a, b", "x-forwarded-user: ada"] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line}: {seen}");
    }
    // Spoofed ones of other names are the backend's business.
    let told = seen.replace("x-original-method: root", "");
    assert!(!told.contains("root") && !told.contains("x-other"), "{seen}");
    let (head, _) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nset-cookie: s=1") && head.contains("\r\nx-plan: free"), "{head}");
    let question = within(asked.recv()).await.unwrap();
    for line in [
        "GET /verify?strict HTTP/1.1\r\n",
        "\r\nhost: shop.test\r\n",
        "\r\nx-forwarded-method: POST\r\n",
        "\r\nx-forwarded-proto: http\r\n",
        "\r\nx-forwarded-host: shop.test\r\n",
        "\r\nx-forwarded-uri: /a%20b?q=1\r\n",
        "\r\nx-forwarded-for: 127.0.0.1\r\n",
        "\r\nx-original-method: POST\r\n",
        "\r\nx-original-url: http://shop.test/a%20b?q=1\r\n",
        "\r\nx-request-id: ",
        "\r\ncookie: in\r\n",
    ] {
        assert!(question.contains(line), "{line:?}: {question}");
    }
    assert!(!question.contains("hush") && !question.contains("/public") && !question.contains("root"), "{question}");

    let answer = ask(&plane, "").await;
    assert!(answer.starts_with("HTTP/1.1 302 ") && answer.contains("\r\nlocation: /login\r\n"), "{answer}");
    assert!(answer.contains("\r\nset-cookie: a=1\r\n") && answer.contains("\r\nset-cookie: b=2\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-floodway-reason: auth_denied\r\n") && !answer.contains("x-other"), "{answer}");
    let answer = ask(&plane, "Cookie: who\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("\r\nwww-authenticate: Bearer realm=\"a\"\r\n"), "{answer}");
    for undecided in ["broken", "cached"] {
        let answer = ask(&plane, &format!("Cookie: {undecided}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("auth_unavailable"), "{answer}");
    }
    let logged = plane.logged_times("/x/../a%20b", 5).await;
    let told = |line: &serde_json::Value| line["reason"] == "auth_denied" && line["status"] == 302;
    assert!(logged.iter().any(told), "{logged:?}");
}

#[tokio::test]
async fn what_is_for_a_connection_alone_stays_there() {
    let (address, mut asked) = service().await;
    let plane = plane(asking("/", |external| external.host = Some("auth.test".into())), vec![address]).await;
    let seen = plane
        .exchange("GET /a HTTP/1.1\r\nHost: a\r\nCookie: hop\r\nX-Tenant: blue\r\nConnection: close, x-tenant\r\n\r\n")
        .await;
    assert!(seen.starts_with("HTTP/1.1 200 ") && !seen.contains("x-user"), "{seen}");
    let question = within(asked.recv()).await.unwrap();
    assert!(!question.contains("blue") && !question.contains("\r\nconnection: close"), "{question}");
    assert!(
        question.contains("\r\nhost: auth.test\r\n") && question.contains("\r\nx-forwarded-host: a\r\n"),
        "{question}"
    );
}

#[tokio::test]
async fn cookies_of_the_backend_stay_beside_those_of_the_service() {
    let (address, _asked) = service().await;
    let (endpoint, mut arrivals) = played().await;
    let plane = plane_of(asking("/", |_| {}), Protocol::Http1, &[address], endpoint);
    let mut client = plane.connect().await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nCookie: in\r\n\r\n").await;
    let (mut backend, _) = arrivals.request().await;
    backend.send("HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nX-Plan: paid\r\nContent-Length: 0\r\n\r\n").await;
    let head = client.head().await;
    for (line, there) in
        [("set-cookie: own=1", true), ("set-cookie: s=1", true), ("x-plan: free", true), ("paid", false)]
    {
        assert_eq!(head.to_lowercase().contains(line), there, "{line}: {head}");
    }
}

#[tokio::test]
async fn nobody_passes_while_it_says_nothing_unless_that_was_asked_for() {
    // It takes connections and never answers.
    let (silent, _arrivals) = played().await;
    let garbage = backend(|mut client| async move {
        client.request().await;
        client.send("\0\0garbage\r\n\r\n").await;
    });
    let long = backend(|mut client| async move {
        client.request().await;
        let line = format!("X-User: {}\r\n", "x".repeat(1000));
        let _ = client.send_all(format!("HTTP/1.1 200 OK\r\n{}\r\n", line.repeat(1000))).await;
    });
    let closing = backend(|mut client| async move {
        client.request().await;
    });
    let short = |external: &mut ExternalAuth| external.timeout = Duration::from_millis(50);
    let long_enough = |_: &mut ExternalAuth| {};
    type Change = fn(&mut ExternalAuth);
    for (auth, cause, time) in [
        (vec![silent], "silent", short as Change),
        (vec![refusing()], "refusing", long_enough),
        (vec![], "nobody", long_enough),
        (vec![garbage.await], "garbage", long_enough),
        (vec![long.await], "a head without end", long_enough),
        (vec![closing.await], "closing", long_enough),
    ] {
        let shut = plane(asking("/", time), auth.clone()).await;
        let answer = ask(&shut, "").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{cause}: {answer}");
        assert!(answer.contains("\r\nx-floodway-reason: auth_unavailable\r\n"), "{cause}: {answer}");
        let open = |external: &mut ExternalAuth| {
            time(external);
            external.pass_on_failure = true;
        };
        let open = plane(asking("/", open), auth).await;
        let seen = ask(&open, "X-User: root\r\n").await;
        assert!(seen.starts_with("HTTP/1.1 200 ") && !seen.contains("root"), "{cause}: {seen}");
        // Whoever says that it is a question about a question does not pass, whatever happens to others.
        let answer = ask(&open, "X-Floodway-Asks: 4\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("auth_unavailable"), "{cause}: {answer}");
    }
}

#[tokio::test]
async fn content_without_end_holds_nobody_up() {
    let endless = backend(|mut client| async move {
        client.request().await;
        let head = "HTTP/1.1 200 OK\r\nX-User: ada\r\nTransfer-Encoding: chunked\r\n\r\n";
        let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        let _ = client.send_all(head.to_owned()).await;
        while client.send_all(piece.clone()).await.is_ok() {}
    });
    let plane = plane(asking("/", |_| {}), vec![endless.await]).await;
    let seen = ask(&plane, "").await;
    assert!(seen.starts_with("HTTP/1.1 200 ") && seen.contains("\r\nx-user: ada\r\n"), "{seen}");
}

#[tokio::test]
async fn another_endpoint_is_asked_if_one_cannot_be_reached() {
    let (address, _asked) = service().await;
    let plane = plane(asking("/", |_| {}), vec![refusing(), address]).await;
    for _ in 0..4 {
        assert!(ask(&plane, "Cookie: in\r\n").await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn streams_and_uploads_are_asked_about_before_anything_of_them_goes_on() {
    let (auth, mut questions) = played().await;
    let (endpoint, mut arrivals) = played().await;
    let plane = plane_of(asking("/", |_| {}), Protocol::Http1, &[auth], endpoint);
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut kept = None;
    for (request, what) in [
        (format!("GET /socket HTTP/1.1\r\nHost: a\r\n{websocket}\r\n"), "upgrade: websocket"),
        (
            "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n".to_owned(),
            "accept: text/event-stream",
        ),
        ("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(), "content-length: 5"),
    ] {
        let mut client = plane.connect().await;
        client.send(&request).await;
        let (mut service, question) = questions.request_on(kept.take()).await;
        let question = question.to_lowercase();
        assert!(!question.contains("upgrade") && !question.contains("content-length"), "{question}");
        service.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-User: ada\r\n\r\n").await;
        kept = Some(service);
        // Had it come before, its head would not have this.
        let (_endpoint, head) = arrivals.request().await;
        let head = head.to_lowercase();
        assert!(head.contains("x-user: ada\r\n") && head.contains(what), "{head}");
    }
}

#[tokio::test]
async fn whoever_leaves_is_not_asked_about_any_longer() {
    let (auth, mut questions) = played().await;
    let plane = plane(asking("/", |_| {}), vec![auth]).await;
    let mut client = plane.connect().await;
    client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut service, _) = questions.request().await;
    drop(client);
    service.closed().await;
    assert_eq!(plane.logged("/gone").await["reason"], "client_gone");
}

#[tokio::test]
async fn a_service_that_speaks_http2_is_asked_in_that() {
    let auth = http2_backend(|request, mut answer| async move {
        let asked = request.headers().get("x-forwarded-uri").is_some_and(|uri| uri == "/a%20b?q=1");
        let status = if asked && request.uri().path() == "/verify" { 200 } else { 403 };
        let told = http::Response::builder().status(status).header("x-user", "ada").body(()).unwrap();
        let _ = answer.send_response(told, true);
    });
    let plane = plane_of(asking("/verify", |_| {}), Protocol::Http2, &[auth.await], mirror().await);
    for _ in 0..2 {
        let seen = ask(&plane, "").await;
        assert!(seen.starts_with("HTTP/1.1 200 ") && seen.contains("\r\nx-user: ada\r\n"), "{seen}");
    }
}

#[tokio::test]
async fn a_service_that_fails_is_left_alone_by_its_breaker() {
    let (sender, mut asked) = tokio::sync::mpsc::channel(64);
    let failing = backend(move |mut client| {
        let sender = sender.clone();
        async move {
            while let Some(head) = client.request().await {
                let _ = sender.try_send(head);
                client.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    });
    let circuit_breaker = Some(breaker(BreakerMode::Automatic, 4, Duration::from_secs(600)));
    let auth = Cluster {
        resilience: Arc::new(Resilience { circuit_breaker, ..Resilience::default() }),
        ..cluster("auth", Protocol::Http1, &[failing.await])
    };
    let routes = vec![under(asking("/", |_| {}), forward("", "backend"))];
    // One worker, so that nobody asks meanwhile.
    let clusters = vec![cluster("backend", Protocol::Http1, &[mirror().await]), auth];
    let plane = Plane::with_workers(1, snapshot(routes, clusters), |_| {});
    for _ in 0..8 {
        assert!(ask(&plane, "").await.starts_with("HTTP/1.1 503 "));
    }
    let mut questions = 0;
    while asked.try_recv().is_ok() {
        questions += 1;
    }
    assert_eq!(questions, 4);
}
