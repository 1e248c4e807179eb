//! How requests are spread where not all endpoints count the same: one that is new, those of another zone, and those that have
//! more than their share already.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use floodway::resilience::KeptOut;
use floodway::snapshot::{
    Algorithm, Balancing, Cluster, ClusterName, Ejection, Endpoint, HashKey, Hashing, Locality, Protocol, Resilience,
    SlowStart,
};
use tokio::io::AsyncReadExt;

use super::balance::{X_USER, ask_with, balanced, by, each, numbered};
use super::support::*;

/// How many of so many requests on one connection, which is one worker, each backend gets.
async fn shares(plane: &Plane, requests: usize) -> [usize; 3] {
    let mut client = plane.connect().await;
    let mut shares = [0; 3];
    for _ in 0..requests {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.head().await;
        shares[usize::from(within(client.0.read_u8()).await.unwrap() - b'0')] += 1;
    }
    shares
}

#[tokio::test]
async fn an_endpoint_that_joins_others_is_eased_in() {
    let addresses = numbered(3).await;
    let slow_start = SlowStart { window: Duration::from_secs(24 * 3600), min_percent: 10, aggression_percent: 100 };
    let eased = Balancing { slow_start: Some(slow_start), ..by(Algorithm::RoundRobin) };
    let plane = Plane::start(balanced(each(&addresses[..2]), eased.clone()));
    assert_eq!(shares(&plane, 20).await, [10, 10, 0], "the first endpoints are not eased in");
    plane.publisher.publish(balanced(each(&addresses), eased));
    // With a tenth of its weight it gets 29 on average, and is as likely as not to be 4 off; without easing in, 200.
    let [.., new] = shares(&plane, 600).await;
    assert!((1..=80).contains(&new), "{new} of 600");
    plane.publisher.publish(balanced(each(&addresses), by(Algorithm::RoundRobin)));
    assert_eq!(shares(&plane, 60).await, [20; 3]);
}

#[tokio::test]
async fn the_own_zone_is_preferred_while_enough_of_it_are_well() {
    let sick = Arc::new(AtomicBool::new(false));
    let mut addresses = numbered(3).await;
    let is_sick = Arc::clone(&sick);
    let patient = backend(move |mut client| {
        let is_sick = Arc::clone(&is_sick);
        async move {
            while client.request().await.is_some() {
                let status = if is_sick.load(Ordering::Relaxed) { 500 } else { 200 };
                client.send(format!("HTTP/1.1 {status} Said\r\nContent-Length: 1\r\n\r\n3")).await;
            }
        }
    });
    addresses.push(patient.await);
    // The first and the last are near.
    let near = |(number, address)| Endpoint { local: number % 3 == 0, ..Endpoint::new(address) };
    let endpoints = addresses.iter().copied().enumerate().map(near).collect();
    let locality = Some(Locality { min_available_percent: 70, min_endpoints: 1 });
    let resilience = Resilience {
        balancing: Balancing { locality, ..by(Algorithm::RoundRobin) },
        ejection: Some(Ejection { consecutive_failures: 1, max_percent: 100, ..Ejection::default() }),
        ..Resilience::default()
    };
    let cluster = Cluster { endpoints, resilience: Arc::new(resilience), ..cluster("backend", Protocol::Http1, &[]) };
    let plane = Plane::start(snapshot(vec![forward("", "backend")], vec![cluster]));
    let used = async || {
        let mut used = BTreeSet::new();
        for _ in 0..24 {
            used.insert(ask_with(&plane, "").await.1);
        }
        used.into_iter().collect::<String>()
    };
    assert_eq!(used().await, "03");
    sick.store(true, Ordering::Relaxed);
    used().await;
    let known = plane.registry.known(&ClusterName::new("backend"));
    let state = known.iter().find(|state| state.address() == addresses[3]).unwrap();
    eventually("the sick one to be ejected", || state.is_kept_out(KeptOut::Ejected)).await;
    assert_eq!(used().await, "012", "half of the zone is not enough");
}

/// Backends that say their number in the head of an answer that does not end.
async fn held(count: usize) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for number in 0..count {
        let serve = move |mut client: Raw| async move {
            while client.request().await.is_some() {
                client
                    .send(format!("HTTP/1.1 200 OK\r\nX-Number: {number}\r\nTransfer-Encoding: chunked\r\n\r\n"))
                    .await;
                client.send("1\r\n.\r\n").await;
            }
        };
        addresses.push(backend(serve).await);
    }
    addresses
}

#[tokio::test]
async fn a_key_that_everybody_asks_for_does_not_drown_its_endpoint_if_that_is_bounded() {
    const ENDPOINTS: usize = 4;
    const STREAMS: usize = 20;
    let addresses = held(ENDPOINTS).await;
    for maglev in [false, true] {
        for bounded_percent in [None, Some(150)] {
            let hashing = Hashing { keys: [HashKey::Header(X_USER)].into(), bounded_percent };
            let algorithm = match maglev {
                true => Algorithm::Maglev { hashing, table_size: 16_381 },
                false => Algorithm::RingHash { hashing, points: 100 },
            };
            let plane = Plane::start(balanced(each(&addresses), by(algorithm)));
            let open = async || {
                let mut client = plane.connect().await;
                client.send("GET / HTTP/1.1\r\nHost: a\r\nX-User: all\r\n\r\n").await;
                let head = client.head().await.to_ascii_lowercase();
                let number = head.split("x-number: ").nth(1).and_then(|rest| rest.lines().next());
                (number.unwrap().parse::<usize>().unwrap(), client)
            };
            let (mut shares, mut clients) = ([0; ENDPOINTS], Vec::new());
            for _ in 0..STREAMS {
                let (number, client) = open().await;
                shares[number] += 1;
                clients.push((number, client));
            }
            let first = clients[0].0;
            match bounded_percent {
                None => assert_eq!(shares[first], STREAMS, "{shares:?}"),
                Some(percent) => {
                    let most = (STREAMS * percent as usize).div_ceil(ENDPOINTS * 100);
                    assert!(shares.iter().all(|share| *share <= most), "{shares:?}");
                    assert_eq!(shares[first], most, "its own endpoint has as many as it may: {shares:?}");
                }
            }
            drop(clients);
            eventually("all streams to be over", || plane.in_flight() == 0).await;
            assert_eq!(open().await.0, first, "it comes back when there is room");
        }
    }
}
