//! The input of translation: our objects as they are, and of the Kubernetes objects only what translation reads, so
//! that thousands of them stay small.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::api::{ProxyRoute, ProxyUpstream};

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
    pub routes: BTreeMap<Key, Arc<ProxyRoute>>,
    /// Upstreams.
    pub upstreams: BTreeMap<Key, Arc<ProxyUpstream>>,
    /// Services.
    pub services: BTreeMap<Key, Arc<Service>>,
    /// All EndpointSlices of a Service, by the key of the Service and the name of the slice.
    pub slices: BTreeMap<Key, BTreeMap<Arc<str>, Arc<AddressSlice>>>,
    /// The addresses of names that translation asked for. Absent: not known yet; empty: the name has none.
    pub resolved: BTreeMap<String, Arc<[IpAddr]>>,
}

/// What translation reads of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it points to.
    pub kind: ServiceKind,
    /// Its ports.
    pub ports: Vec<ServicePort>,
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
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<SliceEndpoint>,
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
}
