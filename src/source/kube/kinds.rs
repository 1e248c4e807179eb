//! The kinds that are watched: what is kept of an object, and where it goes in [`Resources`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::narrow::{self, Selection, Wanted};
use crate::api::{
    Condition, ProxyPolicy, ProxyPolicySpec, ProxyRoute, ProxyRouteSpec, ProxyUpstream, ProxyUpstreamSpec, Violation,
    structure,
};
use crate::translate::{AddressSlice, Key, Malformed, Own, Resources, Service};
use crate::yaml;

/// A kind of object that is watched, and what is kept of one.
pub(super) trait Kind: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// The kind in the API.
    type Api: Resource<DynamicType = (), Scope = NamespaceResourceScope>;
    /// Where an object is in [`Resources`], as far as its own key does not say.
    type Place: Clone + fmt::Debug + PartialEq + Send + 'static;
    /// The name of the kind, for people and as a label.
    const NAME: &'static str;
    /// Which objects are read: by a label, and by a field. All others are never sent.
    const LABELS: Option<&'static str> = None;
    /// See `LABELS`.
    const FIELDS: Option<&'static str> = None;

    /// Which of its objects in a namespace are read where only what is wanted is.
    fn selection(_: &Wanted, _namespace: &str) -> Selection {
        Selection::All
    }
    /// Whether two say the same about this kind in a namespace.
    fn wants_same(one: &Wanted, other: &Wanted, namespace: &str) -> bool {
        Self::selection(one, namespace) == Self::selection(other, namespace)
    }
    /// Told once all is there that is wanted in a namespace; true if that was news.
    fn complete(_: &Wanted, _namespace: &str, _: &mut Resources) -> bool {
        false
    }

    /// What is kept of an object.
    fn read(value: Value) -> Result<Self, Malformed>;
    /// Where it goes.
    fn place(&self) -> Self::Place;
    /// The identity and the conditions that the API server holds of it, for kinds whose status we write.
    fn status(&self) -> Option<(&str, &[Condition])> {
        None
    }
    /// Puts it in; false if an equal one was there, which then stays.
    fn put(self, key: &Key, resources: &mut Resources) -> bool;
    /// Takes it out; false if it was not there.
    fn remove(key: &Key, place: &Self::Place, resources: &mut Resources) -> bool;
}

/// One of our objects, and beside it what is known of its status.
#[derive(Clone, Debug)]
pub(super) struct Ours<S> {
    object: Own<S>,
    uid: String,
    conditions: Vec<Condition>,
}

/// Of the metadata of our objects, what is kept.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
}

/// Metadata, spec and conditions of one of our objects.
fn parts<S: DeserializeOwned>(value: &Value) -> Result<Ours<S>, Malformed> {
    ours(value, field(value, "spec")?, None)
}

/// The same of a policy. One that this version cannot read, or not all of it, is there all the same: what it guards must not stand
/// open. Its targets are still known.
fn policy(value: &Value) -> Result<Ours<ProxyPolicySpec>, Malformed> {
    let read = match structure("ProxyPolicy", value) {
        Some(Violation { path, message }) => Err(Malformed(format!("{path}: {message}"))),
        None => field(value, "spec"),
    };
    match read {
        Ok(spec) => ours(value, spec, None),
        Err(why) => {
            let targets = value.pointer("/spec/targetRefs").and_then(Value::as_array).into_iter().flatten();
            let target_refs = targets.filter_map(|target| read_value(target, "").ok()).collect();
            ours(value, ProxyPolicySpec { target_refs, ..ProxyPolicySpec::default() }, Some(why))
        }
    }
}

fn ours<S>(value: &Value, spec: S, unread: Option<Malformed>) -> Result<Ours<S>, Malformed> {
    let Metadata { uid, generation, creation_timestamp } = field(value, "metadata")?;
    // Conditions that cannot be read are conditions that have to be written again.
    let conditions = value.pointer("/status/conditions").and_then(|conditions| read_value(conditions, "").ok());
    let conditions = conditions.unwrap_or_default();
    Ok(Ours { object: Own { created: creation_timestamp, generation, spec, unread }, uid, conditions })
}

fn field<T: DeserializeOwned>(value: &Value, name: &str) -> Result<T, Malformed> {
    read_value(value.get(name).unwrap_or(&Value::Null), name)
}

/// Reads what stands at the path `at` of an object. It is read as documents of files are: told is which field is wrong,
/// and the program holds the code that reads a type once.
fn read_value<T: DeserializeOwned>(value: &Value, at: &str) -> Result<T, Malformed> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = yaml::join(at, if path == "." { "" } else { &path });
        Malformed(if path.is_empty() { error.inner().to_string() } else { format!("{path}: {}", error.inner()) })
    })
}

fn whole<T: DeserializeOwned>(mut value: Value) -> Result<T, Malformed> {
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    read_value(&value, "")
}

macro_rules! ours {
    ($object:ident, $spec:ident, $field:ident, $read:ident) => {
        impl Kind for Ours<$spec> {
            type Api = $object;
            type Place = ();
            const NAME: &'static str = stringify!($object);

            fn read(value: Value) -> Result<Self, Malformed> {
                $read(&value)
            }

            fn place(&self) {}

            fn status(&self) -> Option<(&str, &[Condition])> {
                Some((&self.uid, &self.conditions))
            }

            fn put(self, key: &Key, resources: &mut Resources) -> bool {
                // Its status is not kept here, so that our own writes of it change nothing.
                if resources.$field.get(key).is_some_and(|held| **held == self.object) {
                    return false;
                }
                resources.$field.insert(key.clone(), Arc::new(self.object));
                true
            }

            fn remove(key: &Key, (): &(), resources: &mut Resources) -> bool {
                resources.$field.remove(key).is_some()
            }
        }
    };
}

ours!(ProxyRoute, ProxyRouteSpec, routes, parts);
ours!(ProxyUpstream, ProxyUpstreamSpec, upstreams, parts);
ours!(ProxyPolicy, ProxyPolicySpec, policies, policy);

impl Kind for Service {
    type Api = core::Service;
    type Place = ();
    const NAME: &'static str = "Service";

    fn selection(wanted: &Wanted, namespace: &str) -> Selection {
        // Few of them change, and a field selector takes one name only.
        match narrow::of(&wanted.services, namespace).next() {
            Some(_) => Selection::All,
            None => Selection::Nothing,
        }
    }

    fn read(value: Value) -> Result<Self, Malformed> {
        Service::from_object(&whole(value)?)
    }

    fn place(&self) {}

    fn put(self, key: &Key, resources: &mut Resources) -> bool {
        if resources.services.get(key).is_some_and(|held| **held == self) {
            return false;
        }
        resources.services.insert(key.clone(), Arc::new(self));
        true
    }

    fn remove(key: &Key, (): &(), resources: &mut Resources) -> bool {
        resources.services.remove(key).is_some()
    }
}

/// A slice and the Service it belongs to, if it belongs to one.
#[derive(Clone, Debug)]
pub(super) struct OwnedSlice {
    service: Option<Key>,
    slice: AddressSlice,
}

impl Kind for OwnedSlice {
    type Api = discovery::EndpointSlice;
    type Place = Option<Key>;
    const NAME: &'static str = "EndpointSlice";

    fn selection(wanted: &Wanted, namespace: &str) -> Selection {
        narrow::slices_of(&wanted.services, namespace)
    }

    fn wants_same(one: &Wanted, other: &Wanted, namespace: &str) -> bool {
        // By names, although the selection is the same where they are many: what is complete is known by name.
        narrow::of(&one.services, namespace).eq(narrow::of(&other.services, namespace))
    }

    fn complete(wanted: &Wanted, namespace: &str, resources: &mut Resources) -> bool {
        let others =
            resources.slices_of.iter().flat_map(|known| known.iter()).filter(|key| *key.namespace != *namespace);
        let known: BTreeSet<Key> = others.chain(narrow::of(&wanted.services, namespace)).cloned().collect();
        let news = resources.slices_of.as_deref() != Some(&known);
        resources.slices_of = Some(Arc::new(known));
        news
    }

    fn read(value: Value) -> Result<Self, Malformed> {
        let slice: discovery::EndpointSlice = whole(value)?;
        Ok(OwnedSlice { service: AddressSlice::service_of(&slice), slice: AddressSlice::from_object(&slice)? })
    }

    fn place(&self) -> Option<Key> {
        self.service.clone()
    }

    fn put(self, key: &Key, resources: &mut Resources) -> bool {
        let Some(service) = self.service else { return false };
        let held = resources.slices.get(&service).and_then(|slices| slices.get(&key.name));
        if held.is_some_and(|held| **held == self.slice) {
            return false;
        }
        resources.put_slice(service, Arc::clone(&key.name), Arc::new(self.slice));
        true
    }

    fn remove(key: &Key, service: &Option<Key>, resources: &mut Resources) -> bool {
        service.as_ref().is_some_and(|service| resources.remove_slice(service, &key.name))
    }
}
