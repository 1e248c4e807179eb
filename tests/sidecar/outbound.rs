//! What ProxyUpstreams do for what the app asks of others: sick endpoints are left out, breakers open and close, requests go to the
//! next endpoint, new ones are eased in; and streams pass, however they came to the sidecar.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Backend, MODES, Pod, eventually, get, service, service_at};

/// The answer to a request of its own connection.
async fn ask(pod: &Pod, mode: &str) -> (u16, String) {
    get(pod.to_service(mode).await, "/", "llm", "").await
}

/// How many of `count` requests each of two endpoints answers. Nobody else answers any.
async fn shares(pod: &Pod, mode: &str, count: usize) -> (usize, usize) {
    let mut shares = (0, 0);
    for _ in 0..count {
        match ask(pod, mode).await {
            (200, body) if body.starts_with("one\n") => shares.0 += 1,
            (200, body) if body.starts_with("two\n") => shares.1 += 1,
            other => panic!("{other:?}"),
        }
    }
    shares
}

/// How many endpoints of the one upstream may get requests.
async fn available(pod: &Pod) -> u64 {
    let (_, shown) = pod.admin("/upstreams").await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let service = shown["upstreams"].as_array().unwrap().iter().find(|upstream| upstream["name"] == "shop/llm:80");
    service.map_or(0, |upstream| upstream["available"].as_u64().unwrap())
}

#[tokio::test]
async fn who_fails_its_checks_is_left_out_until_it_passes_them() {
    for mode in MODES {
        let (one, two) = (Backend::start("one").await, Backend::start("two").await);
        let upstream = "  loadBalancing: {algorithm: RoundRobin}\n\
                        \x20 healthCheck: {active: {http: {path: /healthz}, interval: 100ms, timeout: 10s, unhealthyThreshold: 1, healthyThreshold: 1}}\n";
        let pod = Pod::start(&service("llm", &[&one, &two], upstream), &[mode]).await;
        eventually("both are asked", async || {
            one.requests.load(Ordering::Relaxed) > 0 && two.requests.load(Ordering::Relaxed) > 0
        })
        .await;
        assert_eq!(shares(&pod, mode, 6).await, (3, 3));
        one.sick.store(true, Ordering::Relaxed);
        eventually("one is left out", async || available(&pod).await == 1).await;
        assert_eq!(shares(&pod, mode, 6).await, (0, 6));
        one.sick.store(false, Ordering::Relaxed);
        eventually("it is back", async || available(&pod).await == 2).await;
        assert_eq!(shares(&pod, mode, 6).await, (3, 3));
        assert!(pod.metric("floodway_health_checks_total", &["outbound"]).await > 0.0);
    }
}

#[tokio::test]
async fn who_fails_too_often_is_left_out() {
    for mode in MODES {
        let (one, two) = (Backend::start("one").await, Backend::start("two").await);
        let upstream = "  loadBalancing: {algorithm: RoundRobin}\n\
                        \x20 healthCheck: {passive: {consecutiveFailures: 2, baseEjection: 1h, maxEjectedPercent: 50}}\n";
        let pod = Pod::start(&service("llm", &[&one, &two], upstream), &[mode]).await;
        one.sick.store(true, Ordering::Relaxed);
        let mut failed = 0;
        eventually("it is ejected", async || {
            failed += usize::from(ask(&pod, mode).await.0 == 503);
            available(&pod).await == 1
        })
        .await;
        assert_eq!(failed, 2);
        assert_eq!(shares(&pod, mode, 6).await, (0, 6));
        assert_eq!(one.requests.load(Ordering::Relaxed), 2);
        pod.metric_becomes("floodway_upstream_changes_total", &["outbound", "to=\"ejected\""], 1.0).await;
    }
}

#[tokio::test]
async fn a_breaker_opens_and_closes() {
    for mode in MODES {
        let one = Backend::start("one").await;
        let upstream = "  circuitBreaker: {failureRatePercent: 50, minimumCalls: 4, window: {calls: 4}, waitInOpen: 100ms,\n\
                        \x20   permittedInHalfOpen: 1}\n";
        let pod = Pod::start(&service("llm", &[&one], upstream), &[mode]).await;
        one.sick.store(true, Ordering::Relaxed);
        eventually("it opens", async || {
            let (status, body) = ask(&pod, mode).await;
            assert_eq!(status, 503);
            // Nobody but the sidecar says this.
            !body.starts_with("one\n")
        })
        .await;
        assert!(pod.metric("floodway_breaker_not_permitted_total", &["outbound"]).await >= 1.0);
        // The first that it lets through fails, and opens it again.
        let before = one.requests.load(Ordering::Relaxed);
        eventually("it tries", async || {
            ask(&pod, mode).await;
            one.requests.load(Ordering::Relaxed) > before
        })
        .await;
        one.sick.store(false, Ordering::Relaxed);
        eventually("it closes", async || ask(&pod, mode).await.0 == 200).await;
        for _ in 0..8 {
            assert_eq!(ask(&pod, mode).await.0, 200);
        }
    }
}

#[tokio::test]
async fn a_request_goes_to_the_next_endpoint_if_nothing_was_made_of_it() {
    // It answers the first request of each connection, and closes when the next one comes.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, closed) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&closed);
    tokio::spawn(async move {
        let head = async |stream: &mut TcpStream| {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.ok()?);
            }
            Some(())
        };
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                head(&mut stream).await?;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\none\n").await.ok()?;
                head(&mut stream).await?;
                counted.fetch_add(1, Ordering::Relaxed);
                Some(())
            });
        }
    });
    // Bound and not listened on: connections there are refused.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refusing = nobody.local_addr().unwrap().port();
    for mode in MODES {
        let two = Backend::start("two").await;
        let upstream = "  loadBalancing: {algorithm: RoundRobin}\n";
        let objects = service_at("llm", &[port, refusing, two.port()], upstream);
        let pod = Pod::start(&objects, &[mode]).await;
        let before = closed.load(Ordering::Relaxed);
        let (from_one, from_two) = shares(&pod, mode, 30).await;
        assert!(from_one > 0 && from_two > 0, "{from_one} {from_two}");
        assert!(closed.load(Ordering::Relaxed) > before, "a kept connection was closed");
        assert!(pod.metric("floodway_upstream_connects_total", &["outbound", "failure"]).await >= 1.0);
    }
}

#[tokio::test]
async fn an_answer_that_is_named_is_asked_of_the_next_endpoint() {
    for mode in MODES {
        let (one, two) = (Backend::start("one").await, Backend::start("two").await);
        let upstream = "  loadBalancing: {algorithm: RoundRobin}\n  retry: {attempts: 2, retryOn: ['503'], backoff: {base: 1ms}}\n";
        let pod = Pod::start(&service("llm", &[&one, &two], upstream), &[mode]).await;
        one.sick.store(true, Ordering::Relaxed);
        for _ in 0..8 {
            let (status, body) = ask(&pod, mode).await;
            assert!(status == 200 && body.starts_with("two\n"), "{status} {body}");
        }
        let asked = one.requests.load(Ordering::Relaxed);
        assert!(asked > 0, "it was never asked first");
        let labels = ["outbound", "outcome=\"answered\"", "reason=\"status\""];
        assert_eq!(pod.metric("floodway_upstream_retries_total", &labels).await, asked as f64);
    }
}

#[tokio::test]
async fn a_new_endpoint_is_eased_in() {
    for mode in MODES {
        let (one, two) = (Backend::start("one").await, Backend::start("two").await);
        let slow = |time: &str| {
            format!("  loadBalancing: {{algorithm: WeightedRoundRobin, slowStart: {time}, slowStartMinPercent: 10}}\n")
        };
        let pod = Pod::start(&service("llm", &[&one], &slow("1h")), &[mode]).await;
        assert_eq!(ask(&pod, mode).await.0, 200);
        pod.write(&service("llm", &[&one, &two], &slow("1h")));
        eventually("it is there", async || available(&pod).await == 2).await;
        let (old, new) = shares(&pod, mode, 110).await;
        assert!((5..=15).contains(&new), "a tenth: {old} {new}");
        // What comes later has its whole share in the end.
        let three = Backend::start("two").await;
        pod.write(&service("llm", &[&one, &three], &slow("1s")));
        eventually("it has its share", async || (4..=6).contains(&shares(&pod, mode, 10).await.1)).await;
    }
}

#[tokio::test]
async fn events_and_sockets_pass_and_each_finds_an_endpoint() {
    for mode in MODES {
        let (one, two) = (Backend::start("one").await, Backend::start("two").await);
        let upstream = "  loadBalancing: {algorithm: RoundRobin}\n";
        let pod = Pod::start(&service("llm", &[&one, &two], upstream), &[mode]).await;
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut client = pod.to_service(mode).await;
            client.write_all(b"GET /events HTTP/1.1\r\nHost: llm\r\n\r\n").await.unwrap();
            let mut seen = String::new();
            while seen.matches("data: 1").count() < 3 {
                let mut buffer = [0; 512];
                let count = client.read(&mut buffer).await.unwrap();
                assert!(count > 0, "{seen}");
                seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            held.push(client);
        }
        let asked = [&one, &two].map(|backend| backend.requests.load(Ordering::Relaxed));
        assert_eq!(asked, [1, 1]);
        let mut sockets = Vec::new();
        for _ in 0..2 {
            let stream = pod.to_service(mode).await;
            let (mut socket, _) = tokio_tungstenite::client_async("ws://llm/socket", stream).await.unwrap();
            for message in [Message::text("hello"), Message::binary(vec![7; 200_000])] {
                socket.send(message.clone()).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), message);
            }
            sockets.push(socket);
        }
        let asked = [&one, &two].map(|backend| backend.requests.load(Ordering::Relaxed));
        assert_eq!(asked, [2, 2]);
        pod.metric_becomes("floodway_active_streams", &["kind=\"sse\"", "outbound"], 2.0).await;
        pod.metric_becomes("floodway_active_streams", &["kind=\"websocket\"", "outbound"], 2.0).await;
        drop((held, sockets));
        pod.metric_becomes("floodway_active_streams", &["outbound"], 0.0).await;
    }
}
