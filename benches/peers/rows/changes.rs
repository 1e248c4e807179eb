//! Changes of routes while requests and streams go on: until when a new route is served, and what breaks on the way.
//!
//! Each proxy learns of a new host in the way that it offers for files: Floodway finds a file in its folder, nginx and HAProxy
//! are told to reload, Envoy finds another version of its route configuration.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::Values;
use super::requests::SMALL;
use crate::Bench;
use crate::load::http1::{Connection, get};
use crate::load::open::percentile;
use crate::load::pace::Pace;
use crate::load::streams::{Opening, open};
use crate::load::{Counts, Load};
use crate::peers::{Kind, Peer};

const CHANGES: usize = 1_000;
const CLIENTS: usize = 8;
const STREAMS: usize = 100;
/// Who takes longer than this makes fewer changes.
const LONGEST: Duration = Duration::from_secs(60);
/// The status of a new route, so that it is told from the one that takes all hosts.
const NEW: u16 = 204;

pub(super) async fn routes(bench: &Bench, peer: &Peer) -> Result<Values> {
    let load = clients(peer);
    let streams = open(peer.ports.http1, STREAMS, Opening::Events).await?;
    let began = Instant::now();
    let (mut times, mut asker) = (Vec::new(), None);
    for change in 0..bench.args.count(CHANGES) {
        if began.elapsed() > LONGEST {
            break;
        }
        let host = format!("new-{change}.example.com");
        until_settled(peer).await;
        let told = Instant::now();
        publish(peer, change, &host).await?;
        until_served(peer, &host, &mut asker).await?;
        times.push(told.elapsed().as_nanos() as u64);
    }
    load.counts.stop.store(true, Relaxed);
    let (done, failed) = (load.counts.done.load(Relaxed), load.counts.failed.load(Relaxed));
    load.clients.join_all().await;
    // A stream that goes on has nothing to read, since its events and ends would be.
    let cut = streams.iter().filter(|stream| stream.try_read(&mut [0; 64]).is_ok_and(|read| read == 0)).count();
    times.sort_unstable();
    Ok(vec![
        percentile(&times, 0.99) / 1e6,
        failed as f64 * 1e3 / times.len() as f64,
        percentile(&times, 0.5) / 1e6,
        done as f64,
        cut as f64,
        times.len() as f64,
    ])
}

/// Clients that ask about a thousand times a second each, and connect again when they are told that a connection ends. What
/// they send on a connection that ends without a word has failed: a POST could not be sent again.
fn clients(peer: &Peer) -> Load {
    let counts = Arc::new(Counts::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (counts, address) = (counts.clone(), peer.ports.http1);
        clients.spawn(async move {
            let (request, mut kept) = (get("bench.example.com", SMALL), None);
            while counts.on() {
                match ask(address, &request, &mut kept).await {
                    Ok(200) => counts.one_done(),
                    _ => _ = counts.failed.fetch_add(1, Relaxed),
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        });
    }
    Load { counts, clients }
}

/// Asks on a connection that is kept if it can be.
async fn ask(address: std::net::SocketAddr, request: &[u8], kept: &mut Option<Connection>) -> Result<u16> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(address, 4096).await?,
    };
    connection.stream.write_all(request).await?;
    let status = connection.answer().await?;
    if !connection.closing {
        *kept = Some(connection);
    }
    Ok(status)
}

async fn until_served(peer: &Peer, host: &str, kept: &mut Option<Connection>) -> Result<()> {
    let request = get(host, SMALL);
    let mut pace = Pace::new(4000.0, Duration::from_secs(20));
    while pace.next().await.is_some() {
        if ask(peer.ports.http1, &request, kept).await.is_ok_and(|status| status == NEW) {
            return Ok(());
        }
    }
    bail!("{host} is not served after twenty seconds")
}

/// HAProxy does not hear of a reload while it still does the one before, which ends a little later than a new route is
/// served, and then it answers again. Does not count.
async fn until_settled(peer: &Peer) {
    const ANSWER: Duration = Duration::from_millis(200);
    let answers = async || tokio::time::timeout(ANSWER, master(peer, "show proc")).await;
    while peer.kind == Kind::Haproxy
        && !answers().await.is_ok_and(|answer| answer.is_ok_and(|text| text.contains("worker")))
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Tells the first process of HAProxy something by its socket, and returns what it answers.
async fn master(peer: &Peer, command: &str) -> Result<String> {
    let mut socket = UnixStream::connect(peer.folder.path().join("master.sock")).await?;
    socket.write_all(format!("{command}\n").as_bytes()).await?;
    // It closes when it has answered and nothing more can come.
    socket.shutdown().await?;
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer).await;
    Ok(answer)
}

async fn publish(peer: &Peer, change: usize, host: &str) -> Result<()> {
    let folder = peer.folder.path();
    match peer.kind {
        Kind::Floodway => {
            let route = format!(
                "{{apiVersion: floodway.dev/v1alpha1, kind: ProxyRoute, metadata: {{name: new-{change}, namespace: bench}}, \
                 spec: {{hosts: [{host}], rules: [{{respond: {{status: {NEW}}}}}]}}}}"
            );
            fs::write(folder.join("new.tmp"), route)?;
            fs::rename(folder.join("new.tmp"), folder.join(format!("routes/new-{change}.yaml")))?;
        }
        Kind::Nginx => {
            let listen = peer.ports.http1;
            append(
                &folder.join("new.conf"),
                &format!("server {{ listen {listen}; server_name {host}; return {NEW}; }}"),
            )?;
            peer.signal(Signal::HUP)?;
        }
        Kind::Haproxy => {
            append(&folder.join("new.map"), &format!("{host} {NEW}"))?;
            master(peer, "reload").await?;
        }
        Kind::Envoy => {
            let routes = folder.join("routes.yaml");
            fs::copy(&routes, folder.join("routes.tmp"))?;
            let route = format!("{{match: {{prefix: /}}, direct_response: {{status: {NEW}}}}}");
            append(&folder.join("routes.tmp"), &format!("  - {{name: {host}, domains: [{host}], routes: [{route}]}}"))?;
            fs::rename(folder.join("routes.tmp"), routes)?;
        }
    }
    Ok(())
}

fn append(path: &Path, line: &str) -> Result<()> {
    let mut file = fs::File::options().append(true).open(path).with_context(|| path.display().to_string())?;
    Ok(writeln!(file, "{line}")?)
}
