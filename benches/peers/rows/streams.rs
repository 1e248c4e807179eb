//! Streams on which something happens.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Values;
use crate::Bench;
use crate::backend::paced::{self, DIGITS, MARK};
use crate::load::open::percentile;
use crate::load::streams::{Opening, echoed, open};
use crate::load::{Counts, Load};
use crate::peers::Peer;

const EVENT_STREAMS: usize = 1_000;
/// On each of them.
const EVENTS_PER_SECOND: f64 = 20.0;
const SOCKETS: usize = 500;

/// Messages there and back, one under way on each WebSocket.
pub(super) async fn echo(bench: &Bench, peer: &Peer) -> Result<Values> {
    let counts = Arc::new(Counts::default());
    let mut clients = JoinSet::new();
    for mut stream in open(peer.ports.http1, bench.args.count(SOCKETS), Opening::Socket).await? {
        let counts = counts.clone();
        clients.spawn(async move {
            while counts.on() {
                echoed(&mut stream).await?;
                counts.one_done();
            }
            Ok(())
        });
    }
    Ok(Load { counts, clients }.cost(bench, peer).await?.figures())
}

/// Events evenly over all streams: processor time for each, and how long they were under way.
pub(super) async fn events(bench: &Bench, peer: &Peer) -> Result<Values> {
    let clock = Instant::now();
    let gaps = Arc::new(Mutex::new(Vec::new()));
    let mut readers = JoinSet::new();
    let count = bench.args.count(EVENT_STREAMS);
    for stream in open(peer.ports.http1, count, Opening::PacedEvents).await? {
        readers.spawn(read(stream, clock, gaps.clone()));
    }
    let streams = bench.backend.shared.paced.take();
    let (rate, time) = (count as f64 * EVENTS_PER_SECOND, Duration::from_secs_f64(bench.args.seconds));
    let sent = paced::send(&streams, clock, rate, time.mul_f64(0.2)).await?;
    arrived(&mut readers, &gaps, sent.len()).await?;

    let proxy = peer.processes();
    let (before, began) = (proxy.processor()?, Instant::now());
    let mut late = paced::send(&streams, clock, rate, time).await?;
    let (spent, passed) = (proxy.processor()? - before, began.elapsed());
    let mut gaps = arrived(&mut readers, &gaps, late.len()).await?;
    gaps.sort_unstable();
    late.sort_unstable();
    Ok(vec![
        spent.as_secs_f64() * 1e6 / gaps.len() as f64,
        percentile(&gaps, 0.99) / 1e3,
        percentile(&gaps, 0.5) / 1e3,
        spent.as_secs_f64() / passed.as_secs_f64() * 100.0,
        percentile(&late, 0.99) / 1e3,
    ])
}

/// Waits until all that were sent have arrived, and takes their times. A reader that ended has failed.
async fn arrived(readers: &mut JoinSet<Result<()>>, gaps: &Mutex<Vec<u64>>, sent: usize) -> Result<Vec<u64>> {
    let patience = Instant::now() + Duration::from_secs(5);
    while gaps.lock().unwrap().len() < sent {
        if let Some(ended) = readers.try_join_next() {
            ended??;
        }
        if Instant::now() > patience {
            bail!("{sent} events were sent, and {} arrived", gaps.lock().unwrap().len());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(std::mem::take(&mut *gaps.lock().unwrap()))
}

/// Reads the times in events, and notes how long ago they were.
async fn read(mut stream: TcpStream, clock: Instant, gaps: Arc<Mutex<Vec<u64>>>) -> Result<()> {
    let mut buffer = [0; 2048];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            bail!("an event stream ended");
        }
        filled += read;
        let mut used = 0;
        while let Some(at) = memchr::memmem::find(&buffer[used..filled], MARK) {
            let begin = used + at + MARK.len();
            let Some(digits) = buffer[begin..filled].first_chunk::<DIGITS>() else {
                used += at;
                break;
            };
            let sent: u64 = std::str::from_utf8(digits)?.parse()?;
            gaps.lock().unwrap().push((clock.elapsed().as_nanos() as u64).saturating_sub(sent));
            used = begin + DIGITS;
        }
        // What remains may be the beginning of a mark; events hold none but at their beginning.
        used = used.max(filled.saturating_sub(MARK.len() + DIGITS));
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
}
