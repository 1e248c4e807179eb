//! Memory when a load has gone, compared with what it was before.

use std::time::Duration;

use anyhow::Result;

use super::idle::settled;
use super::{STREAMS, Values};
use crate::Bench;
use crate::load::http1::{closed_loop, get};
use crate::load::streams::{Opening, open};
use crate::peers::Peer;

/// How long proxies may take to give memory back.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn memory(bench: &Bench, peers: &[Peer]) -> Result<Vec<Values>> {
    let mut before = Vec::new();
    for peer in peers {
        let processes = peer.processes();
        let rest = settled(&processes).await?;
        let streams = open(peer.ports.http1, bench.args.count(STREAMS), Opening::Events).await?;
        let load = closed_loop(peer.ports.http1, 64, vec![get("bench.example.com", "/bytes/65536")], 64 * 1024);
        load.cost(bench, peer).await?;
        let loaded = processes.resident()?;
        drop(streams);
        before.push((processes, rest, loaded));
    }
    // They all wait at once.
    tokio::time::sleep(PATIENCE.min(Duration::from_secs_f64(bench.args.seconds * 10.0))).await;
    let mut values = Vec::new();
    for (processes, rest, loaded) in before {
        let after = processes.resident()? as f64;
        values.push(vec![after / rest as f64 * 100.0, rest as f64 / 1e6, loaded as f64 / 1e6, after / 1e6]);
    }
    Ok(values)
}
