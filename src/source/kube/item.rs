//! One object as a watch delivers it: its name always, and what is kept of it or the reason why it cannot be read. A
//! malformed object is thus an event like any other, and never ends a watch.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::kinds::Kind;
use crate::translate::Malformed;

/// One object. Of its metadata only what the watch itself needs.
#[derive(Clone, Debug)]
pub(super) struct Item<K> {
    metadata: ObjectMeta,
    /// What is kept of it, or why nothing can be.
    pub(super) object: Result<K, Malformed>,
}

impl<K> Item<K> {
    /// Namespace and name.
    pub(super) fn into_parts(self) -> (String, String, Result<K, Malformed>) {
        (self.metadata.namespace.unwrap_or_default(), self.metadata.name.unwrap_or_default(), self.object)
    }
}

impl<'de, K: Kind> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through a `Value`, because a deserializer that failed within an object cannot go on behind it.
        let mut value = Value::deserialize(deserializer)?;
        let text = |field: &str| value.pointer(field).and_then(Value::as_str).map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("/metadata/name"),
            namespace: text("/metadata/namespace"),
            resource_version: text("/metadata/resourceVersion"),
            ..ObjectMeta::default()
        };
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            metadata.remove("annotations");
        }
        Ok(Item { metadata, object: K::read(value) })
    }
}

impl<K: Kind> Resource for Item<K> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::Api::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::Api::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::Api::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::Api::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
