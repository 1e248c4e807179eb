//! What clients see of pods that are sick: 50 of them ask 500 times a second, all told, while one or more of four pods
//! fall ill and others stay well. Whoever always has a pod that is well could answer every request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::Values;
use crate::Bench;
use crate::backend::pods::{Health, PODS, Pod};
use crate::load::http1::{Connection, get};
use crate::load::open::percentile;
use crate::peers::Peer;

const CLIENTS: u32 = 50;
/// Of all clients together, each second.
const RATE: u32 = 500;
/// Until pods fall ill, and how long they stay so. The proxies' own timeouts are 1 s to connect and 2 s for an answer.
const BEFORE: Duration = Duration::from_secs(1);
const ILL: Duration = Duration::from_secs(6);
/// Whoever waits longer for an answer has none.
const PATIENCE: Duration = Duration::from_secs(10);

/// What befalls the pods.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The first of them is so.
    One(Health),
    /// All but one are so.
    AllButOne(Health),
    /// The first dies and comes back every second.
    Flaps,
    /// One after the other dies, and comes back after a moment, as in a rolling restart that nobody is told of.
    Restart,
}

pub(super) async fn befalls(bench: &Bench, peer: &Peer, fault: Fault) -> Result<Values> {
    let pods = &bench.backend.pods;
    let seen = Arc::new(Seen::default());
    let until = Instant::now() + BEFORE + ILL.mul_f64(bench.args.scale());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(ask(peer.ports.http1, client, until, seen.clone()));
    }
    tokio::time::sleep(BEFORE).await;
    befall(pods, fault, until).await;
    let mut latencies = Vec::new();
    while let Some(client) = clients.join_next().await {
        latencies.extend(client?);
    }
    pods.iter().for_each(|pod| pod.become_(Health::Well));
    latencies.sort_unstable();
    let (done, failed) = (seen.done.load(Relaxed), seen.failed.load(Relaxed));
    Ok(vec![failed as f64 * 1e3 / (done + failed) as f64, percentile(&latencies, 0.99) / 1e6, (done + failed) as f64])
}

/// Makes them ill until the time is over.
async fn befall(pods: &[Pod; PODS], fault: Fault, until: Instant) {
    let over = tokio::time::Instant::from_std(until);
    match fault {
        Fault::One(health) => pods[0].become_(health),
        Fault::AllButOne(health) => pods[1..].iter().for_each(|pod| pod.become_(health)),
        Fault::Flaps => {
            while Instant::now() < until {
                for health in [Health::Dead, Health::Well] {
                    pods[0].become_(health);
                    tokio::time::sleep_until(over.min(tokio::time::Instant::now() + Duration::from_secs(1))).await;
                }
            }
        }
        Fault::Restart => {
            while Instant::now() < until {
                for pod in pods {
                    pod.become_(Health::Dead);
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    pod.become_(Health::Well);
                    tokio::time::sleep(Duration::from_millis(700)).await;
                }
            }
        }
    }
    tokio::time::sleep_until(over).await;
}

#[derive(Default)]
struct Seen {
    done: AtomicU64,
    failed: AtomicU64,
}

/// One client, which asks at its own pace and connects again after a failure. Returns its latencies in nanoseconds.
async fn ask(address: SocketAddr, client: u32, until: Instant, seen: Arc<Seen>) -> Vec<u64> {
    let request = get("bench.example.com", "/pods/1");
    let interval = Duration::from_secs(1) * CLIENTS / RATE;
    let mut due = tokio::time::Instant::now() + interval * client / CLIENTS;
    let (mut kept, mut latencies) = (None, Vec::new());
    while due.into_std() < until {
        tokio::time::sleep_until(due).await;
        let began = Instant::now();
        let asked = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(address, 4096).await?,
            };
            connection.ask(&request).await?;
            anyhow::Ok(connection)
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(connection)) => {
                seen.done.fetch_add(1, Relaxed);
                kept = Some(connection).filter(|connection| !connection.closing);
            }
            _ => _ = seen.failed.fetch_add(1, Relaxed),
        }
        latencies.push(began.elapsed().as_nanos() as u64);
        due = (due + interval).max(tokio::time::Instant::now());
    }
    latencies
}
