//! Connections to endpoints: how old they get, which are opened before anybody asks, how silent ones are found, and how several
//! endpoints are connected to at once.

use std::net::SocketAddr;
use std::time::Duration;

use floodway::snapshot::{Cluster, Protocol, Snapshot, Upkeep};
use h2::Reason;
use tokio::io::AsyncReadExt as _;

use super::clients::{ask, get, http2, http2_backend};
use super::endpoints::{nothing_is_left, unreachable};
use super::frames::{self, *};
use super::support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn kept_up(mut cluster: Cluster, upkeep: Upkeep) -> Snapshot {
    cluster.connections.upkeep = upkeep;
    snapshot(vec![forward("", "backend")], vec![cluster])
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_connection_that_has_reached_its_age_is_not_used_again() {
    let (address, mut arrivals) = played().await;
    let cluster = cluster("backend", Protocol::Http1, &[address]);
    let plane =
        Plane::start(kept_up(cluster, Upkeep { max_age: Some(Duration::from_millis(200)), ..Upkeep::default() }));
    // One client, so that one worker serves all of it.
    let mut client = plane.connect().await;
    client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut first, _) = arrivals.request().await;
    // What runs is not ended for its age.
    tokio::time::sleep(Duration::from_millis(300)).await;
    first.send(OK).await;
    client.until("ok").await;
    assert!(!first.closed().await, "closed after its answer");
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut second, head) = arrivals.request().await;
    assert!(head.starts_with("GET /next "), "{head}");
    second.send(OK).await;
    client.until("ok").await;
}

#[tokio::test]
async fn streams_of_an_old_connection_run_on_beside_a_new_one() {
    let endpoint = http2_backend(|request, mut answer| async move {
        let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
        if request.uri().path() == "/long" {
            stream.send_data("begun".into(), false).unwrap();
            let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            assert_eq!(reset.unwrap(), Reason::CANCEL, "only its client ends it");
        } else {
            stream.send_data("ok".into(), true).unwrap();
        }
    });
    let cluster = cluster("backend", Protocol::Http2, &[endpoint.await]);
    let age = Duration::from_millis(200);
    let plane = Plane::start(kept_up(cluster, Upkeep { max_age: Some(age), ..Upkeep::default() }));
    let client = http2(plane.address).await;
    let mut long = ask(&client, get("/long")).await;
    assert_eq!(&within(long.body_mut().data()).await.unwrap().unwrap()[..], b"begun");
    assert_eq!(plane.metric("floodway_upstream_connects_total", ""), 1.0);
    tokio::time::sleep(age * 2).await;
    ask(&client, get("/short")).await;
    assert_eq!(plane.metric("floodway_upstream_connects_total", ""), 2.0);
    assert_eq!(plane.in_flight(), 1, "the long one runs on");
    drop((long, client));
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn an_http2_endpoint_that_answers_no_ping_is_given_up() {
    let (address, mut arrivals) = played().await;
    let cluster = cluster("backend", Protocol::Http2, &[address]);
    let http2_ping = Some((Duration::from_millis(100), Duration::from_millis(300)));
    let plane = Plane::start(kept_up(cluster, Upkeep { http2_ping, ..Upkeep::default() }));
    let mut client = plane.connect().await;
    client.send(request("/silent")).await;
    let mut endpoint = arrivals.next().await;
    let mut preface = [0; 24];
    within(endpoint.0.read_exact(&mut preface)).await.unwrap();
    endpoint.send(frame(SETTINGS, 0, 0, &[])).await;
    let is_ping = |frame: &Frame| frame.kind == 6 && frame.flags == 0;
    for _ in 0..2 {
        let ping = frames::next(&mut endpoint, is_ping).await.unwrap();
        endpoint.send(frame(6, 1, 0, &ping.payload)).await;
    }
    frames::next(&mut endpoint, is_ping).await.unwrap();
    let answer = client.to_end().await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("x-floodway-reason: upstream_reset"), "{answer}");
    nothing_is_left(&plane).await;
}

#[tokio::test]
async fn connections_are_there_before_the_next_request_asks_for_them() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (used, mut arrivals) = played().await;
        let (new, mut opened) = played().await;
        let plane = Plane::start(kept_up(cluster("backend", protocol, &[used]), Upkeep::default()));
        // The worker of this client knows the cluster from now on.
        let mut client = plane.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let _serving = arrivals.next().await;
        let upkeep = Upkeep { min_idle_per_endpoint: 2, ..Upkeep::default() };
        plane.publisher.publish(kept_up(cluster("backend", protocol, &[used, new]), upkeep));
        let mut waiting = opened.next().await;
        match protocol {
            Protocol::Http1 | Protocol::Agreed => drop(opened.next().await),
            // One carries many streams.
            Protocol::Http2 => {
                let mut preface = [0; 24];
                within(waiting.0.read_exact(&mut preface)).await.unwrap();
                assert_eq!(&preface[..3], b"PRI");
            }
        }
    }
}

/// RFC 8305: an address that does not answer holds nobody up for long.
#[tokio::test]
async fn an_endpoint_that_hangs_in_connecting_is_overtaken_by_another() {
    let (hangs, _kept) = unreachable().await;
    let v6 = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let well: SocketAddr = v6.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = v6.accept().await {
            tokio::spawn(async move {
                let mut client = Raw(stream);
                while client.request().await.is_some() {
                    client.send(OK).await;
                }
            });
        }
    });
    let mut cluster = cluster("backend", Protocol::Http1, &[hangs, well]);
    cluster.connections.connect_timeout = Duration::from_secs(3600);
    let upkeep = Upkeep { stagger: Some(Duration::from_millis(20)), ..Upkeep::default() };
    let plane = Plane::start(kept_up(cluster, upkeep));
    let mut overtaken = 0;
    for call in 0..1000 {
        let path = format!("/{call}");
        let answer = plane.exchange(request(&path)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let line = plane.logged(&path).await;
        assert_eq!(line["endpoint"], well.to_string(), "{line}");
        overtaken += u32::from(line["attempts"] == 2);
        if overtaken == 2 {
            return nothing_is_left(&plane).await;
        }
    }
    panic!("the other is never asked first");
}
