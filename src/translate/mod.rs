//! From objects to a routing table. Pure: no async, no clock, no I/O; and it never fails: what is wrong becomes a
//! condition on the object and a route that answers 5xx, never a missing rule.

mod action;
mod backend;
mod changes;
mod conditions;
mod conflicts;
mod convert;
mod matches;
mod resources;
mod route;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use convert::Malformed;
pub use resources::{
    AddressSlice, Key, Resources, Service, ServiceKind, ServicePort, SliceEndpoint, SlicePort, TargetPort,
};

use self::backend::{Lookup, Source};
use self::changes::Changes;
use self::conflicts::HostState;
use self::route::RouteState;
use self::upstream::{Place, UpstreamPlan, Upstreams};
use crate::api::Condition;
use crate::settings::RouteDefaults;
use crate::snapshot::{ClusterName, HostPattern, Map, Router, Snapshot};

/// What translation needs to know of the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// Routes of other classes are left alone.
    pub class_name: String,
    /// Values for routes that do not say otherwise.
    pub defaults: RouteDefaults,
}

/// The conditions of every object of ours that was read, without times. What did not change since the last translation
/// is shared with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    /// Of routes of our class.
    pub routes: Arc<BTreeMap<Key, Arc<[Condition]>>>,
    /// Of upstreams.
    pub upstreams: Arc<BTreeMap<Key, Arc<[Condition]>>>,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// The routing table.
    pub snapshot: Snapshot,
    /// What to tell the owners of the objects.
    pub statuses: Statuses,
    /// Names that the table needs an address of; the answers come back as [`Resources::resolved`].
    pub hostnames: BTreeSet<String>,
}

/// Translates again and again, and remembers what came of objects that have not changed. The result never depends on
/// what it remembers.
#[derive(Debug)]
pub struct Translator {
    context: Context,
    /// What was translated last.
    seen: Resources,
    routes: BTreeMap<Key, RouteState>,
    upstreams: Upstreams,
    hosts: Map<HostPattern, HostState>,
    clusters: Map<ClusterName, ClusterState>,
    /// The clusters of each Service that has slices: what a change of endpoints touches.
    of_service: Map<Key, Vec<ClusterName>>,
    last: Translation,
}

/// What a cluster was made of, beside its endpoints.
#[derive(Debug)]
struct ClusterState {
    source: Source,
    settings: Option<Arc<UpstreamPlan>>,
}

impl Translator {
    /// A translator that remembers nothing yet.
    pub fn new(context: Context) -> Self {
        Translator {
            context,
            seen: Resources::default(),
            routes: BTreeMap::new(),
            upstreams: Upstreams::default(),
            hosts: Map::default(),
            clusters: Map::default(),
            of_service: Map::default(),
            last: Translation::default(),
        }
    }

    /// Translates everything. What did not change since the last time is shared with the last result.
    pub fn translate(&mut self, resources: &Resources) -> Translation {
        let changes = Changes::follow(&mut self.seen, resources);
        if changes.only_endpoints() {
            let touched = changes.slices.iter().filter_map(|service| self.of_service.get(service));
            let touched: Vec<ClusterName> = touched.flatten().cloned().collect();
            touched.iter().for_each(|name| self.build_cluster(name));
        } else {
            self.read(&changes);
            let sources = self.resolve();
            self.build_clusters(sources, &changes);
            self.build_hosts();
            self.tell(&changes);
        }
        self.last.clone()
    }

    /// Objects of ours that changed are read again.
    fn read(&mut self, changes: &Changes) {
        for key in &changes.upstreams {
            match self.seen.upstreams.get(key) {
                Some(object) => {
                    let plan = UpstreamPlan::read(key, object, &self.context);
                    self.upstreams.plans.insert(key.clone(), Arc::new(plan));
                }
                None => drop(self.upstreams.plans.remove(key)),
            }
        }
        if !changes.upstreams.is_empty() {
            self.upstreams.attach();
        }
        for key in &changes.routes {
            let before = self.routes.remove(key);
            let read = self.seen.routes.get(key).and_then(|object| RouteState::read(key, object, &self.context));
            if let Some(mut read) = read {
                read.keep(before, Lookup::new(&self.seen, &self.upstreams, &self.context));
                self.routes.insert(key.clone(), read);
            }
        }
    }

    /// Every reference of every route is looked up again; returns what they lead to.
    fn resolve(&mut self) -> Map<ClusterName, Source> {
        let lookup = Lookup::new(&self.seen, &self.upstreams, &self.context);
        let mut sources = Map::default();
        for state in self.routes.values_mut() {
            state.resolve(lookup, &mut sources);
        }
        // Those of upstreams with addresses of their own are there without a route, too: their names are resolved early.
        for (key, plan) in &self.upstreams.plans {
            if plan.problems.is_empty() && !matches!(plan.place, Place::Services(_)) {
                let source = Source::Upstream(key.clone());
                sources.entry(source.cluster_name()).or_insert(source);
            }
        }
        sources
    }

    fn build_clusters(&mut self, sources: Map<ClusterName, Source>, changes: &Changes) {
        self.last.snapshot.clusters.retain(|name, _| sources.contains_key(name));
        self.clusters.retain(|name, _| sources.contains_key(name));
        self.of_service.clear();
        self.last.hostnames.clear();
        for (name, source) in sources {
            let lookup = Lookup::new(&self.seen, &self.upstreams, &self.context);
            let hostname = lookup.hostname(&source);
            self.last.hostnames.extend(hostname.map(str::to_owned));
            let (settings, touched) = match &source {
                Source::Service(key, _) => {
                    self.of_service.entry(key.clone()).or_default().push(name.clone());
                    let touched = changes.services.contains(key) || changes.slices.contains(key);
                    (self.upstreams.of_service(key), touched)
                }
                Source::Upstream(key) => (self.upstreams.plans.get(key), false),
            };
            let resolved = hostname.is_some_and(|hostname| changes.resolved.contains(hostname));
            let same = |state: &ClusterState| {
                state.source == source && state.settings.as_ref().map(Arc::as_ptr) == settings.map(Arc::as_ptr)
            };
            if touched || resolved || !self.clusters.get(&name).is_some_and(same) {
                let settings = settings.cloned();
                self.clusters.insert(name.clone(), ClusterState { source, settings });
                self.build_cluster(&name);
            }
        }
    }

    /// Builds a cluster, and keeps the old one if it is equal.
    fn build_cluster(&mut self, name: &ClusterName) {
        let lookup = Lookup::new(&self.seen, &self.upstreams, &self.context);
        let Some(cluster) = self.clusters.get(name).and_then(|state| lookup.cluster(&state.source)) else { return };
        let clusters = &mut self.last.snapshot.clusters;
        if clusters.get(name).is_none_or(|before| **before != cluster) {
            clusters.insert(name.clone(), Arc::new(cluster));
        }
    }

    fn build_hosts(&mut self) {
        let (changed, mut lost) = conflicts::group(&mut self.hosts, self.routes.iter());
        for (key, state) in &mut self.routes {
            let lost = lost.remove(key).unwrap_or_default();
            if state.lost != lost {
                state.lost = lost;
                state.conditions = None;
            }
        }
        if changed {
            let hosts = self.hosts.iter();
            self.last.snapshot.router =
                Router::build(hosts.map(|(host, state)| (host.clone(), Arc::clone(&state.virtual_host))));
        }
    }

    /// Says anew what changed about each object.
    fn tell(&mut self, changes: &Changes) {
        let due = self.routes.iter_mut().filter(|(_, state)| state.conditions.is_none());
        let due: Vec<_> =
            due.map(|(key, state)| (key.clone(), Arc::clone(state.conditions.insert(state.verdicts())))).collect();
        let gone = changes.routes.iter().filter(|key| !self.routes.contains_key(*key));
        let gone: Vec<_> = gone.filter(|key| self.last.statuses.routes.contains_key(*key)).collect();
        // Touched only if need be: whoever still reads the last statuses makes this a copy.
        if !due.is_empty() || !gone.is_empty() {
            let told = Arc::make_mut(&mut self.last.statuses.routes);
            gone.into_iter().for_each(|key| drop(told.remove(key)));
            told.extend(due);
        }
        if changes.upstreams.is_empty() && changes.services.is_empty() && changes.resolved.is_empty() {
            return;
        }
        let told = Arc::make_mut(&mut self.last.statuses.upstreams);
        told.retain(|key, _| self.upstreams.plans.contains_key(key));
        for (key, plan) in &self.upstreams.plans {
            let conditions = self.upstreams.verdicts(key, plan, &self.seen);
            if told.get(key) != Some(&conditions) {
                told.insert(key.clone(), conditions);
            }
        }
    }
}

#[cfg(test)]
mod tests;
