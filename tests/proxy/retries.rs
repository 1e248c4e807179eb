//! Requests that are sent again because their route asks for it: when, how often, with what, and what clients see of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use floodway::snapshot::{Action, Backoff, Cluster, Protocol, Retry, RetryBudget, RetryOn, Snapshot};

use super::endpoints::{Message, Then, message, nothing_is_left, saying};
use super::support::*;
use super::websocket::UPGRADE;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

/// After everything, at once, up to three times.
pub fn eager() -> Retry {
    Retry {
        attempts: 3,
        on: RetryOn {
            connect_failure: true,
            reset: true,
            refused_stream: true,
            timeout: true,
            statuses: [(500, 599)].into(),
            grpc: 1 << 14,
        },
        any_method: false,
        per_try_timeout: None,
        backoff: Backoff { base: Duration::from_millis(1), factor_percent: 200, max: Duration::from_millis(5) },
        max_retry_after: Duration::from_secs(1),
        body_bytes: 64 * 1024,
        hold_bytes: 0,
        hedge: None,
    }
}

/// A snapshot that sends everything to `endpoints`, and again as `retry` says.
pub fn retrying(endpoints: &[SocketAddr], retry: Retry) -> Snapshot {
    retrying_by(cluster("backend", Protocol::Http1, endpoints), retry)
}

pub fn retrying_by(cluster: Cluster, retry: Retry) -> Snapshot {
    let mut route = forward("", "backend");
    let Action::Forward(forward) = &mut route.action else { unreachable!() };
    forward.retry = Some(Arc::new(retry));
    snapshot(vec![route], vec![cluster])
}

/// An endpoint that answers with what `say` makes of the number of the message and of the message itself, and how many came.
async fn answering(say: impl Fn(usize, &str) -> String + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let (say, count) = (Arc::new(say), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    let address = backend(move |mut client| {
        let (say, count) = (Arc::clone(&say), Arc::clone(&counted));
        async move {
            while let Some(Message::Whole(message)) = message(&mut client).await {
                let number = count.fetch_add(1, Ordering::Relaxed);
                client.send(say(number, &message)).await;
            }
        }
    });
    (address.await, count)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.split_once(": ").filter(|(field, _)| field.eq_ignore_ascii_case(name)))
        .map(|(_, value)| value)
}

#[tokio::test]
async fn what_a_route_names_is_asked_of_other_endpoints_until_one_serves_it() {
    let garbage = saying("SSH-2.0-OpenSSH\r\n\r\n", Then::Closes).await;
    let resets = saying("", Then::Resets).await;
    let (busy, _) = answering(|_, _| BUSY.to_owned()).await;
    let (good, _) =
        answering(|_, message| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{message}", message.len())).await;
    let plane = Plane::start(retrying(&[garbage, resets, busy, good], Retry { attempts: 4, ..eager() }));
    let mut most = 0;
    for call in 0..1000 {
        let path = format!("/{call}");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nx-floodway-attempts: 7\r\nX_Floodway_Attempts: 8\r\nConnection: close\r\n\r\n"
        );
        let answer = plane.exchange(request).await;
        assert_eq!(status(&answer), "200", "{answer}");
        let line = plane.logged(&path).await;
        let attempts = line["attempts"].as_u64().unwrap();
        let (head, seen) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(field(head, "x-floodway-attempts"), Some(&*attempts.to_string()), "{answer}");
        let told = (attempts > 1).then(|| attempts.to_string());
        assert_eq!(field(seen, "x-floodway-attempts"), told.as_deref(), "{answer}");
        assert_eq!(seen.to_ascii_lowercase().matches("attempts").count(), usize::from(attempts > 1), "{seen}");
        most = most.max(attempts);
        let counted = |labels| plane.metric("floodway_upstream_retries_total", labels) > 0.0;
        let all = counted("outcome=\"answered\",reason=\"reset\"") && counted("outcome=\"failed\",reason=\"status\"");
        if most == 4 && all {
            assert!(!counted("reason=\"timeout\""));
            return nothing_is_left(&plane).await;
        }
    }
    panic!("the good endpoint is never asked last");
}

#[tokio::test]
async fn three_attempts_are_three_calls_and_the_last_answer_is_the_clients() {
    let (busy, count) = answering(|_, _| BUSY.to_owned()).await;
    let plane = Plane::start(retrying(&[busy], eager()));
    let answer = plane.exchange(get("/busy")).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && answer.ends_with("busy"), "{answer}");
    assert_eq!(field(&answer, "x-floodway-attempts"), Some("3"));
    assert_eq!(count.load(Ordering::Relaxed), 3);
    assert_eq!(plane.metric("floodway_upstream_retries_total", "outcome=\"answered\",reason=\"status\""), 1.0);
    assert_eq!(plane.metric("floodway_upstream_retries_total", "outcome=\"failed\",reason=\"status\""), 1.0);
    assert_eq!(
        plane.metric("floodway_upstream_connects_total", ""),
        1.0,
        "what is read of an answer frees its connection"
    );

    let resets = saying("", Then::Resets).await;
    let plane = Plane::start(retrying(&[resets], eager()));
    let answer = plane.exchange(get("/resets")).await;
    assert_eq!((status(&answer), field(&answer, "x-floodway-attempts")), ("502", Some("3")), "{answer}");
    assert_eq!(plane.logged("/resets").await["reason"], "upstream_reset");
}

#[tokio::test]
async fn an_upstream_says_it_for_routes_that_do_not() {
    let (busy, count) = answering(|_, _| BUSY.to_owned()).await;
    let mut cluster = cluster("backend", Protocol::Http1, &[busy]);
    Arc::make_mut(&mut cluster.resilience).retry = Some(Arc::new(eager()));
    let plane = Plane::start(snapshot(vec![forward("", "backend")], vec![cluster.clone()]));
    let answer = plane.exchange(get("/busy")).await;
    assert_eq!((status(&answer), field(&answer, "x-floodway-attempts")), ("503", Some("3")), "{answer}");
    assert_eq!(count.load(Ordering::Relaxed), 3);

    plane.publisher.publish(retrying_by(cluster, Retry { attempts: 2, ..eager() }));
    let answer = plane.exchange(get("/busy")).await;
    assert_eq!(field(&answer, "x-floodway-attempts"), Some("2"), "{answer}");
    assert_eq!(count.load(Ordering::Relaxed), 3 + 2, "what a rule says counts for the whole of it");
}

/// nginx, `proxy_next_upstream`: what is not named is the client's.
#[tokio::test]
async fn what_is_not_named_is_not_repeated() {
    for (code, on, calls) in [
        (404, RetryOn { statuses: [(500, 599)].into(), ..RetryOn::default() }, 1),
        (500, RetryOn { statuses: [(503, 503)].into(), ..RetryOn::default() }, 1),
        (404, RetryOn { statuses: [(503, 503), (404, 404)].into(), ..RetryOn::default() }, 3),
        (503, RetryOn { reset: true, ..RetryOn::default() }, 1),
    ] {
        let (endpoint, count) = answering(move |_, _| format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n")).await;
        let plane = Plane::start(retrying(&[endpoint], Retry { on, ..eager() }));
        assert_eq!(status(&plane.exchange(get("/")).await), code.to_string());
        assert_eq!(count.load(Ordering::Relaxed), calls, "{code}");
    }
}

#[tokio::test]
async fn content_is_sent_again_if_the_method_and_its_size_allow_it() {
    for (method, any_method, size, calls) in [
        ("PUT", false, 1000, 2),
        ("DELETE", false, 0, 2),
        ("POST", false, 1000, 1),
        ("POST", false, 0, 1),
        ("PATCH", true, 1000, 2),
        ("PUT", false, 100_000, 1),
    ] {
        let busy_once = |number, message: &str| match number {
            0 => BUSY.to_owned(),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{message}", message.len()),
        };
        let (endpoint, count) = answering(busy_once).await;
        let plane = Plane::start(retrying(&[endpoint], Retry { any_method, ..eager() }));
        let content = "x".repeat(size);
        let request =
            format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n{content}");
        let answer = plane.exchange(request).await;
        assert_eq!(count.load(Ordering::Relaxed), calls, "{method} of {size}: {answer}");
        assert_eq!(status(&answer), if calls == 2 { "200" } else { "503" }, "{method} of {size}");
        assert!(calls == 1 || answer.ends_with(&format!("\r\n\r\n{content}")), "{answer}");
        assert_eq!(plane.logged("/").await["bytes_received"], size, "what is sent again came once");
    }
}

#[tokio::test]
async fn content_that_is_still_coming_goes_on_to_the_next_endpoint() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(retrying(&[address], eager()));
    let mut client = plane.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    let (mut first, _) = arrivals.request().await;
    first.until("5\r\nhello\r\n").await;
    first.send(BUSY).await;
    let (mut second, head) = arrivals.request().await;
    assert_eq!(field(&head, "x-floodway-attempts"), Some("2"));
    second.until("5\r\nhello\r\n").await;
    let rest = first.to_end().await;
    assert_eq!(rest, "", "the first one gets no more, and no end");
    client.send("5\r\nagain\r\n0\r\n\r\n").await;
    second.until("5\r\nagain\r\n0\r\n\r\n").await;
    second.send(OK).await;
    assert!(client.until("ok").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_given_up_for_another() {
    let hangs = saying("", Then::Stays).await;
    let slow = saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Then::Stays).await;
    let (good, _) = answering(|_, _| OK.to_owned()).await;
    let limit = Some(Duration::from_millis(100));
    let retry = Retry { per_try_timeout: limit, hold_bytes: 1000, ..eager() };
    let plane = Plane::start(retrying(&[hangs, slow, good], retry.clone()));
    let mut most = 0;
    for call in 0..100 {
        let answer = plane.exchange(get(&format!("/{call}"))).await;
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        most = most.max(plane.logged(&format!("/{call}")).await["attempts"].as_u64().unwrap());
        if most == 3 {
            break;
        }
    }
    assert_eq!(most, 3);
    assert!(plane.metric("floodway_upstream_retries_total", "reason=\"timeout\"") > 0.0);

    let plane = Plane::start(retrying(&[hangs], retry));
    let answer = plane.exchange(get("/hangs")).await;
    assert_eq!((status(&answer), field(&answer, "x-floodway-reason")), ("504", Some("try_timeout")), "{answer}");
    assert_eq!(plane.logged("/hangs").await["attempts"], 3);
}

#[tokio::test]
async fn an_endpoint_that_wants_to_be_left_alone_is() {
    let busy = |after: &str| BUSY.replace("\r\n\r\n", &format!("\r\nRetry-After: {after}\r\n\r\n"));
    let (patient, count) = answering({
        let busy = busy("5");
        move |_, _| busy.clone()
    })
    .await;
    let plane = Plane::start(retrying(&[patient], eager()));
    let answer = plane.exchange(get("/")).await;
    assert_eq!((status(&answer), field(&answer, "retry-after")), ("503", Some("5")), "{answer}");
    assert_eq!(count.load(Ordering::Relaxed), 1, "longer than is waited for");

    let (good, _) = answering(|_, _| OK.to_owned()).await;
    let plane = Plane::start(retrying(&[patient, good], eager()));
    while count.load(Ordering::Relaxed) < 2 {
        assert_eq!(status(&plane.exchange(get("/")).await), "200", "others are asked meanwhile");
    }

    let asked = tokio::time::Instant::now();
    let (soon, _) = answering(move |number, _| if number == 0 { busy("1") } else { OK.to_owned() }).await;
    let plane = Plane::start(retrying(&[soon], eager()));
    assert_eq!(status(&plane.exchange(get("/")).await), "200");
    assert!(asked.elapsed() >= Duration::from_secs(1), "it was left alone for as long as it asked");
}

#[tokio::test]
async fn an_upstream_bears_no_more_retries_than_its_budget() {
    let (busy, count) = answering(|_, _| BUSY.to_owned()).await;
    let mut cluster = cluster("backend", Protocol::Http1, &[busy]);
    let budget = Some(RetryBudget { percent: 0, min_concurrent: 0 });
    Arc::make_mut(&mut cluster.resilience).retry_budget = budget;
    let plane = Plane::start(retrying_by(cluster, eager()));
    let answer = plane.exchange(get("/")).await;
    assert!(status(&answer) == "503" && answer.ends_with("busy"), "{answer}");
    assert_eq!(count.load(Ordering::Relaxed), 1);
    assert_eq!(plane.metric("floodway_upstream_retries_total", "outcome=\"over_budget\""), 1.0);
}

#[tokio::test]
async fn a_handshake_of_a_websocket_is_made_again() {
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (endpoint, count) =
        answering(move |number, _| if number == 0 { BUSY.to_owned() } else { switched.to_owned() }).await;
    let plane = Plane::start(retrying(&[endpoint], eager()));
    let mut client = plane.connect().await;
    client.send(format!("GET /socket HTTP/1.1\r\n{UPGRADE}\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_answer_that_is_held_until_it_is_whole_is_never_seen_cut() {
    let cuts = saying("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Then::Closes).await;
    let (good, count) = answering(|_, _| OK.to_owned()).await;
    let plane = Plane::start(retrying(&[cuts, good], Retry { hold_bytes: 10, ..eager() }));
    while plane.metric("floodway_upstream_retries_total", "outcome=\"answered\",reason=\"reset\"") == 0.0 {
        let answer = plane.exchange(get("/")).await;
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        assert!(count.load(Ordering::Relaxed) < 1000, "the other is never asked");
    }
    let plane = Plane::start(retrying(&[cuts], Retry { hold_bytes: 9, ..eager() }));
    let answer = plane.exchange(get("/")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("half"), "longer ones pass: {answer}");
}

#[tokio::test]
async fn as_many_endpoints_are_tried_as_there_are_attempts() {
    let (good, _) = answering(|_, _| OK.to_owned()).await;
    let mut endpoints = vec![good];
    for _ in 0..7 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        endpoints.push(listener.local_addr().unwrap());
    }
    let plane = Plane::start(retrying(&endpoints, Retry { attempts: 8, ..eager() }));
    for _ in 0..50 {
        // A connection of its own each time: those that are kept would hide who refuses.
        let answer = plane.exchange(get("/")).await;
        assert_eq!(status(&answer), "200", "{answer}");
    }
}

#[tokio::test]
async fn the_only_endpoint_is_asked_again_until_it_is_back() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let backoff = Backoff { base: Duration::from_millis(500), factor_percent: 101, max: Duration::from_secs(1) };
    let plane = Plane::start(retrying(&[address], Retry { attempts: 10, backoff, ..eager() }));
    let mut client = plane.connect().await;
    client.send(get("/")).await;
    plane.metric_becomes("floodway_upstream_connects_total", "result=\"failure\"", 1.0).await;
    let back = tokio::net::TcpListener::bind(address).await.unwrap();
    let mut endpoint = Raw(within(back.accept()).await.unwrap().0);
    endpoint.head().await;
    endpoint.send(OK).await;
    assert!(client.until("ok").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn a_client_that_leaves_while_nobody_is_asked_ends_its_request() {
    let (busy, count) = answering(|_, _| BUSY.to_owned()).await;
    let backoff = Backoff { base: Duration::from_secs(60), factor_percent: 200, max: Duration::from_secs(60) };
    let plane = Plane::start(retrying(&[busy], Retry { backoff, ..eager() }));
    let mut client = plane.connect().await;
    client.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("an attempt", || count.load(Ordering::Relaxed) == 1).await;
    client.reset();
    assert_eq!(plane.logged("/left").await["end"], "client_gone");
    assert_eq!(plane.metric("floodway_upstream_retries_total", "outcome=\"abandoned\",reason=\"status\""), 1.0);
    nothing_is_left(&plane).await;
}
