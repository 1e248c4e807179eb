//! The input of translation: the specs of our objects as they are, and of everything else only what translation reads,
//! so that thousands of objects stay small.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::convert::Malformed;
use super::secrets::{ConfigMapData, SecretData};
use super::tls;
use crate::api::{ProxyPolicy, ProxyPolicySpec, ProxyRoute, ProxyRouteSpec, ProxyUpstream, ProxyUpstreamSpec};
use crate::snapshot::{FetchedKeys, SharedMap};

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Everything that was read. An object that changes gets a new `Arc`; one that does not keeps its old one, which is how
/// the translator knows.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Routes of every class.
    pub routes: SharedMap<Key, Arc<Own<ProxyRouteSpec>>>,
    /// Upstreams.
    pub upstreams: SharedMap<Key, Arc<Own<ProxyUpstreamSpec>>>,
    /// Policies.
    pub policies: SharedMap<Key, Arc<Own<ProxyPolicySpec>>>,
    /// Services.
    pub services: SharedMap<Key, Arc<Service>>,
    /// All EndpointSlices of a Service, by the key of the Service.
    pub slices: SharedMap<Key, Slices>,
    /// The Services whose slices are all here, where only those of some are read; otherwise those of all are.
    pub slices_of: Option<Arc<BTreeSet<Key>>>,
    /// Secrets that may be read.
    pub secrets: SharedMap<Key, Arc<SecretData>>,
    /// Of those whose certificate cannot be served: the last version that could. [`Resources::put_secret`] sees to it.
    pub good_secrets: SharedMap<Key, Arc<SecretData>>,
    /// ConfigMaps that may be read.
    pub config_maps: SharedMap<Key, Arc<ConfigMapData>>,
    /// The addresses of names that translation asked for. Absent: not known yet; empty: the name has none.
    pub resolved: BTreeMap<String, Arc<[IpAddr]>>,
    /// The keys that translation asked for, by the names of their sources. Absent: nobody fetches them yet.
    pub key_sets: BTreeMap<String, KeySet>,
}

/// What is known of keys that are fetched.
#[derive(Clone, Debug)]
pub struct KeySet {
    /// Where they are. Newer ones come there without a word.
    pub keys: Arc<FetchedKeys>,
    /// Whether they were fetched at least once.
    pub fetched: bool,
    /// Why they cannot be fetched at the moment.
    pub trouble: Option<Arc<str>>,
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.keys, &other.keys) && self.fetched == other.fetched && self.trouble == other.trouble
    }
}

impl Resources {
    /// The Secret of a name. `None` if there is none, or if it is not one that Floodway reads: [`UNREAD_SECRET`] tells people.
    ///
    /// [`UNREAD_SECRET`]: super::UNREAD_SECRET
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Arc<SecretData>> {
        self.secrets.get(&Key::new(namespace, name))
    }

    /// The ConfigMap of a name. `None` if there is none, or if it is not one that Floodway reads: [`UNREAD_CONFIG_MAP`] tells
    /// people.
    ///
    /// [`UNREAD_CONFIG_MAP`]: super::UNREAD_CONFIG_MAP
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&Arc<ConfigMapData>> {
        self.config_maps.get(&Key::new(namespace, name))
    }

    /// Puts in a Secret. Is it one for TLS that cannot be served, and takes the place of one that could, this one is kept, too, until
    /// there is another that can be served, or none.
    pub fn put_secret(&mut self, key: Key, secret: Arc<SecretData>) {
        let broken = secret.is_tls() && self.secrets.contains_key(&key) && !tls::is_sound(&key, &secret);
        let before = self.secrets.insert(key.clone(), secret);
        if !broken {
            self.good_secrets.remove(&key);
        } else if let Some(before) = before.filter(|before| before.is_tls() && tls::is_sound(&key, before)) {
            self.good_secrets.insert(key, before);
        }
    }

    /// Takes out a Secret; false if it was not there. Who takes one away does not want it served.
    pub fn remove_secret(&mut self, key: &Key) -> bool {
        self.good_secrets.remove(key);
        self.secrets.remove(key).is_some()
    }

    /// Whether it is known which slices a Service has.
    pub fn knows_slices_of(&self, service: &Key) -> bool {
        self.slices_of.as_ref().is_none_or(|known| known.contains(service))
    }

    /// Puts in a slice of a Service.
    pub fn put_slice(&mut self, service: Key, name: Arc<str>, slice: Arc<AddressSlice>) {
        let with = self.slices.get(&service).cloned().unwrap_or_default().with(name, slice);
        self.slices.insert(service, with);
    }

    /// Takes out a slice of a Service; false if it was not there.
    pub fn remove_slice(&mut self, service: &Key, name: &str) -> bool {
        let Some(slices) = self.slices.get(service).filter(|slices| slices.get(name).is_some()) else { return false };
        let left = slices.without(name);
        match left.0.is_empty() {
            true => drop(self.slices.remove(service)),
            false => drop(self.slices.insert(service.clone(), left)),
        }
        true
    }
}

/// What translation reads of an object of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Own<S> {
    /// When it was created; objects from files say nothing of it.
    pub created: Option<Time>,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// The spec.
    pub spec: S,
    /// Why the spec could not be read, of which then only the part is known that did not depend on that. Only policies are kept
    /// like this: of others the last good version stays.
    pub unread: Option<Malformed>,
}

impl From<ProxyRoute> for Own<ProxyRouteSpec> {
    fn from(ProxyRoute { metadata, spec, status: _ }: ProxyRoute) -> Self {
        Own { created: metadata.creation_timestamp, generation: metadata.generation, spec, unread: None }
    }
}

impl From<ProxyUpstream> for Own<ProxyUpstreamSpec> {
    fn from(ProxyUpstream { metadata, spec, status: _ }: ProxyUpstream) -> Self {
        Own { created: metadata.creation_timestamp, generation: metadata.generation, spec, unread: None }
    }
}

impl From<ProxyPolicy> for Own<ProxyPolicySpec> {
    fn from(ProxyPolicy { metadata, spec, status: _ }: ProxyPolicy) -> Self {
        Own { created: metadata.creation_timestamp, generation: metadata.generation, spec, unread: None }
    }
}

/// The slices of a Service, in the order of their names. Nearly always one, so that a tree would be a waste.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slices(Arc<[(Arc<str>, Arc<AddressSlice>)]>);

impl Slices {
    /// The slice of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<AddressSlice>> {
        self.iter().find(|(held, _)| &***held == name).map(|(_, slice)| slice)
    }

    /// Names and slices.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<AddressSlice>)> {
        self.0.iter().map(|(name, slice)| (name, slice))
    }

    /// Whether both are the very same slices.
    pub fn are(&self, other: &Self) -> bool {
        let same =
            |((name, slice), (other, as_slice)): (&(_, _), &(_, _))| name == other && Arc::ptr_eq(slice, as_slice);
        Arc::ptr_eq(&self.0, &other.0) || self.0.len() == other.0.len() && self.0.iter().zip(&*other.0).all(same)
    }

    fn with(&self, name: Arc<str>, slice: Arc<AddressSlice>) -> Self {
        let (before, after): (Vec<_>, Vec<_>) =
            self.0.iter().filter(|(held, _)| *held != name).cloned().partition(|(held, _)| *held < name);
        Slices(before.into_iter().chain([(name, slice)]).chain(after).collect())
    }

    fn without(&self, name: &str) -> Self {
        Slices(self.0.iter().filter(|(held, _)| &**held != name).cloned().collect())
    }
}

/// What translation reads of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it points to.
    pub kind: ServiceKind,
    /// Its ports.
    pub ports: Box<[ServicePort]>,
    /// Its cluster IPs. A sidecar knows by them where a connection was meant to go; the gateway does not look at them.
    pub addresses: Box<[IpAddr]>,
}

/// What a Service points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// EndpointSlices; with or without selector or cluster IP, it makes no difference here.
    Endpoints,
    /// `ExternalName`: a DNS name.
    External(Arc<str>),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty when the Service has one port without a name. Slices name their ports by this.
    pub name: Arc<str>,
    /// Number.
    pub port: u16,
    /// Where it goes; only read for `ExternalName` and headless Services without slices' ports.
    pub target: TargetPort,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

/// Where a port goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container port; slices hold the number.
    Name(Arc<str>),
}

/// What translation reads of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSlice {
    /// Ports that every endpoint of the slice serves.
    pub ports: Box<[SlicePort]>,
    /// Endpoints.
    pub endpoints: Box<[SliceEndpoint]>,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the Service port.
    pub name: Arc<str>,
    /// Number; absent means all ports, which only selectorless slices may say.
    pub port: Option<u16>,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address. (The API allows up to 100 but defines the first only.)
    pub address: IpAddr,
    /// `conditions.ready`; unknown counts as ready.
    pub ready: bool,
    /// `conditions.serving`; unknown counts as serving.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// Where it is; `None` if its slice says nothing of that. Endpoints of a slice that are in the same place share it.
    pub place: Option<Arc<EndpointPlace>>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPlace {
    /// The zone that it is in.
    pub zone: Option<Arc<str>>,
    /// The zones that it is meant to serve: `hints.forZones`.
    pub hints: Box<[Arc<str>]>,
}

impl SliceEndpoint {
    /// The zone that it is in.
    pub(super) fn zone(&self) -> Option<&str> {
        self.place.as_ref()?.zone.as_deref()
    }

    /// The zones that it is meant to serve.
    pub(super) fn hints(&self) -> &[Arc<str>] {
        self.place.as_ref().map_or(&[], |place| &place.hints)
    }
}
