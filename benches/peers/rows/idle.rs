//! Memory of connections on which nothing happens.

use std::time::Duration;

use anyhow::Result;

use super::{STREAMS, Values};
use crate::Bench;
use crate::load::streams::{Opening, open};
use crate::peers::Peer;
use crate::processes::Processes;

/// Streams that are opened and closed before, so that what a proxy allocates once does not count.
const BEFORE: usize = 64;

pub(super) async fn events(bench: &Bench, peer: &Peer) -> Result<Values> {
    per_connection(bench, peer, Opening::Events).await
}

pub(super) async fn sockets(bench: &Bench, peer: &Peer) -> Result<Values> {
    per_connection(bench, peer, Opening::Socket).await
}

pub(super) async fn kept_alive(bench: &Bench, peer: &Peer) -> Result<Values> {
    per_connection(bench, peer, Opening::KeptAlive).await
}

async fn per_connection(bench: &Bench, peer: &Peer, opening: Opening) -> Result<Values> {
    let count = bench.args.count(STREAMS);
    drop(open(peer.ports.http1, BEFORE.min(count), opening).await?);
    let processes = peer.processes();
    let before = settled(&processes).await?;
    let opened = open(peer.ports.http1, count, opening).await?;
    // Fifteen seconds at the usual length of a measurement: idle is what has been idle for a while, and allocators give memory
    // back some time after it was given to them.
    tokio::time::sleep(Duration::from_secs_f64(7.5 * bench.args.seconds)).await;
    let after = settled(&processes).await?;
    drop(opened);
    Ok(vec![(after as f64 - before as f64) / count as f64 / 1000.0])
}

/// Resident memory, when it has come to rest; after five seconds, whatever it is.
pub(super) async fn settled(processes: &Processes) -> Result<u64> {
    let mut last = processes.resident()?;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = processes.resident()?;
        if now.abs_diff(last) < 64 * 1024 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}
