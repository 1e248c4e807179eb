//! Clients that ask again and again over kept connections, on a thread of their own, and count what came of it. A request has failed that
//! got anything but its whole answer with 200. A connection that cannot be made has lost nothing yet: it is tried again, and counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two requests of a client, so that the node has the processor to itself now and then.
const PACE: Duration = Duration::from_millis(10);

/// Where clients connect to, and whom they ask for.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
}

/// The running clients.
pub(crate) struct Load {
    served: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Tally>>,
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) served: u64,
    /// Who answered, by the name of the application.
    pub(crate) by_name: BTreeMap<String, u64>,
    /// The same by pod.
    pub(crate) by_pod: BTreeMap<String, u64>,
    /// Connections that could not be made at once.
    pub(crate) refused: u64,
    /// Seconds since the beginning, and what came instead of an answer.
    pub(crate) failures: Vec<(f64, String)>,
    pub(crate) slowest: Duration,
}

impl Load {
    /// As many clients as `clients` ask for `path`.
    pub(crate) fn start(target: &Target, clients: usize, path: &str) -> Load {
        let (served, stop): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let (target, path) = (target.clone(), path.to_owned());
        let (count, ends) = (Arc::clone(&served), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let began = Instant::now();
                let each = (0..clients).map(|_| client(&target, &path, &count, &ends, began));
                let tallies = futures_util::future::join_all(each).await;
                tallies.into_iter().fold(Tally::default(), Tally::with)
            })
        });
        Load { served, stop, thread: Some(thread) }
    }

    pub(crate) fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// Waits until so many more requests were answered.
    pub(crate) async fn more(&self, requests: u64) {
        let before = self.served();
        crate::objects::eventually("more requests to be served", async || {
            (self.served() >= before + requests).then_some(())
        })
        .await;
    }

    pub(crate) async fn stop(mut self) -> Tally {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

impl Tally {
    fn with(mut self, other: Tally) -> Tally {
        self.served += other.served;
        self.refused += other.refused;
        self.slowest = self.slowest.max(other.slowest);
        self.failures.extend(other.failures);
        for (name, count) in other.by_name {
            *self.by_name.entry(name).or_default() += count;
        }
        for (pod, count) in other.by_pod {
            *self.by_pod.entry(pod).or_default() += count;
        }
        self
    }

    /// Fails unless every request was answered.
    pub(crate) fn all_served(&self) {
        assert!(self.failures.is_empty(), "{} of {} failed: {:?}", self.failures.len(), self.served, self.failures);
        assert!(self.served > 100, "{} requests are not a load", self.served);
    }
}

async fn client(target: &Target, path: &str, served: &AtomicU64, stop: &AtomicBool, began: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<SendRequest<Empty<Bytes>>> = None;
    while !stop.load(Relaxed) {
        let mut open = kept.take();
        if let Some(sender) = &mut open
            && sender.ready().await.is_err()
        {
            open = None;
        }
        if open.is_none() {
            open = connect(target, stop, &mut tally.refused).await;
        }
        let Some(mut sender) = open else {
            if !stop.load(Relaxed) {
                tally.failures.push((began.elapsed().as_secs_f64(), "no connection for ten seconds".to_owned()));
            }
            continue;
        };
        let asked = Instant::now();
        match timeout(PATIENCE, ask(&mut sender, target, path)).await {
            Ok(Ok(Some(body))) => {
                served.fetch_add(1, Relaxed);
                tally.served += 1;
                tally.slowest = tally.slowest.max(asked.elapsed());
                let said: Value = serde_json::from_slice(&body).unwrap_or_default();
                for (of, field) in [(&mut tally.by_name, "name"), (&mut tally.by_pod, "pod")] {
                    let value = said[field].as_str().unwrap_or_default().to_owned();
                    *of.entry(value).or_default() += 1;
                }
                kept = Some(sender);
            }
            // It was never sent.
            Ok(Ok(None)) => {}
            Ok(Err(what)) => tally.failures.push((began.elapsed().as_secs_f64(), what)),
            Err(_) => tally.failures.push((began.elapsed().as_secs_f64(), "no answer in ten seconds".to_owned())),
        }
        sleep(PACE).await;
    }
    tally
}

/// A connection, tried for ten seconds.
async fn connect(target: &Target, stop: &AtomicBool, refused: &mut u64) -> Option<SendRequest<Empty<Bytes>>> {
    let began = Instant::now();
    while !stop.load(Relaxed) && began.elapsed() < PATIENCE {
        if let Ok(Ok(stream)) = timeout(Duration::from_secs(1), TcpStream::connect(target.address)).await {
            let _ = stream.set_nodelay(true);
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::task::spawn_local(connection);
            return Some(sender);
        }
        *refused += 1;
        sleep(Duration::from_millis(50)).await;
    }
    None
}

/// The answer's content, or nothing if the connection ended before the request was sent.
async fn ask(sender: &mut SendRequest<Empty<Bytes>>, target: &Target, path: &str) -> Result<Option<Bytes>, String> {
    let request = Request::get(path).header("host", &target.host).body(Empty::new()).unwrap();
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) if error.is_canceled() => return Ok(None),
        Err(error) => return Err(format!("no head: {error:?}")),
    };
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| format!("cut: {error:?}"))?.to_bytes();
    match status.as_u16() {
        200 => Ok(Some(body)),
        other => Err(format!("{other} {}", String::from_utf8_lossy(&body))),
    }
}
