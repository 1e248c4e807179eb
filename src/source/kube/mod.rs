//! Objects from an API server: watches that fill the store. What cannot be read is skipped, and what cannot be
//! reached keeps the last good objects in force. What the objects mean is `translate`'s to say.

mod client;
mod item;
mod kinds;
mod once;
mod references;
mod report;
mod table;
pub mod version;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use kube::{Api, Client};
use tokio::sync::oneshot;

pub use client::{client, client_of};
pub use once::{Conditions, Looked, Unlisted, look};
pub use report::explain_answer;

use crate::api::{Condition, ProxyPolicySpec, ProxyRouteSpec, ProxyUpstreamSpec};
use crate::ready::Ready;
use crate::source::Store;
use crate::telemetry::Metrics;
use crate::translate::{ConfigMapData, Key, Service};
use kinds::{Kind, Ours, OwnedSlice};
use references::Secret;
use report::{KindReport, Report, Rights};
use table::Table;

/// Told of every status that a watch saw: the kind, the key, and the object's uid and conditions, or `None` once it is
/// gone.
pub type StatusSeen = dyn Fn(&str, &Key, Option<(&str, &[Condition])>) + Send + Sync;

/// What the watches fill, and whom they tell.
#[derive(Clone)]
pub struct Watches {
    /// Only these namespaces; all of them if empty.
    pub namespaces: Vec<String>,
    /// The namespaces whose policies are read, all of them if empty; `None` reads none.
    pub policies: Option<Vec<String>>,
    /// The namespaces whose Secrets and ConfigMaps are read, all of them if empty; `None` reads none. Without the right to
    /// do so everything else goes on.
    pub secrets: Option<Vec<String>>,
    /// Gets the objects.
    pub store: Store,
    /// Waits for the first list of each kind.
    pub ready: Ready,
    /// Learns of connections, errors and skipped objects.
    pub metrics: Metrics,
    /// Learns of statuses.
    pub seen: Arc<StatusSeen>,
}

type Watching = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Watches until dropped. `synced` is told once, when every kind has been listed in every namespace.
pub async fn run(client: Client, watches: Watches, synced: oneshot::Sender<()>) {
    let (listed, mut progress) = tokio::sync::watch::channel(0);
    let mut all: FuturesUnordered<Watching> = FuturesUnordered::new();
    let Watches { namespaces, policies, secrets, metrics, .. } = &watches;
    let kind = |name, rights| KindReport::new(name, rights, metrics.clone());
    let needed = |name| (kind(name, Rights::Needed), namespaces.as_slice());
    watches.add::<Ours<ProxyRouteSpec>>(&client, &needed("ProxyRoute"), &listed, &mut all);
    watches.add::<Ours<ProxyUpstreamSpec>>(&client, &needed("ProxyUpstream"), &listed, &mut all);
    if let Some(namespaces) = policies {
        let policies = (kind("ProxyPolicy", Rights::Needed), namespaces.as_slice());
        watches.add::<Ours<ProxyPolicySpec>>(&client, &policies, &listed, &mut all);
    }
    watches.add::<Service>(&client, &needed("Service"), &listed, &mut all);
    watches.add::<OwnedSlice>(&client, &needed("EndpointSlice"), &listed, &mut all);
    if let Some(namespaces) = secrets {
        let wanted = |name| (kind(name, Rights::Wanted), namespaces.as_slice());
        let secret = wanted("Secret");
        watches.add::<Secret<true>>(&client, &secret, &listed, &mut all);
        watches.add::<Secret<false>>(&client, &secret, &listed, &mut all);
        watches.add::<ConfigMapData>(&client, &wanted("ConfigMap"), &listed, &mut all);
    }
    let count = all.len();
    let first_lists = async {
        // An API server that will not do is told of, and nothing is served; whoever upgrades it need not restart anything here.
        let ((), listed) = tokio::join!(version::wait(&client, &watches.ready), async {
            progress.wait_for(|listed| *listed == count).await.is_ok()
        });
        if listed {
            let _ = synced.send(());
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = all.next() => {}
        () = first_lists => {}
    }
}

impl Watches {
    /// Adds the watches of one kind: one for all namespaces or one for each that was named.
    fn add<K: Kind>(
        &self,
        client: &Client,
        (kind, namespaces): &(Arc<KindReport>, &[String]),
        listed: &tokio::sync::watch::Sender<usize>,
        all: &mut FuturesUnordered<Watching>,
    ) {
        let add = |api: Api<item::Item<K>>, namespace: Option<&String>| {
            let report = Report::new(kind, namespace.cloned(), &self.ready, listed.clone());
            let table = Table::new(self.store.clone(), Arc::clone(&self.seen));
            all.push(Box::pin(watch::run(api, table, report)));
        };
        if namespaces.is_empty() {
            add(Api::all(client.clone()), None);
        }
        for namespace in *namespaces {
            add(Api::namespaced(client.clone(), namespace), Some(namespace));
        }
    }
}

#[cfg(test)]
mod tests;
