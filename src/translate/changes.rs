//! What differs between the resources that were translated last and those that are to be translated now. An object that
//! did not change has its old `Arc`, and maps share what did not change, so that only what did is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

use super::{Key, Resources, Slices};
use crate::snapshot::SharedMap;

/// Keys of what was added, changed or removed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) routes: BTreeSet<Key>,
    pub(super) upstreams: BTreeSet<Key>,
    pub(super) policies: BTreeSet<Key>,
    pub(super) services: BTreeSet<Key>,
    /// Keys of Services whose slices changed.
    pub(super) slices: BTreeSet<Key>,
    /// Of Secrets, or their last good versions.
    pub(super) secrets: BTreeSet<Key>,
    pub(super) config_maps: BTreeSet<Key>,
    pub(super) resolved: BTreeSet<String>,
    /// Names of sources of keys.
    pub(super) key_sets: BTreeSet<String>,
}

impl Changes {
    /// Brings `seen` up to `now` and says what that took.
    pub(super) fn follow(seen: &mut Resources, now: &Resources) -> Self {
        let Resources {
            routes,
            upstreams,
            policies,
            services,
            slices,
            slices_of: _,
            secrets,
            good_secrets,
            config_maps,
            resolved,
            key_sets,
        } = now;
        let mut changed_secrets = follow(&mut seen.secrets, secrets, Arc::ptr_eq);
        changed_secrets.extend(follow(&mut seen.good_secrets, good_secrets, Arc::ptr_eq));
        Changes {
            routes: follow(&mut seen.routes, routes, Arc::ptr_eq),
            upstreams: follow(&mut seen.upstreams, upstreams, Arc::ptr_eq),
            policies: follow(&mut seen.policies, policies, Arc::ptr_eq),
            services: follow(&mut seen.services, services, Arc::ptr_eq),
            slices: follow(&mut seen.slices, slices, Slices::are),
            secrets: changed_secrets,
            config_maps: follow(&mut seen.config_maps, config_maps, Arc::ptr_eq),
            resolved: follow_names(&mut seen.resolved, resolved),
            key_sets: follow_names(&mut seen.key_sets, key_sets),
        }
    }

    /// Whether nothing changed.
    pub(super) fn is_empty(&self) -> bool {
        let Changes { routes, upstreams, policies, services, slices, secrets, config_maps, resolved, key_sets } = self;
        let keys = [routes, upstreams, policies, services, slices, secrets, config_maps];
        keys.iter().all(|keys| keys.is_empty()) && resolved.is_empty() && key_sets.is_empty()
    }
}

fn follow<K: Ord + Clone + Eq + Hash, V: Clone>(
    seen: &mut SharedMap<K, V>,
    now: &SharedMap<K, V>,
    same: impl Fn(&V, &V) -> bool + Copy,
) -> BTreeSet<K> {
    let changed = now.differing(seen, same).cloned().collect();
    seen.clone_from(now);
    changed
}

fn follow_names<V: Clone + PartialEq>(seen: &mut BTreeMap<String, V>, now: &BTreeMap<String, V>) -> BTreeSet<String> {
    let names = seen.keys().chain(now.keys());
    let changed: BTreeSet<String> = names.filter(|name| seen.get(*name) != now.get(*name)).cloned().collect();
    if !changed.is_empty() {
        seen.clone_from(now);
    }
    changed
}
