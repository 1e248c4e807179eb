//! One side leaves: the other learns of it at once, and the log says who it was.

use std::time::Duration;

use bytes::Bytes;
use floodway::snapshot::{Action, Protocol, Snapshot};
use h2::Reason;

use super::clients::*;
use super::endpoints::{nothing_is_left, unreachable};
use super::support::*;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const HELLO: &str = "5\r\nhello\r\n";

fn to_http2(endpoint: std::net::SocketAddr) -> Snapshot {
    snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http2, &[endpoint])])
}

fn says(line: &serde_json::Value, status: u64, end: &str, reason: Option<&str>) {
    let reason = reason.map_or(serde_json::Value::Null, serde_json::Value::from);
    assert_eq!((&line["status"], &line["end"], &line["reason"]), (&status.into(), &end.into(), &reason), "{line}");
}

/// The connection, and with it every other stream on it, still carries requests.
async fn goes_on(client: &mut h2::client::SendRequest<Bytes>, arrivals: &mut Arrivals) {
    let (answer, _) = client.send_request(get("/more"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within(answer).await.unwrap().status(), 204);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_exchange() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    for (path, reset) in [("/fin", false), ("/rst", true)] {
        let mut client = plane.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let (mut endpoint, _) = arrivals.request().await;
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        endpoint.closed().await;
        says(&plane.logged(path).await, 499, "client_gone", Some("client_gone"));
    }
    let mut client = http2(plane.address).await;
    let (answer, mut stream) = client.send_request(get("/cancelled"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    stream.send_reset(Reason::CANCEL);
    assert!(within(answer).await.is_err());
    endpoint.closed().await;
    says(&plane.logged("/cancelled").await, 499, "client_gone", Some("client_gone"));
    goes_on(&mut client, &mut arrivals).await;
    drop((client, stream));
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn a_client_that_leaves_during_its_upload_ends_the_exchange() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    for (path, reset) in [("/fin", false), ("/rst", true)] {
        let mut client = plane.connect().await;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello")).await;
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.until("hello").await;
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        endpoint.closed().await;
        let line = plane.logged(path).await;
        assert_eq!(line["bytes_received"], 5, "{line}");
        if reset {
            says(&line, 499, "client_gone", Some("client_gone"));
        } else {
            // It may still be reading.
            says(&line, 400, "answered", Some("body_incomplete"));
        }
    }
    let mut client = http2(plane.address).await;
    let (answer, mut stream) = client.send_request(post("/cancelled"), false).unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.until("hello").await;
    stream.send_reset(Reason::CANCEL);
    // The content must not look complete to the endpoint.
    assert_eq!(endpoint.to_end().await.trim(), "");
    says(&plane.logged("/cancelled").await, 499, "client_gone", Some("client_gone"));
    drop((client, answer, stream));
    nothing_is_left(&plane).await;
}

/// An endpoint that does not read holds the upload up, so that nobody reads from the client, whose leaving stands behind
/// what it sent.
#[tokio::test]
async fn a_client_that_leaves_while_its_upload_is_held_up_ends_the_exchange() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let mut client = plane.connect().await;
    client.send("POST /full HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await;
    let endpoint = arrivals.next().await;
    assert!(fill(&mut client).await < 1_000_000_000);
    client.reset();
    says(&plane.logged("/full").await, 499, "client_gone", Some("client_gone"));
    drop(endpoint);

    // During the answer, too.
    let mut client = plane.connect().await;
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("{CHUNKED}{HELLO}")).await;
    client.until(HELLO).await;
    fill(&mut client).await;
    client.reset();
    let line = plane.logged("/early").await;
    assert_eq!((&line["status"], &line["end"]), (&200.into(), &"client_gone".into()), "{line}");
    drop(endpoint);

    // And with nothing but a FIN, while there is no endpoint yet that could take the content.
    for (path, framing) in [("/length", "Content-Length: 100"), ("/chunked", "Transfer-Encoding: chunked")] {
        let (unreachable, _held) = unreachable().await;
        let plane = Plane::start(to(unreachable));
        let mut client = plane.connect().await;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhel")).await;
        drop(client);
        says(&plane.logged(path).await, 499, "client_gone", Some("client_gone"));
        nothing_is_left(&plane).await;
    }
    nothing_is_left(&plane).await;
}

/// And at once: a client's leaving is an event, not something that a timer finds.
#[tokio::test]
async fn leaving_takes_milliseconds() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    for (reset, streams) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut took = Vec::new();
        for _ in 0..9 {
            let mut client = plane.connect().await;
            client.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let (mut endpoint, _) = arrivals.request().await;
            if streams {
                endpoint.send(format!("{CHUNKED}{HELLO}")).await;
                client.until(HELLO).await;
            }
            let left = tokio::time::Instant::now();
            if reset {
                client.reset()
            } else {
                drop(client)
            }
            endpoint.closed().await;
            took.push(left.elapsed());
        }
        for _ in 0..9 {
            let mut client = http2(plane.address).await;
            let (answer, mut stream) = client.send_request(get("/quick"), true).unwrap();
            let (mut endpoint, _) = arrivals.request().await;
            let body = if streams {
                endpoint.send(format!("{CHUNKED}{HELLO}")).await;
                let mut body = within(answer).await.unwrap().into_body();
                piece(&mut body).await.unwrap().unwrap();
                Ok(body)
            } else {
                Err(answer)
            };
            let left = tokio::time::Instant::now();
            if reset {
                stream.send_reset(Reason::CANCEL);
            } else {
                drop((client, stream, body));
            }
            endpoint.closed().await;
            took.push(left.elapsed());
        }
        took.sort_unstable();
        // Some may wait for their turn on a busy machine.
        assert!(took[took.len() / 2] < Duration::from_millis(20), "reset: {reset}, streams: {streams}: {took:?}");
    }
    // No endpoint is to blame.
    plane.metric_becomes("floodway_exchanges_ended_total", "end=\"client_gone\"", 72.0).await;
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn a_client_that_leaves_during_the_answer_ends_the_exchange() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    for (path, reset) in [("/fin", false), ("/rst", true)] {
        let mut client = plane.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(format!("{CHUNKED}{HELLO}")).await;
        client.until(HELLO).await;
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        endpoint.closed().await;
        let line = plane.logged(path).await;
        assert_eq!((&line["status"], &line["end"]), (&200.into(), &"client_gone".into()), "{line}");
    }
    for path in ["/cancelled", "/lost"] {
        let mut client = http2(plane.address).await;
        let (answer, mut stream) = client.send_request(get(path), true).unwrap();
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(format!("{CHUNKED}{HELLO}")).await;
        let mut body = within(answer).await.unwrap().into_body();
        assert_eq!(piece(&mut body).await.unwrap().unwrap(), "hello");
        if path == "/cancelled" {
            stream.send_reset(Reason::CANCEL);
            endpoint.closed().await;
        }
        drop((client, stream, body));
        endpoint.closed().await;
        let line = plane.logged(path).await;
        assert_eq!((&line["status"], &line["end"]), (&200.into(), &"client_gone".into()), "{line}");
    }
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn leaving_reaches_an_http2_endpoint_as_a_reset_of_its_stream() {
    let (sender, mut resets) = tokio::sync::mpsc::channel(10);
    let address = http2_backend(move |request, mut answer| {
        let sender = sender.clone();
        async move {
            let mut stream = if request.uri().path() == "/silent" {
                let reset = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
                return sender.send(reset.unwrap()).await.unwrap();
            } else {
                answer.send_response(http::Response::new(()), false).unwrap()
            };
            stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
            let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            sender.send(reset.unwrap()).await.unwrap();
        }
    })
    .await;
    let plane = Plane::start(to_http2(address));
    let mut client = plane.connect().await;
    client.send("GET /streams HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.until(HELLO).await;
    drop(client);
    assert_eq!(within(resets.recv()).await.unwrap(), Reason::CANCEL);
    plane.metric_becomes("floodway_upstream_connects_total", "success", 1.0).await;

    let mut client = http2(plane.address).await;
    let (_answer, mut stream) = client.send_request(get("/silent"), true).unwrap();
    plane.metric_becomes("floodway_connections_total", "", 2.0).await;
    // It is on its way once the endpoint has answered a request after it.
    let other = ask(&client, get("/streams")).await;
    stream.send_reset(Reason::CANCEL);
    assert_eq!(within(resets.recv()).await.unwrap(), Reason::CANCEL);
    drop(other);
    says(&plane.logged("/silent").await, 499, "client_gone", Some("client_gone"));
}

#[tokio::test]
async fn an_endpoint_that_dies_during_its_answer_cuts_the_client() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(to(address));
    let heads = [
        ("/chunked", CHUNKED, "5\r\nhello\r\n"),
        (
            "/events",
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            "5\r\nhello\r\n",
        ),
        ("/length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "hello"),
    ];
    for (path, head, piece) in heads {
        for version in ["1.1", "1.0"] {
            let mut client = plane.connect().await;
            client.send(format!("GET {path}{version} HTTP/{version}\r\nHost: a\r\n\r\n")).await;
            let (mut endpoint, _) = arrivals.request().await;
            endpoint.send(format!("{head}{piece}")).await;
            client.until("hello").await;
            drop(endpoint);
            let path = format!("{path}{version}");
            if matches!(&*path, "/chunked1.0" | "/events1.0") {
                assert!(client.closed().await, "a close alone would look like the end");
            } else {
                assert_eq!(client.to_end().await.trim(), "", "no last chunk");
            }
            says(&plane.logged(&path).await, 200, "upstream_cut", Some("upstream_cut"));
        }
        let path = format!("{path}2");
        let mut client = http2(plane.address).await;
        let (answer, _) = client.send_request(get(&path), true).unwrap();
        let (mut endpoint, _) = arrivals.request().await;
        endpoint.send(format!("{head}{piece}")).await;
        let mut body = within(answer).await.unwrap().into_body();
        assert_eq!(self::piece(&mut body).await.unwrap().unwrap(), "hello");
        endpoint.reset();
        let error = self::piece(&mut body).await.unwrap().unwrap_err();
        assert!(error.is_reset(), "the stream is cut, the connection is not: {error}");
        says(&plane.logged(&path).await, 200, "upstream_cut", Some("upstream_cut"));
        let (_answer, _) = client.send_request(get("/more"), true).unwrap();
        arrivals.request().await;
    }
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn an_http2_endpoint_that_resets_its_stream_cuts_the_client() {
    let address = http2_backend(|_, mut answer| async move {
        let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
        // Once it was taken, so that the reset does not overtake it.
        tokio::task::yield_now().await;
        std::future::poll_fn(|cx| {
            stream.reserve_capacity(1);
            stream.poll_capacity(cx)
        })
        .await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let plane = Plane::start(to_http2(address));
    let mut client = plane.connect().await;
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.to_end().await;
    if answer.starts_with("HTTP/1.1 200") {
        assert!(!answer.ends_with("0\r\n\r\n"), "no last chunk: {answer}");
        says(&plane.logged("/cut").await, 200, "upstream_cut", Some("upstream_cut"));
    } else {
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
}

#[tokio::test]
async fn an_http2_client_that_does_not_take_the_last_words_is_cut_and_its_connection_closed() {
    let (address, mut arrivals) = played().await;
    let short = Duration::from_millis(300);
    let mut route = forward("", "backend");
    let Action::Forward(action) = &mut route.action else { unreachable!() };
    action.timeouts.stall = short;
    let table = snapshot(vec![route], vec![cluster("backend", Protocol::Http1, &[address])]);
    let plane = Plane::with(table, |settings| settings.limits.keep_alive_idle = short);
    let mut client = http2(plane.address).await;
    // A little more than the window of 65,535 bytes: the rest waits in the proxy, and the exchange is not over.
    let (answer, _) = client.send_request(get("/"), true).unwrap();
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 65600\r\n\r\n{}", "x".repeat(65_600))).await;
    let _untaken = within(answer).await.unwrap();
    plane.metric_becomes("floodway_connections_open", "", 0.0).await;
    let line = plane.logged("/").await;
    assert_eq!((&line["end"], &line["bytes_sent"]), (&"stalled".into(), &65_535.into()), "{line}");
}
