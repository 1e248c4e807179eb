//! What clients do. Raw sockets and prepared bytes, so that the load costs less than what is measured.

pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod open;
pub(crate) mod pace;
pub(crate) mod streams;
pub(crate) mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::task::JoinSet;

use crate::Bench;
use crate::peers::Peer;
use crate::processes::Processes;

/// What the clients of one load have done so far.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) done: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) stop: AtomicBool,
}

impl Counts {
    pub(crate) fn on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    pub(crate) fn one_done(&self) {
        self.done.fetch_add(1, Relaxed);
    }
}

/// Clients that go on until they are told to stop.
pub(crate) struct Load {
    pub(crate) counts: Arc<Counts>,
    pub(crate) clients: JoinSet<Result<()>>,
}

/// What a load cost, in a window of time.
pub(crate) struct Cost {
    /// Processor time of the proxy for one of what was done, in microseconds.
    pub(crate) micros: f64,
    pub(crate) per_second: f64,
    /// Share of its core that the proxy used, and that load and backend used.
    pub(crate) proxy_busy: f64,
    pub(crate) load_busy: f64,
}

impl Load {
    /// Lets the clients go on for a time, and for as long as it takes until a little is done.
    async fn run(&mut self, time: Duration) -> Result<()> {
        const LITTLE: u64 = 20;
        let (began, before) = (Instant::now(), self.counts.done.load(Relaxed));
        tokio::time::sleep(time).await;
        while self.counts.done.load(Relaxed) < before + LITTLE {
            if let Some(client) = self.clients.try_join_next() {
                client??;
            }
            if began.elapsed() > time + Duration::from_secs(10) {
                bail!("almost nothing was done in ten seconds");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Ends the clients; an error if one of them failed.
    async fn end(&mut self) -> Result<()> {
        self.counts.stop.store(true, Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client??;
        }
        Ok(())
    }

    /// How much is done each second. Then the clients stop.
    pub(crate) async fn rate(mut self, time: Duration) -> Result<f64> {
        let began = Instant::now();
        self.run(time).await?;
        let rate = self.counts.done.load(Relaxed) as f64 / began.elapsed().as_secs_f64();
        self.end().await?;
        Ok(rate)
    }

    /// Lets the clients warm up, then measures what the proxy spends. Then they stop.
    pub(crate) async fn cost(mut self, bench: &Bench, peer: &Peer) -> Result<Cost> {
        let time = Duration::from_secs_f64(bench.args.seconds);
        self.run(time.mul_f64(0.2)).await?;
        let (proxy, own) = (peer.processes(), Processes::own());
        let began = (self.counts.done.load(Relaxed), proxy.processor()?, own.processor()?, Instant::now());
        self.run(time).await?;
        let (spent, own) = (proxy.processor()? - began.1, own.processor()? - began.2);
        let (passed, done) = (began.3.elapsed(), self.counts.done.load(Relaxed) - began.0);
        self.end().await?;
        if self.counts.failed.load(Relaxed) > 0 {
            bail!("{} requests failed", self.counts.failed.load(Relaxed));
        }
        Ok(Cost {
            micros: spent.as_secs_f64() * 1e6 / done as f64,
            per_second: done as f64 / passed.as_secs_f64(),
            proxy_busy: spent.as_secs_f64() / passed.as_secs_f64(),
            load_busy: own.as_secs_f64() / passed.as_secs_f64(),
        })
    }
}

impl Cost {
    /// As figures of a row.
    pub(crate) fn figures(&self) -> Vec<f64> {
        vec![self.micros, self.per_second, self.proxy_busy * 100.0, self.load_busy * 100.0]
    }
}
