//! Objects from an API server: watches that fill the store. What cannot be read is skipped, and what cannot be
//! reached keeps the last good objects in force. What the objects mean is `translate`'s to say.

mod client;
mod item;
mod kinds;
mod narrow;
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
use tokio::sync::{oneshot, watch as watch_channel};

pub use client::{client, client_of, sidecar_client};
pub use narrow::{Naming, Wanted};
pub use once::{Conditions, Looked, Unlisted, look};
pub use report::explain_answer;

use crate::api::{Condition, ProxyPolicySpec, ProxyRouteSpec, ProxyUpstreamSpec};
use crate::ready::Ready;
use crate::source::Store;
use crate::telemetry::Metrics;
use crate::translate::{ConfigMapData, Key, Service};
use kinds::{Kind, Ours, OwnedSlice};
use narrow::Scope;
use references::Secret;
use report::{KindReport, Report, Rights};
use table::Table;
use watch::Manner;

/// Told of every status that a watch saw: the kind, the key, and the object's uid and conditions, or `None` once it is
/// gone.
pub type StatusSeen = dyn Fn(&str, &Key, Option<(&str, &[Condition])>) + Send + Sync;

/// Who watches.
#[derive(Clone)]
pub enum Watcher {
    /// A gateway, of which there are a few: it reads everything, and the newest of it.
    Gateway,
    /// A sidecar, of which there may be thousands: of Services, EndpointSlices, Secrets and ConfigMaps it reads what its objects name.
    Sidecar(Arc<Naming>),
}

/// What the watches fill, and whom they tell.
#[derive(Clone)]
pub struct Watches {
    /// Who watches.
    pub watcher: Watcher,
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

/// Watches that begin together.
struct Group {
    client: Client,
    manner: Manner,
    /// What they read where that is not everything.
    wanted: Option<watch_channel::Receiver<Option<Wanted>>>,
    /// Counts those that are not waited for any more.
    listed: watch_channel::Sender<usize>,
    all: Vec<Watching>,
}

impl Group {
    /// Waits for the first list of each of `count` watches; false if they ended.
    async fn is_listed(mut listed: watch_channel::Receiver<usize>, count: usize) -> bool {
        listed.wait_for(|listed| *listed == count).await.is_ok()
    }
}

/// Watches until dropped. `synced` is told once, when every kind has been listed in every namespace.
pub async fn run(client: Client, watches: Watches, synced: oneshot::Sender<()>) {
    let Watches { watcher, namespaces, policies, secrets, metrics, store, .. } = &watches;
    let (tell, wanted) = watch_channel::channel(None);
    let (manner, wanted) = match watcher {
        Watcher::Gateway => (Manner::OneOfFew, None),
        Watcher::Sidecar(_) => (Manner::OneOfMany, Some(wanted)),
    };
    let group = |wanted| {
        let (client, listed) = (client.clone(), watch_channel::Sender::new(0));
        Group { client, manner, wanted, listed, all: Vec::new() }
    };
    // Those that name others, and the others.
    let (mut naming, mut named) = (group(None), group(wanted));
    let kind = |name, rights| KindReport::new(name, rights, manner, metrics.clone());
    let needed = |name| (kind(name, Rights::Needed), namespaces.as_slice());
    watches.add::<Ours<ProxyRouteSpec>>(&needed("ProxyRoute"), &mut naming);
    watches.add::<Ours<ProxyUpstreamSpec>>(&needed("ProxyUpstream"), &mut naming);
    if let Some(namespaces) = policies {
        watches.add::<Ours<ProxyPolicySpec>>(&(kind("ProxyPolicy", Rights::Needed), namespaces), &mut naming);
    }
    watches.add::<Service>(&needed("Service"), &mut named);
    watches.add::<OwnedSlice>(&needed("EndpointSlice"), &mut named);
    if let Some(namespaces) = secrets {
        let secret = (kind("Secret", Rights::Wanted), namespaces.as_slice());
        watches.add::<Secret<true>>(&secret, &mut named);
        watches.add::<Secret<false>>(&secret, &mut named);
        watches.add::<ConfigMapData>(&(kind("ConfigMap", Rights::Wanted), namespaces), &mut named);
    }
    let (count_naming, count_named) = (naming.all.len(), named.all.len());
    let of_naming = || Group::is_listed(naming.listed.subscribe(), count_naming);
    let of_named = || Group::is_listed(named.listed.subscribe(), count_named);
    let follow_names = async {
        let Watcher::Sidecar(names) = watcher else { return std::future::pending().await };
        // Until slices were read it is not known of any Service which it has.
        store.update(|resources| {
            resources.slices_of.get_or_insert_default();
            false
        });
        narrow::follow(store, names, of_naming(), &tell).await;
    };
    let first_lists = async {
        // An API server that will not do is told of, and nothing is served; whoever upgrades it need not restart anything here.
        let ((), naming, named) = tokio::join!(version::wait(&client, &watches.ready), of_naming(), of_named());
        if naming && named {
            let _ = synced.send(());
        }
        std::future::pending::<()>().await;
    };
    let mut all: FuturesUnordered<Watching> = naming.all.drain(..).chain(named.all.drain(..)).collect();
    tokio::select! {
        _ = all.next() => {}
        () = follow_names => {}
        () = first_lists => {}
    }
}

impl Watches {
    /// Adds the watches of one kind: one for all namespaces or one for each that was named.
    fn add<K: Kind>(&self, (kind, namespaces): &(Arc<KindReport>, &[String]), group: &mut Group) {
        let Group { client, manner, wanted, listed, all } = group;
        let mut add = |api: Api<item::Item<K>>, namespace: Option<&String>| {
            let report = Report::new(kind, namespace.cloned(), &self.ready, listed.clone());
            let table = Table::new(self.store.clone(), Arc::clone(&self.seen));
            let scope = match (&wanted, namespace) {
                (Some(wanted), Some(namespace)) => Scope::named(wanted.clone(), namespace, &self.store),
                _ => Scope::all(),
            };
            all.push(Box::pin(watch::run(api, table, report, scope, *manner)));
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
