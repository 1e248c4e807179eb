//! Clients that ask again and again over kept connections, on a thread of their own, and count what came of it. A request has failed that
//! got anything but its whole answer with 200. A connection that cannot be made has lost nothing yet: it is tried again, and counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::clients::{self, Clients, PATIENCE, Shared, Target};
use crate::cluster::eventually;

/// Between two requests of a client, so that the node has the processor to itself now and then.
const PACE: Duration = Duration::from_millis(10);

/// The running clients.
pub(crate) type Load = Clients<Tally>;

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
        let path: Arc<str> = path.into();
        Clients::run(target, move |shared| {
            (0..clients).map(|_| client(Arc::clone(&shared), Arc::clone(&path)).boxed_local()).collect()
        })
    }

    /// Waits until so many more requests were answered.
    pub(crate) async fn more(&self, requests: u64) {
        let before = self.count();
        eventually("more requests to be served", async || (self.count() >= before + requests).then_some(())).await;
    }
}

impl clients::Tally for Tally {
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
}

impl Tally {
    /// Fails unless every request was answered.
    pub(crate) fn all_served(&self) {
        assert!(self.failures.is_empty(), "{} of {} failed: {:?}", self.failures.len(), self.served, self.failures);
        assert!(self.served > 100, "{} requests are not a load", self.served);
    }
}

async fn client(shared: Arc<Shared>, path: Arc<str>) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<SendRequest<Empty<Bytes>>> = None;
    while !shared.stopped() {
        let mut open = kept.take();
        if let Some(sender) = &mut open
            && sender.ready().await.is_err()
        {
            open = None;
        }
        if open.is_none()
            && let Some(stream) = shared.connect(&mut tally.refused).await
        {
            open = Some(clients::http1(stream).await);
        }
        let Some(mut sender) = open else {
            if !shared.stopped() {
                tally.failures.push((shared.at(), "no connection for ten seconds".to_owned()));
            }
            continue;
        };
        let asked = Instant::now();
        match timeout(PATIENCE, ask(&mut sender, &shared.target, &path)).await {
            Ok(Ok(Some(body))) => {
                shared.count.fetch_add(1, Relaxed);
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
            Ok(Err(what)) => tally.failures.push((shared.at(), what)),
            Err(_) => tally.failures.push((shared.at(), "no answer in ten seconds".to_owned())),
        }
        sleep(PACE).await;
    }
    tally
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
