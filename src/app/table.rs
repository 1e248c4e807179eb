//! The loop that turns objects into a routing table: after every burst of changes, all of them again.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::Condition;
use crate::snapshot::{Cluster, ClusterName, Publisher, SharedMap, Snapshot};
use crate::source::{Store, burst};
use crate::telemetry::{Live, Telemetry};
use crate::translate::{Context, Key, KeySources, Statuses, Translator};

/// Turns what is in the store into the table in force.
pub(super) struct Table {
    store: Store,
    translator: Translator,
    publisher: Publisher,
    telemetry: Telemetry,
    hostnames: watch::Sender<BTreeSet<String>>,
    key_sources: watch::Sender<KeySources>,
    statuses: watch::Sender<Statuses>,
    /// How long the last translation took.
    cost: Duration,
    /// In the table in force.
    routes: usize,
    /// What was last said of what the settings refer to.
    complaint: Option<String>,
}

impl Table {
    pub(super) fn new(store: Store, context: Context, publisher: Publisher, telemetry: Telemetry) -> Self {
        Table {
            store,
            translator: Translator::new(context),
            publisher,
            telemetry,
            hostnames: watch::Sender::default(),
            key_sources: watch::Sender::default(),
            statuses: watch::Sender::default(),
            cost: Duration::ZERO,
            routes: 0,
            complaint: None,
        }
    }

    /// The names that the table needs an address of.
    pub(super) fn hostnames(&self) -> watch::Receiver<BTreeSet<String>> {
        self.hostnames.subscribe()
    }

    /// From where keys are fetched that the table needs.
    pub(super) fn key_sources(&self) -> watch::Receiver<KeySources> {
        self.key_sources.subscribe()
    }

    /// What to tell the owners of the objects.
    pub(super) fn statuses(&self) -> watch::Receiver<Statuses> {
        self.statuses.subscribe()
    }

    /// Translates after every burst of changes, for ever.
    pub(super) async fn follow(&mut self) -> Infallible {
        loop {
            self.store.changed().await;
            burst::over(self.cost, || self.store.changed()).await;
            self.translate();
        }
    }

    /// Translates what is in the store and publishes it; returns the number of routes.
    pub(super) fn translate(&mut self) -> usize {
        let begun = Instant::now();
        let translation = self.store.read(|resources| self.translator.translate(resources));
        self.cost = begun.elapsed();

        let metrics = self.telemetry.metrics();
        metrics.translated(self.cost);
        // What is counted or collected over all of them is so only if it may have changed: most often it is endpoints.
        let before = self.publisher.current();
        if before.is_none() || *self.statuses.borrow() != translation.statuses {
            for (kind, of) in translation.statuses.kinds() {
                metrics.objects(kind, of.len(), rejected(of));
            }
        }
        let same_routes = before.as_ref().is_some_and(|before| before.router == translation.snapshot.router);
        if !same_routes {
            self.routes = translation.snapshot.router.hosts().map(|(_, host)| host.routes().len()).sum();
        }
        if !same_routes
            || before.as_ref().is_none_or(|before| !before.clusters.same_keys(&translation.snapshot.clusters))
        {
            self.telemetry.forget_absent(names(&translation.snapshot));
        }
        warn_insecure(before.as_deref(), &translation.snapshot);
        let published = self.publisher.publish(translation.snapshot);
        if published {
            metrics.published();
        }
        if self.complaint != translation.complaint {
            translation.complaint.iter().for_each(|complaint| tracing::warn!("settings: {complaint}"));
            self.complaint = translation.complaint;
        }
        replace(&self.hostnames, translation.hostnames);
        replace(&self.key_sources, translation.key_sources);
        replace(&self.statuses, translation.statuses);
        tracing::debug!(routes = self.routes, published, cost = ?self.cost, "translated");
        self.routes
    }
}

/// Says aloud which upstreams believe whoever answers, whenever they begin to.
fn warn_insecure(before: Option<&Snapshot>, now: &Snapshot) {
    let insecure = |cluster: &Cluster| cluster.connections.tls.as_ref().is_some_and(|tls| tls.terms.insecure);
    let known = before.map(|before| before.clusters.clone()).unwrap_or_default();
    for name in now.clusters.differing(&known, Arc::ptr_eq) {
        let begins = now.clusters.get(name).is_some_and(|cluster| insecure(cluster))
            && !known.get(name).is_some_and(|cluster| insecure(cluster));
        if begins {
            tracing::warn!(upstream = %name, "INSECURE: tls.insecureSkipVerify believes whoever answers in place of its endpoints");
        }
    }
}

fn rejected(conditions: &SharedMap<Key, Arc<[Condition]>>) -> usize {
    conditions.values().filter(|conditions| conditions.iter().any(|condition| condition.status == "False")).count()
}

/// The names that metrics may carry.
fn names(snapshot: &Snapshot) -> Live {
    let routes = snapshot.router.hosts().flat_map(|(_, host)| host.routes());
    Live {
        routes: routes.map(|route| route.name.object.clone()).collect(),
        upstreams: snapshot.clusters.keys().map(ClusterName::shared).collect(),
    }
}

fn replace<T: PartialEq>(sender: &watch::Sender<T>, new: T) {
    sender.send_if_modified(|old| {
        let differs = *old != new;
        *old = new;
        differs
    });
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::time::sleep;

    use super::*;
    use crate::snapshot;

    /// How often a table translates while `changes` happen to its store.
    async fn translations<F: Future<Output = ()>>(changes: impl FnOnce(Store) -> F) -> u64 {
        let (store, telemetry) = (Store::default(), Telemetry::default());
        let (publisher, _reader) = snapshot::channel();
        let context = Context {
            class_name: "floodway".to_owned(),
            zone: None,
            defaults: Default::default(),
            policy: Default::default(),
            shared_limits: true,
            default_certificate: None,
            client_certificates: None,
            https_port: 443,
            roots: Default::default(),
            key_hosts: Default::default(),
        };
        let mut table = Table::new(store.clone(), context, publisher, telemetry.clone());
        tokio::select! {
            never = table.follow() => match never {},
            () = async { changes(store).await; sleep(Duration::from_secs(1)).await } => {}
        }
        let text = telemetry.metrics().text();
        let count = text.lines().find_map(|line| line.strip_prefix("floodway_config_translation_seconds_count "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    fn tick(store: &Store) {
        store.update(|_| true);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_translated_once_and_nothing_else_is() {
        assert_eq!(translations(|_| async {}).await, 0);
        let burst = translations(|store| async move {
            for _ in 0..1000 {
                tick(&store);
            }
        });
        assert_eq!(burst.await, 1);
        let apart = translations(|store| async move {
            for _ in 0..5 {
                tick(&store);
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert_eq!(apart.await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_without_end_do_not_put_it_off() {
        let constant = translations(|store| async move {
            // A change each millisecond for half a second; without cost, a burst lasts 4 ms.
            for _ in 0..500 {
                tick(&store);
                sleep(Duration::from_millis(1)).await;
            }
        });
        let count = constant.await;
        assert!((50..=500).contains(&count), "{count}");
    }
}
