//! What all files of a folder say together. Versions of it share what did not change, so that whoever compares them looks
//! at little.

use std::path::Path;
use std::sync::Arc;

use super::load::Kept;
use super::objects::Object;
use crate::snapshot::{Map, SharedMap};
use crate::translate::{Key, Resources, Slices};

/// The objects to serve, by kind and name, and the file that each is of.
pub(super) type Held<'a> = Map<(&'static str, &'a Key), (&'a Path, &'a Kept)>;

/// All objects of a folder.
#[derive(Default)]
pub(super) struct Union {
    objects: Resources,
    /// How many they are.
    len: usize,
}

impl Union {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Becomes what is `held`. Objects that are equal to those of before stay the same.
    pub(super) fn become_of(&mut self, held: &Held) {
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
            resolved: _,
            key_sets: _,
        } = &mut self.objects;
        self.len = held.len();
        retain(routes, |key| held.contains_key(&("ProxyRoute", key)));
        retain(upstreams, |key| held.contains_key(&("ProxyUpstream", key)));
        retain(policies, |key| held.contains_key(&("ProxyPolicy", key)));
        retain(services, |key| held.contains_key(&("Service", key)));
        retain(secrets, |key| held.contains_key(&("Secret", key)));
        retain(good_secrets, |key| held.contains_key(&("Secret", key)));
        retain(config_maps, |key| held.contains_key(&("ConfigMap", key)));
        let gone: Vec<_> = slices
            .iter()
            .flat_map(|(service, slices)| slices.iter().map(move |(name, _)| (service, name)))
            .filter(|(service, name)| !is_slice_of(held, service, name))
            .map(|(service, name)| (service.clone(), Arc::clone(name)))
            .collect();
        for (service, name) in &gone {
            self.objects.remove_slice(service, name);
        }
        for (_, Kept { key, object, .. }) in held.values() {
            self.put(key, object);
        }
    }

    fn put(&mut self, key: &Key, object: &Object) {
        let Resources {
            routes,
            upstreams,
            policies,
            services,
            slices,
            slices_of: _,
            secrets,
            good_secrets: _,
            config_maps,
            resolved: _,
            key_sets: _,
        } = &mut self.objects;
        match object {
            Object::Route(route) => put(routes, key, route),
            Object::Upstream(upstream) => put(upstreams, key, upstream),
            Object::Policy(policy) => put(policies, key, policy),
            Object::Service(service) => put(services, key, service),
            Object::Secret(secret) => {
                if !secrets.get(key).is_some_and(|old| same(old, secret)) {
                    self.objects.put_secret(key.clone(), Arc::clone(secret));
                }
            }
            Object::ConfigMap(map) => put(config_maps, key, map),
            Object::Slice(service, slice) => {
                let old = slices.get(service).and_then(|slices| slices.get(&key.name));
                if !old.is_some_and(|old| same(old, slice)) {
                    self.objects.put_slice(service.clone(), Arc::clone(&key.name), Arc::clone(slice));
                }
            }
        }
    }

    /// Makes `resources` the same, except for what does not come from files; returns whether that changed anything.
    pub(super) fn apply(&self, resources: &mut Resources) -> bool {
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
            resolved: _,
            key_sets: _,
        } = &self.objects;
        let changed = differ(routes, &resources.routes)
            || differ(upstreams, &resources.upstreams)
            || differ(policies, &resources.policies)
            || differ(services, &resources.services)
            || differ(secrets, &resources.secrets)
            || differ(good_secrets, &resources.good_secrets)
            || differ(config_maps, &resources.config_maps)
            || slices.differing(&resources.slices, Slices::are).next().is_some();
        if changed {
            let (resolved, key_sets) =
                (std::mem::take(&mut resources.resolved), std::mem::take(&mut resources.key_sets));
            *resources = Resources { resolved, key_sets, ..self.objects.clone() };
        }
        changed
    }
}

fn is_slice_of(held: &Held, service: &Key, name: &Arc<str>) -> bool {
    let key = Key { namespace: Arc::clone(&service.namespace), name: Arc::clone(name) };
    let object = held.get(&("EndpointSlice", &key)).map(|(_, kept)| &kept.object);
    matches!(object, Some(Object::Slice(of, _)) if of == service)
}

fn retain<T>(map: &mut SharedMap<Key, Arc<T>>, stays: impl Fn(&Key) -> bool) {
    let gone: Vec<Key> = map.keys().filter(|key| !stays(key)).cloned().collect();
    gone.iter().for_each(|key| drop(map.remove(key)));
}

fn put<T: PartialEq>(map: &mut SharedMap<Key, Arc<T>>, key: &Key, new: &Arc<T>) {
    if !map.get(key).is_some_and(|old| same(old, new)) {
        map.insert(key.clone(), Arc::clone(new));
    }
}

fn same<T: PartialEq>(one: &Arc<T>, other: &Arc<T>) -> bool {
    Arc::ptr_eq(one, other) || **one == **other
}

/// Whether two maps differ, when equal values are shared.
fn differ<T>(new: &SharedMap<Key, Arc<T>>, old: &SharedMap<Key, Arc<T>>) -> bool {
    new.differing(old, Arc::ptr_eq).next().is_some()
}
