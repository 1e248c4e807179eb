//! What a proxy adds to latency while it is half busy.

use std::time::Duration;

use anyhow::Result;

use super::Values;
use super::requests::SMALL;
use crate::Bench;
use crate::load::http1::{closed_loop, get};
use crate::load::open::{latencies, percentile};
use crate::peers::Peer;

const SHARES: [f64; 3] = [0.5, 0.99, 0.999];

/// At one rate for all, half of what the slowest of them can do: each percentile, minus that of the backend asked directly.
pub(super) async fn added(bench: &Bench, peers: &[Peer]) -> Result<Vec<Values>> {
    let time = Duration::from_secs_f64(bench.args.seconds);
    let mut slowest = f64::INFINITY;
    for peer in peers {
        let load = closed_loop(peer.ports.http1, 64, vec![get("bench.example.com", SMALL)], 4096);
        slowest = slowest.min(load.rate(time.div_f64(4.0)).await?);
    }
    let rate = slowest / 2.0;
    let direct = latencies(bench.backend.http1, SMALL, rate, time).await?;
    let mut values = Vec::new();
    for peer in peers {
        let through = latencies(peer.ports.http1, SMALL, rate, time).await?;
        let added = |share| (percentile(&through, share) - percentile(&direct, share)) / 1e3;
        values.push(SHARES.map(added).into_iter().chain([rate]).collect());
    }
    Ok(values)
}
