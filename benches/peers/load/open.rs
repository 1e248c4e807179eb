//! Requests at a fixed rate, whatever becomes of them. Latency counts from when a request was due, so that one which waits
//! for a slow answer before it is slow, too: nothing is left out because it could not be sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::http1::{Connection, get};
use super::pace::Pace;

const CONNECTIONS: usize = 64;
/// Requests that may wait for a connection.
const WAITING: usize = 1 << 16;

/// Latencies of all requests, in nanoseconds, sorted.
pub(crate) async fn latencies(address: SocketAddr, path: &str, per_second: f64, time: Duration) -> Result<Vec<u64>> {
    let (jobs, waiting) = mpsc::channel::<Instant>(WAITING);
    let waiting = Arc::new(Mutex::new(waiting));
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (waiting, request) = (waiting.clone(), get("bench.example.com", path));
        clients.spawn(async move {
            let mut connection = Connection::open(address, 4096).await?;
            connection.ask(&request).await?;
            let mut latencies = Vec::new();
            loop {
                let due = waiting.lock().await.recv().await;
                let Some(due) = due else { return anyhow::Ok(latencies) };
                connection.ask(&request).await?;
                latencies.push(due.elapsed().as_nanos() as u64);
            }
        });
    }
    // Until they are connected.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut pace = Pace::new(per_second, time);
    while let Some(due) = pace.next().await {
        jobs.try_send(due).context("too many requests wait for an answer")?;
    }
    drop(jobs);
    let mut all = Vec::new();
    while let Some(client) = clients.join_next().await {
        all.extend(client??);
    }
    all.sort_unstable();
    Ok(all)
}

/// The value that so much of a sorted list does not exceed.
pub(crate) fn percentile(sorted: &[u64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default() as f64
}
