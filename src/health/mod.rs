//! Active health checks: each endpoint of a cluster that wants them is asked now and then whether it is well, once for the
//! whole process, however many routes lead there. Runs on the control thread.
//!
//! What is asked of whom is the snapshot's to say; what follows for requests is `resilience`'s. Endpoints that Kubernetes does
//! not call ready are not in the snapshot and are not asked. Checks have connections of their own, each a new one, because
//! that is what the next client may need: an endpoint that serves its old connections and accepts no new ones is not well.

mod checker;
mod failure;
mod judge;
mod probe;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use checker::{Ask, Checker};
use failure::Failure;
use probe::Sockets;

use crate::clock;
use crate::resilience::{Change, EndpointState, KeptOut, Registry, State, Why};
use crate::snapshot::{
    Cluster, ClusterName, Connections, HealthCheck, Map, Protocol, ProxyProtocol, Reader, SharedMap, Snapshot,
    UpstreamTls,
};
use crate::telemetry::Metrics;

/// Checks at a time. Endpoints that hang take a place for as long as the timeout; others wait for theirs without that counting
/// as their own slowness.
const AT_A_TIME: usize = 256;

/// Checks the endpoints of each snapshot that `reader` reads, for ever.
pub async fn run(reader: Reader, registry: Registry, metrics: Metrics) -> Infallible {
    follow(reader, Checks::new(Sockets, registry, metrics)).await
}

async fn follow<A: Ask>(mut reader: Reader, mut checks: Checks<A>) -> Infallible {
    loop {
        if let Some(snapshot) = reader.current() {
            checks.follow(snapshot);
            // Checks that ended hold their endpoints until they are dropped, which is now.
            tokio::task::yield_now().await;
            checks.registry.prune();
        }
        reader.changed().await;
    }
}

/// Why something that was asked once is not well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unwell {
    /// For people.
    pub why: String,
    /// The status that it answered with, if it is that.
    pub status: Option<u16>,
}

/// Asks an address once, as a check would, within the time of the check.
///
/// # Errors
/// Why it is not well.
pub async fn ask_once(
    address: SocketAddr,
    check: HealthCheck,
    protocol: Protocol,
    tls: Option<Arc<UpstreamTls>>,
) -> Result<(), Unwell> {
    let limit = check.timeout;
    let settings = Settings { check, protocol, proxy_protocol: None, tls };
    let asked = tokio::time::timeout(limit, Sockets.ask(address, &settings)).await;
    asked.unwrap_or(Err(Failure::Timeout(limit))).map_err(|failure| Unwell {
        why: failure.to_string(),
        status: match failure {
            Failure::Status(status) => Some(status),
            _ => None,
        },
    })
}

/// How the endpoints of one cluster are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    check: HealthCheck,
    /// What they speak.
    protocol: Protocol,
    /// What their connections begin with.
    proxy_protocol: Option<ProxyProtocol>,
    /// How TLS is spoken with them.
    tls: Option<Arc<UpstreamTls>>,
}

/// Everything that is being checked.
struct Checks<A> {
    ask: A,
    registry: Registry,
    metrics: Metrics,
    turns: Arc<Semaphore>,
    /// Of the snapshot that was followed last.
    clusters: SharedMap<ClusterName, Arc<Cluster>>,
    checked: Map<ClusterName, CheckedCluster>,
}

/// A cluster that is being checked. Dropping it ends the checks.
struct CheckedCluster {
    settings: watch::Sender<Arc<Settings>>,
    traffic: watch::Receiver<bool>,
    endpoints: Map<SocketAddr, CheckedEndpoint>,
    _traffic: AbortOnDropHandle<Infallible>,
}

struct CheckedEndpoint {
    state: Arc<EndpointState>,
    _task: AbortOnDropHandle<Infallible>,
}

impl<A: Ask> Checks<A> {
    fn new(ask: A, registry: Registry, metrics: Metrics) -> Self {
        let turns = Arc::new(Semaphore::new(AT_A_TIME));
        Checks { ask, registry, metrics, turns, clusters: SharedMap::default(), checked: Map::default() }
    }

    /// Begins, changes and ends checks as a snapshot says.
    fn follow(&mut self, snapshot: &Snapshot) {
        let before = std::mem::replace(&mut self.clusters, snapshot.clusters.clone());
        let differing: Vec<ClusterName> = self.clusters.differing(&before, Arc::ptr_eq).cloned().collect();
        for name in differing {
            let cluster = self.clusters.get(&name).cloned();
            let wanted = cluster.as_ref().and_then(|cluster| {
                let check = cluster.resilience.health.clone()?;
                let Connections { proxy_protocol, tls, .. } = &*cluster.connections;
                let (protocol, proxy_protocol, tls) = (cluster.protocol, *proxy_protocol, tls.clone());
                Some((cluster, Arc::new(Settings { check, protocol, proxy_protocol, tls })))
            });
            match wanted {
                Some((cluster, settings)) => self.check(cluster, settings),
                None => {
                    if let Some(ended) = self.checked.remove(&name) {
                        ended.let_in();
                        self.metrics.forget_health_checks(name.as_str(), &failure::OUTCOMES);
                    }
                }
            }
        }
    }

    fn check(&mut self, cluster: &Cluster, settings: Arc<Settings>) {
        let states = self.registry.of(cluster, clock::now());
        let checked = self.checked.entry(cluster.name.clone()).or_insert_with(|| {
            let (sender, receiver) = watch::channel(Arc::clone(&settings));
            let (tell, traffic) = watch::channel(!settings.check.only_with_traffic);
            let (registry, name) = (self.registry.clone(), cluster.name.clone());
            let asked = move || registry.was_asked(&name);
            let following = tokio::spawn(checker::follow_traffic(asked, receiver, tell));
            CheckedCluster {
                settings: sender,
                traffic,
                endpoints: Map::default(),
                _traffic: AbortOnDropHandle::new(following),
            }
        });
        checked.settings.send_if_modified(|before| {
            let differs = *before != settings;
            *before = settings;
            differs
        });
        let mut before = std::mem::take(&mut checked.endpoints);
        for state in states {
            let address = state.address();
            let endpoint = before.remove(&address).unwrap_or_else(|| {
                let checker = Checker {
                    ask: self.ask.clone(),
                    endpoint: Arc::clone(&state),
                    settings: checked.settings.subscribe(),
                    traffic: checked.traffic.clone(),
                    turns: Arc::clone(&self.turns),
                    metrics: self.metrics.clone(),
                };
                CheckedEndpoint { state, _task: AbortOnDropHandle::new(tokio::spawn(checker.run())) }
            });
            checked.endpoints.insert(address, endpoint);
        }
    }
}

impl CheckedCluster {
    /// Nobody asks any more: whoever is there may get requests.
    fn let_in(&self) {
        let now = clock::now();
        for CheckedEndpoint { state, .. } in self.endpoints.values() {
            // Not the same with `||`: both are to be lifted.
            if state.keep_out(KeptOut::Unhealthy, false) | state.keep_out(KeptOut::Untried, false) {
                let (from, to, why) = (State::Unhealthy, State::Healthy, Why::Reconfigured);
                state.tell(Change { from, to, why, detail: String::new(), at: now, until: None });
            }
        }
    }
}

#[cfg(test)]
mod tests;
