//! What sections refer to: looked up, and noted, so that they are read again when it changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::leads::Lead;
use crate::translate::conditions::{Problem, reason};
use crate::translate::route;
use crate::translate::{
    ConfigMapData, Context, Key, KeySources, Resources, SecretData, UNREAD_CONFIG_MAP, UNREAD_SECRET,
};

/// Where sections look up what they refer to, which is noted.
pub(in crate::translate) struct Material<'a> {
    pub(super) resources: &'a Resources,
    pub(super) namespace: &'a Arc<str>,
    pub(super) context: &'a Context,
    pub(in crate::translate) unresolved: Vec<Problem>,
    /// What is told, and keeps nobody from applying what is said.
    pub(in crate::translate) lacking: Vec<Problem>,
    /// From where keys are fetched.
    pub(super) key_sources: KeySources,
    /// Where sections lead; which clusters that are, is looked up later.
    pub(super) leads: Vec<(Lead, route::Target)>,
    pub(in crate::translate) secrets: BTreeSet<Key>,
    pub(in crate::translate) config_maps: BTreeSet<Key>,
}

impl<'a> Material<'a> {
    pub(in crate::translate) fn new(resources: &'a Resources, namespace: &'a Arc<str>, context: &'a Context) -> Self {
        let (unresolved, lacking, key_sources, leads, secrets, config_maps) = Default::default();
        Material { resources, namespace, context, unresolved, lacking, key_sources, leads, secrets, config_maps }
    }

    /// A Secret beside the policy. One that is missing is told of with the path of the field, and keeps the policy from being applied.
    pub(in crate::translate) fn secret(&mut self, name: &str, path: &str) -> Option<&'a Arc<SecretData>> {
        let key = Key { namespace: Arc::clone(self.namespace), name: name.into() };
        let found = self.resources.secrets.get(&key);
        if found.is_none() {
            self.missing(path, format!("Secret {key} {UNREAD_SECRET}"));
        }
        self.secrets.insert(key);
        found
    }

    /// The same for a ConfigMap.
    pub(in crate::translate) fn config_map(&mut self, name: &str, path: &str) -> Option<&'a Arc<ConfigMapData>> {
        let key = Key { namespace: Arc::clone(self.namespace), name: name.into() };
        let found = self.resources.config_maps.get(&key);
        if found.is_none() {
            self.missing(path, format!("ConfigMap {key} {UNREAD_CONFIG_MAP}"));
        }
        self.config_maps.insert(key);
        found
    }

    /// What a field refers to is there, and not what it has to be.
    pub(in crate::translate) fn unusable(&mut self, path: &str, message: String) {
        self.unresolved.push(Problem::invalid(path, message));
    }

    /// A ConfigMap beside the policy, which can be applied without it.
    pub(super) fn pages(&mut self, name: &str, path: &str) -> Option<&'a Arc<ConfigMapData>> {
        let key = Key { namespace: Arc::clone(self.namespace), name: name.into() };
        let found = self.resources.config_maps.get(&key);
        if found.is_none() {
            self.lacks(path.to_owned(), format!("ConfigMap {key} {UNREAD_CONFIG_MAP}; Floodway's own page is shown"));
        }
        self.config_maps.insert(key);
        found
    }

    /// What the policy has to do without.
    pub(super) fn lacks(&mut self, path: String, message: String) {
        self.lacking.push(Problem { reason: reason::REF_NOT_FOUND, path, message });
    }

    /// What a field refers to is not there.
    pub(super) fn missing(&mut self, path: &str, message: String) {
        self.unresolved.push(Problem { reason: reason::REF_NOT_FOUND, path: path.to_owned(), message });
    }
}
