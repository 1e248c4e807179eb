//! Which clusters the table needs: those that a backend leads to, and those of upstreams with endpoints of their own.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Key;
use super::backend::{Lookup, Source};
use super::changes::Changes;
use super::upstream::UpstreamPlan;
use crate::snapshot::{Cluster, ClusterName, Map, SharedMap};

/// Every cluster that somebody needs.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    states: Map<ClusterName, ClusterState>,
    /// The clusters of each Service.
    of_service: Map<Key, Vec<ClusterName>>,
    /// Clusters that are to be built, again or for the last time.
    dirty: BTreeSet<ClusterName>,
}

#[derive(Debug)]
struct ClusterState {
    source: Source,
    /// How many backends lead here.
    users: u32,
    /// What it was built with, beside Services and slices. In a box, because most have nothing of it.
    with: Option<Box<With>>,
}

/// What few clusters are built with.
#[derive(Debug, Default)]
struct With {
    /// The upstream whose settings it has.
    settings: Option<Arc<UpstreamPlan>>,
    /// The cluster that it falls back to.
    fallback: Option<ClusterName>,
    /// The name whose addresses are its endpoints.
    hostname: Option<Arc<str>>,
}

impl ClusterState {
    fn settings(&self) -> Option<&Arc<UpstreamPlan>> {
        self.with.as_ref()?.settings.as_ref()
    }

    fn fallback(&self) -> Option<&ClusterName> {
        self.with.as_ref()?.fallback.as_ref()
    }

    fn hostname(&self) -> Option<&Arc<str>> {
        self.with.as_ref()?.hostname.as_ref()
    }
}

impl Clusters {
    /// A backend leads to `source`.
    pub(super) fn acquire(&mut self, source: Source) -> ClusterName {
        let name = source.cluster_name();
        match self.states.entry(name.clone()) {
            Entry::Occupied(mut state) => state.get_mut().users += 1,
            Entry::Vacant(free) => {
                if let Source::Service(key, _) = &source {
                    let of_service = self.of_service.entry(key.clone()).or_default();
                    // Nearly always the only one.
                    of_service.reserve_exact(1);
                    of_service.push(name.clone());
                }
                free.insert(ClusterState { source, users: 1, with: None });
                self.dirty.insert(name.clone());
            }
        }
        name
    }

    /// A backend that led to a cluster does not any more.
    pub(super) fn release(&mut self, name: &ClusterName) {
        if let Some(state) = self.states.get_mut(name) {
            state.users -= 1;
            if state.users == 0 {
                self.dirty.insert(name.clone());
            }
        }
    }

    /// Notes which clusters these changes touch.
    pub(super) fn touch(&mut self, changes: &Changes, lookup: Lookup<'_>) {
        for key in changes.services.iter().chain(&changes.slices) {
            self.dirty.extend(self.of_service.get(key).into_iter().flatten().cloned());
        }
        let by_services = lookup.has_fallbacks() && !changes.services.is_empty();
        if changes.upstreams.is_empty() && changes.resolved.is_empty() && !by_services {
            return;
        }
        for (name, state) in &self.states {
            let settings = lookup.settings(&state.source).map(Arc::as_ptr) != state.settings().map(Arc::as_ptr);
            let fallback = lookup.fallback(&state.source) != state.fallback();
            if settings || fallback || state.hostname().is_some_and(|hostname| changes.resolved.contains(&**hostname)) {
                self.dirty.insert(name.clone());
            }
        }
    }

    /// Builds what was touched; a cluster that turns out equal keeps its `Arc`. Returns whether a name that needs
    /// addresses came or went.
    pub(super) fn build(&mut self, lookup: Lookup<'_>, built: &mut SharedMap<ClusterName, Arc<Cluster>>) -> bool {
        let mut names_changed = false;
        for name in std::mem::take(&mut self.dirty) {
            let Entry::Occupied(mut entry) = self.states.entry(name.clone()) else { continue };
            let before = entry.get().hostname().cloned();
            let cluster = if entry.get().users > 0 { lookup.cluster(name.clone(), &entry.get().source) } else { None };
            let hostname = cluster.as_ref().and_then(|_| lookup.hostname(&entry.get().source)).map(Arc::from);
            names_changed |= hostname != before;
            if entry.get().users > 0 {
                let settings = lookup.settings(&entry.get().source).cloned();
                let fallback = lookup.fallback(&entry.get().source).cloned();
                let any = settings.is_some() || fallback.is_some() || hostname.is_some();
                entry.get_mut().with = any.then(|| Box::new(With { settings, fallback, hostname }));
            } else if let Source::Service(key, _) = entry.remove().source
                && let Entry::Occupied(mut others) = self.of_service.entry(key)
            {
                others.get_mut().retain(|other| *other != name);
                if others.get().is_empty() {
                    others.remove();
                }
            }
            match cluster {
                Some(cluster) if built.get(&name).is_none_or(|before| **before != cluster) => {
                    built.insert(name, Arc::new(cluster));
                }
                Some(_) => {}
                None => drop(built.remove(&name)),
            }
        }
        names_changed
    }

    /// The names that need addresses.
    pub(super) fn hostnames(&self) -> BTreeSet<String> {
        self.states.values().filter_map(|state| state.hostname()).map(|name| name.to_string()).collect()
    }
}
