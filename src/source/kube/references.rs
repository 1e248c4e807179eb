//! The kinds that other objects refer to: Secrets and ConfigMaps, and of those only the ones that are meant for Floodway.
//! TLS Secrets are found by their type, everything else by its label; the two kinds of Secret have no object in common.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use serde_json::Value;

use super::kinds::Kind;
use super::narrow::{Selection, Wanted};
use crate::translate::{ConfigMapData, Key, Malformed, Resources, SecretData};

/// A Secret that is read for its type (`TLS`) or for its label.
#[derive(Clone, Debug)]
pub(super) struct Secret<const TLS: bool>(SecretData);

impl<const TLS: bool> Kind for Secret<TLS> {
    type Api = core::Secret;
    type Place = ();
    const NAME: &'static str = "Secret";
    const LABELS: Option<&'static str> = if TLS { None } else { Some("floodway.dev/use=true") };
    const FIELDS: Option<&'static str> = Some(if TLS { "type=kubernetes.io/tls" } else { "type!=kubernetes.io/tls" });

    fn selection(wanted: &Wanted, _namespace: &str) -> Selection {
        if wanted.secrets { Selection::All } else { Selection::Nothing }
    }

    fn read(value: Value) -> Result<Self, Malformed> {
        SecretData::read(value).map(Secret)
    }

    fn place(&self) {}

    fn put(self, key: &Key, resources: &mut Resources) -> bool {
        if resources.secrets.get(key).is_some_and(|held| **held == self.0) {
            return false;
        }
        resources.put_secret(key.clone(), Arc::new(self.0));
        true
    }

    fn remove(key: &Key, (): &(), resources: &mut Resources) -> bool {
        // One that was made anew with another type may have come by the other watch before this one hears that it went.
        let ours = resources.secrets.get(key).is_some_and(|held| held.is_tls() == TLS);
        ours && resources.remove_secret(key)
    }
}

impl Kind for ConfigMapData {
    type Api = core::ConfigMap;
    type Place = ();
    const NAME: &'static str = "ConfigMap";
    const LABELS: Option<&'static str> = Some("floodway.dev/use=true");

    fn selection(wanted: &Wanted, _namespace: &str) -> Selection {
        if wanted.config_maps { Selection::All } else { Selection::Nothing }
    }

    fn read(value: Value) -> Result<Self, Malformed> {
        ConfigMapData::read(value)
    }

    fn place(&self) {}

    fn put(self, key: &Key, resources: &mut Resources) -> bool {
        if resources.config_maps.get(key).is_some_and(|held| **held == self) {
            return false;
        }
        resources.config_maps.insert(key.clone(), Arc::new(self));
        true
    }

    fn remove(key: &Key, (): &(), resources: &mut Resources) -> bool {
        resources.config_maps.remove(key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_made_anew_with_another_type_is_not_taken_out_with_the_old_one() {
        let key = Key::new("ns", "a");
        let mut resources = Resources::default();
        let secret = |kind: &str| serde_json::json!({"type": kind, "stringData": {"a": "hush"}});
        let tls = Secret::<true>::read(secret("kubernetes.io/tls"));
        assert!(tls.is_ok_and(|tls| tls.put(&key, &mut resources)));
        let other = Secret::<false>::read(secret("Opaque"));
        assert!(other.is_ok_and(|other| other.put(&key, &mut resources)));
        assert!(!Secret::<true>::remove(&key, &(), &mut resources));
        assert!(resources.secret("ns", "a").is_some_and(|held| !held.is_tls()));
        assert!(Secret::<false>::remove(&key, &(), &mut resources));
        assert!(resources.secrets.is_empty());
    }
}
