//! The objects in a text of YAML documents, and what is wrong with it.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{
    GROUP, ProxyPolicy, ProxyPolicySpec, ProxyRoute, ProxyRouteSpec, ProxyUpstream, ProxyUpstreamSpec, validate,
};
use crate::translate::{AddressSlice, ConfigMapData, Key, Malformed, Own, SecretData, Service};
use crate::yaml::{self, Document, Problem};

/// Namespace of objects that name none, as `kubectl` has it.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// An object that translation reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A ProxyRoute.
    Route(Arc<Own<ProxyRouteSpec>>),
    /// A ProxyUpstream.
    Upstream(Arc<Own<ProxyUpstreamSpec>>),
    /// A ProxyPolicy.
    Policy(Arc<Own<ProxyPolicySpec>>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice and the Service it belongs to.
    Slice(Key, Arc<AddressSlice>),
    /// A Secret, of whatever type; labels are for clusters, which hold more than what is meant for Floodway.
    Secret(Arc<SecretData>),
    /// A ConfigMap.
    ConfigMap(Arc<ConfigMapData>),
}

/// An object and where it stands.
#[derive(Clone, Debug)]
pub struct Found {
    /// Namespace and name.
    pub key: Key,
    /// The object.
    pub object: Object,
    /// Which document of the text it is in, for errors that are found later.
    pub document: Arc<Document>,
    /// Where in the document it stands: empty, or `items[3]` in a list.
    pub at: String,
}

/// What a text holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The objects that are sound, in their order.
    pub objects: Vec<Found>,
    /// What is wrong. A text with an entry here is not served.
    pub errors: Vec<Problem>,
    /// What was left out though nothing is wrong with it.
    pub skipped: Vec<Problem>,
    before: Sound,
    now: HashSet<u64>,
}

impl Object {
    /// The kind, as the document says it.
    pub fn kind(&self) -> &'static str {
        match self {
            Object::Route(_) => "ProxyRoute",
            Object::Upstream(_) => "ProxyUpstream",
            Object::Policy(_) => "ProxyPolicy",
            Object::Service(_) => "Service",
            Object::Slice(..) => "EndpointSlice",
            Object::Secret(_) => "Secret",
            Object::ConfigMap(_) => "ConfigMap",
        }
    }
}

impl Found {
    /// A problem with the field at `path` of this object.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        self.document.problem(yaml::join(&self.at, path), message)
    }
}

/// Which values were found sound the last time, so that a change of one object does not validate thousands again.
#[derive(Debug, Default)]
pub struct Sound {
    digests: HashSet<u64>,
    hasher: foldhash::fast::RandomState,
}

/// Reads all objects of a text. `sound` is what an earlier version of it left there, and becomes what this one leaves.
pub fn parse(text: &[u8], sound: &mut Sound) -> Parsed {
    let next = Sound { digests: HashSet::new(), hasher: sound.hasher.clone() };
    let mut parsed = Parsed { before: std::mem::replace(sound, next), ..Parsed::default() };
    for document in yaml::documents(text) {
        match document {
            Ok(document) => {
                let document = Arc::new(document);
                parsed.object(&document, &document.value, "");
            }
            Err(problem) => parsed.errors.push(problem),
        }
    }
    sound.digests = std::mem::take(&mut parsed.now);
    parsed
}

impl Parsed {
    fn object(&mut self, document: &Arc<Document>, value: &Value, at: &str) {
        let wrong = |path: &str, message: String| document.problem(yaml::join(at, path), message);
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            let message = "every document begins with `apiVersion` and `kind`".to_owned();
            self.errors.push(wrong("", message));
            return;
        };
        let (group, version_only) = version.rsplit_once('/').unwrap_or(("", version));
        let read = match (group, version_only, kind) {
            (GROUP, "v1alpha1", "ProxyRoute" | "ProxyUpstream" | "ProxyPolicy") => {
                let digest = self.before.hasher.hash_one(value);
                if !self.before.digests.contains(&digest) {
                    let violations = validate(kind, value);
                    if !violations.is_empty() {
                        self.errors.extend(violations.into_iter().map(|found| wrong(&found.path, found.message)));
                        return;
                    }
                }
                self.now.insert(digest);
                ours(document, value, at, kind)
            }
            ("", "v1", "Service") => service(document, value, at),
            ("", "v1", "Secret") => data(document, value, at, SecretData::read, Object::Secret),
            ("", "v1", "ConfigMap") => data(document, value, at, ConfigMapData::read, Object::ConfigMap),
            ("discovery.k8s.io", "v1", "EndpointSlice") => match slice(document, value, at) {
                Ok(None) => {
                    let message = "an EndpointSlice without the label kubernetes.io/service-name belongs to no Service";
                    self.skipped.push(wrong("metadata", message.to_owned()));
                    return;
                }
                Ok(Some(slice)) => Ok(slice),
                Err(problem) => Err(problem),
            },
            (_, _, list) if list.ends_with("List") && value.get("items").is_some_and(Value::is_array) => {
                for (index, item) in value["items"].as_array().into_iter().flatten().enumerate() {
                    self.object(document, item, &yaml::join(at, &format!("items[{index}]")));
                }
                return;
            }
            (GROUP, "v1alpha1", _) => {
                let message =
                    format!("{kind:?} is not a kind of {GROUP}; there are ProxyRoute, ProxyUpstream and ProxyPolicy");
                Err(wrong("kind", message))
            }
            (GROUP, _, _) => Err(wrong("apiVersion", format!("unknown version {version:?}; write {GROUP}/v1alpha1"))),
            (_, _, "ProxyRoute" | "ProxyUpstream" | "ProxyPolicy") => {
                Err(wrong("apiVersion", format!("{kind} is of {GROUP}/v1alpha1, not of {version:?}")))
            }
            _ => {
                let message = format!("{kind} of {version} is not read here");
                self.skipped.push(wrong("kind", message));
                return;
            }
        };
        match read {
            Ok((key, object)) => {
                self.objects.push(Found { key, object, document: Arc::clone(document), at: at.to_owned() });
            }
            Err(problem) => self.errors.push(problem),
        }
    }
}

type Read = Result<(Key, Object), Problem>;

fn ours(document: &Document, value: &Value, at: &str, kind: &str) -> Read {
    match kind {
        "ProxyRoute" => {
            let (key, route) = named::<ProxyRoute>(document, value, at)?;
            Ok((key, Object::Route(Arc::new(route.into()))))
        }
        "ProxyUpstream" => {
            let (key, upstream) = named::<ProxyUpstream>(document, value, at)?;
            Ok((key, Object::Upstream(Arc::new(upstream.into()))))
        }
        _ => {
            let (key, policy) = named::<ProxyPolicy>(document, value, at)?;
            Ok((key, Object::Policy(Arc::new(policy.into()))))
        }
    }
}

fn service(document: &Document, value: &Value, at: &str) -> Read {
    let (key, service) = named::<core::Service>(document, value, at)?;
    let service = Service::from_object(&service).map_err(|malformed| malformed_at(document, at, &malformed.0))?;
    Ok((key, Object::Service(Arc::new(service))))
}

fn slice(document: &Document, value: &Value, at: &str) -> Result<Option<(Key, Object)>, Problem> {
    let (key, slice) = named::<discovery::EndpointSlice>(document, value, at)?;
    let Some(service) = AddressSlice::service_of(&slice) else { return Ok(None) };
    let slice = AddressSlice::from_object(&slice).map_err(|malformed| malformed_at(document, at, &malformed.0))?;
    Ok(Some((key, Object::Slice(service, Arc::new(slice)))))
}

/// A Secret or a ConfigMap. Only its metadata is read as a type: serde's errors would repeat what they do not understand.
fn data<T>(
    document: &Document,
    value: &Value,
    at: &str,
    read: impl Fn(Value) -> Result<T, Malformed>,
    object: impl Fn(Arc<T>) -> Object,
) -> Read {
    let (key, _) = named::<PartialObjectMeta<core::ConfigMap>>(document, value, at)?;
    let data = read(value.clone()).map_err(|malformed| malformed_at(document, at, &malformed.0))?;
    Ok((key, object(Arc::new(data))))
}

/// The object with its namespace filled in.
fn named<T: DeserializeOwned + ResourceExt>(document: &Document, value: &Value, at: &str) -> Result<(Key, T), Problem> {
    let mut object: T = document.read_part(value, at)?;
    let name = object.name_any();
    if name.is_empty() || object.meta().name.is_none() {
        return Err(document.problem(yaml::join(at, "metadata.name"), "every object has a name"));
    }
    let namespace = object.namespace().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    object.meta_mut().namespace = Some(namespace.clone());
    Ok((Key::new(namespace, name), object))
}

/// The sentence of a malformed object begins with the path of the field.
fn malformed_at(document: &Document, at: &str, sentence: &str) -> Problem {
    match sentence.split_once(": ") {
        Some((path, message)) if !path.contains(' ') => document.problem(yaml::join(at, path), message),
        _ => document.problem(at, sentence),
    }
}
