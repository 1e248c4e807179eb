//! The condition `Healthy` of ProxyUpstreams: how many of their endpoints get requests, as this replica sees it. A sum, and no
//! list of pods, told at most each ten seconds, so that endpoints that flap do not burden the API server.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::Condition;
use crate::resilience::Registry;
use crate::snapshot::{Map, Reader, Snapshot};
use crate::translate::{Key, Statuses};

/// How often endpoints are counted.
const INTERVAL: Duration = Duration::from_secs(10);

/// Endpoints of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    all: usize,
    healthy: usize,
}

/// The conditions of an upstream, and what they were made of.
struct Made {
    of: Arc<[Condition]>,
    count: Count,
    told: Arc<[Condition]>,
}

/// Keeps `told` equal to `statuses`, with the condition added to those of upstreams that look after health; for ever.
pub(super) async fn run(
    mut statuses: watch::Receiver<Statuses>,
    mut reader: Reader,
    registry: Registry,
    told: watch::Sender<Statuses>,
) -> Infallible {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut counts, mut made) = (BTreeMap::new(), BTreeMap::new());
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                counts = reader.current().map(|snapshot| count(snapshot, &registry)).unwrap_or_default();
            }
            changed = statuses.changed() => if changed.is_err() { std::future::pending::<()>().await },
        }
        let now = with(&statuses.borrow_and_update(), &counts, &mut made);
        told.send_if_modified(|before| {
            let differs = *before != now;
            *before = now;
            differs
        });
    }
}

/// The endpoints of each upstream that looks after health.
fn count(snapshot: &Snapshot, registry: &Registry) -> BTreeMap<Arc<str>, Count> {
    let mut counts = BTreeMap::<_, Count>::new();
    for cluster in snapshot.clusters.values() {
        let settings = &cluster.resilience;
        let Some(owner) = settings.owner.as_ref().filter(|_| settings.health.is_some() || settings.ejection.is_some())
        else {
            continue;
        };
        let known = registry.known(&cluster.name);
        let out: Map<SocketAddr, ()> =
            known.iter().filter(|state| !state.is_available()).map(|state| (state.address(), ())).collect();
        let healthy = cluster.endpoints.iter().filter(|endpoint| !out.contains_key(&endpoint.address)).count();
        let count = counts.entry(Arc::clone(owner)).or_default();
        count.all += cluster.endpoints.len();
        count.healthy += healthy;
    }
    counts
}

/// The statuses with the conditions added. What did not change since the last time is the same.
fn with(statuses: &Statuses, counts: &BTreeMap<Arc<str>, Count>, made: &mut BTreeMap<Key, Made>) -> Statuses {
    let mut all = statuses.clone();
    let mut before = std::mem::take(made);
    for (key, conditions) in statuses.upstreams.iter() {
        let Some(&count) = counts.get(&*key.to_string()) else { continue };
        let same = |made: &Made| Arc::ptr_eq(&made.of, conditions) && made.count == count;
        let now = before.remove(key).filter(same).unwrap_or_else(|| {
            let more = [count.condition(conditions.first().and_then(|condition| condition.observed_generation))];
            Made { of: Arc::clone(conditions), count, told: conditions.iter().cloned().chain(more).collect() }
        });
        all.upstreams.insert(key.clone(), Arc::clone(&now.told));
        made.insert(key.clone(), now);
    }
    all
}

impl Count {
    fn condition(self, observed_generation: Option<i64>) -> Condition {
        let Count { all, healthy } = self;
        let (status, reason, message) = match (all, healthy) {
            (0, _) => ("Unknown", "NoEndpoints", "there are no endpoints".to_owned()),
            (_, 0) => ("False", "NoneHealthy", format!("none of {all} endpoints is healthy")),
            _ if healthy < all => ("True", "PartiallyHealthy", format!("{healthy} of {all} endpoints are healthy")),
            _ => ("True", "Healthy", format!("{healthy} of {all} endpoints are healthy")),
        };
        Condition {
            type_: "Healthy".to_owned(),
            status: status.to_owned(),
            observed_generation,
            reason: reason.to_owned(),
            message,
            last_transition_time: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::resilience::KeptOut;
    use crate::snapshot::{self, Cluster, ClusterName, Connections, Ejection, Endpoint, Protocol, Resilience};

    fn cluster(name: &str, owner: Option<&str>, ports: &[u16]) -> Cluster {
        let ejection = owner.map(|_| Ejection::default());
        let resilience = Resilience { owner: owner.map(Arc::from), ejection, ..Resilience::default() };
        Cluster {
            name: ClusterName::new(name),
            protocol: Protocol::Http1,
            connections: Connections {
                connect_timeout: INTERVAL,
                idle_timeout: INTERVAL,
                max_idle_per_endpoint: 1,
                max_requests: None,
                tcp_keep_alive: None,
                upkeep: Default::default(),
                proxy_protocol: None,
                tls: None,
            }
            .into(),
            resilience: Arc::new(resilience),
            endpoints: ports.iter().map(|port| Endpoint::new(([127, 0, 0, 1], *port).into())).collect(),
            move_after: None,
        }
    }

    fn statuses(names: &[&str]) -> Statuses {
        let accepted = Count { all: 1, healthy: 1 }.condition(Some(7));
        let conditions: Arc<[Condition]> = [Condition { type_: "Accepted".to_owned(), ..accepted }].into();
        let upstreams = names.iter().map(|name| (Key::new("shop", *name), Arc::clone(&conditions)));
        Statuses { upstreams: upstreams.collect(), ..Statuses::default() }
    }

    /// `name: status, message` of the condition.
    fn lines(told: &Statuses) -> Vec<String> {
        let of = |(key, conditions): (&Key, &Arc<[Condition]>)| {
            let healthy = conditions.iter().find(|condition| condition.type_ == "Healthy");
            healthy.map(|condition| {
                assert_eq!(condition.observed_generation, Some(7));
                format!("{}: {}, {}", key.name, condition.status, condition.message)
            })
        };
        let mut lines: Vec<_> = told.upstreams.iter().filter_map(of).collect();
        lines.sort();
        lines
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_are_counted_and_changes_told_each_ten_seconds_at_most() {
        let registry = Registry::default();
        let clusters = [
            cluster("shop/llm:80", Some("shop/llm"), &[1, 2]),
            cluster("shop/llm:81", Some("shop/llm"), &[3]),
            cluster("shop/empty:80", Some("shop/empty"), &[]),
            cluster("shop/other:80", None, &[4]),
        ];
        let states = registry.of(&clusters[0], crate::clock::now());
        let clusters = clusters.into_iter().map(|cluster| (cluster.name.clone(), Arc::new(cluster)));
        let (publisher, reader) = snapshot::channel();
        publisher.publish(Snapshot { clusters: clusters.collect(), ..Snapshot::default() });
        let (_translated, translated) = watch::channel(statuses(&["llm", "empty", "other"]));
        let (tell, mut told) = watch::channel(Statuses::default());
        let running = tokio::spawn(run(translated, reader, registry, tell));

        told.changed().await.unwrap();
        assert_eq!(
            lines(&told.borrow_and_update()),
            ["empty: Unknown, there are no endpoints", "llm: True, 3 of 3 endpoints are healthy"]
        );
        let began = tokio::time::Instant::now();
        for round in 0..100 {
            states[0].keep_out(KeptOut::Unhealthy, round % 2 == 0);
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(!told.has_changed().unwrap(), "it flaps");
        }
        states[0].keep_out(KeptOut::Unhealthy, true);
        told.changed().await.unwrap();
        assert!(began.elapsed() > Duration::from_secs(9));
        assert_eq!(lines(&told.borrow_and_update())[1], "llm: True, 2 of 3 endpoints are healthy");
        tokio::time::sleep(5 * INTERVAL).await;
        assert!(!told.has_changed().unwrap(), "nothing is news");
        running.abort();
    }

    #[test]
    fn no_endpoint_is_another_matter_than_none_that_is_healthy() {
        let condition = |all, healthy| {
            let Condition { status, reason, .. } = Count { all, healthy }.condition(None);
            format!("{status} {reason}")
        };
        assert_eq!(condition(0, 0), "Unknown NoEndpoints");
        assert_eq!(condition(3, 0), "False NoneHealthy");
        assert_eq!(condition(3, 1), "True PartiallyHealthy");
        assert_eq!(condition(3, 3), "True Healthy");
    }
}
