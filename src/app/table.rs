//! The loop that turns objects into a routing table: after every burst of changes, all of them again.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::api::Condition;
use crate::snapshot::{Publisher, Snapshot};
use crate::source::Store;
use crate::telemetry::{Live, Telemetry};
use crate::translate::{Context, Key, Statuses, Translator};

/// Silence after which a burst of changes is over.
const QUIET: Duration = Duration::from_millis(1);
/// Bounds of how long a burst may put a translation off. Within them, translating takes at most a fifth of the control
/// thread.
const BURST: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(50));

/// Turns what is in the store into the table in force.
pub(super) struct Table {
    store: Store,
    translator: Translator,
    publisher: Publisher,
    telemetry: Telemetry,
    hostnames: watch::Sender<BTreeSet<String>>,
    statuses: watch::Sender<Statuses>,
    /// How long the last translation took.
    cost: Duration,
}

impl Table {
    pub(super) fn new(store: Store, context: Context, publisher: Publisher, telemetry: Telemetry) -> Self {
        Table {
            store,
            translator: Translator::new(context),
            publisher,
            telemetry,
            hostnames: watch::Sender::default(),
            statuses: watch::Sender::default(),
            cost: Duration::ZERO,
        }
    }

    /// The names that the table needs an address of.
    pub(super) fn hostnames(&self) -> watch::Receiver<BTreeSet<String>> {
        self.hostnames.subscribe()
    }

    /// What to tell the owners of the objects.
    pub(super) fn statuses(&self) -> watch::Receiver<Statuses> {
        self.statuses.subscribe()
    }

    /// Translates after every burst of changes, for ever.
    pub(super) async fn follow(&mut self) -> Infallible {
        loop {
            self.store.changed().await;
            let latest = Instant::now() + (4 * self.cost).clamp(BURST.0, BURST.1);
            while timeout_at(latest.min(Instant::now() + QUIET), self.store.changed()).await.is_ok() {
                if Instant::now() >= latest {
                    break;
                }
            }
            self.translate();
        }
    }

    /// Translates what is in the store and publishes it; returns the number of routes.
    pub(super) fn translate(&mut self) -> usize {
        let begun = Instant::now();
        let translation = self.store.read(|resources| self.translator.translate(resources));
        let routes = translation.snapshot.router.hosts().map(|(_, host)| host.routes().len()).sum();
        self.cost = begun.elapsed();

        let metrics = self.telemetry.metrics();
        metrics.translated(self.cost);
        for (kind, of) in
            [("ProxyRoute", &translation.statuses.routes), ("ProxyUpstream", &translation.statuses.upstreams)]
        {
            metrics.objects(kind, of.len(), rejected(of));
        }
        self.telemetry.forget_absent(names(&translation.snapshot));
        let published = self.publisher.publish(translation.snapshot);
        if published {
            metrics.published();
        }
        replace(&self.hostnames, translation.hostnames);
        replace(&self.statuses, translation.statuses);
        tracing::debug!(routes, published, cost = ?self.cost, "translated");
        routes
    }
}

fn rejected(conditions: &BTreeMap<Key, Arc<[Condition]>>) -> usize {
    conditions.values().filter(|conditions| conditions.iter().any(|condition| condition.status == "False")).count()
}

/// The names that metrics may carry.
fn names(snapshot: &Snapshot) -> Live {
    let routes = snapshot.router.hosts().flat_map(|(_, host)| host.routes());
    Live {
        routes: routes.map(|route| route.name.object.clone()).collect(),
        upstreams: snapshot.clusters.keys().map(|name| name.as_str().into()).collect(),
    }
}

fn replace<T: PartialEq>(sender: &watch::Sender<T>, new: T) {
    sender.send_if_modified(|old| {
        let differs = *old != new;
        *old = new;
        differs
    });
}
