//! What several objects share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::object_name;

/// A condition as `kubectl wait --for=condition=…` reads it: the shape of `meta/v1` Condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `Programmed` or `Healthy`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// The generation of the spec that was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// One CamelCase word for programs.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// One sentence for people.
    #[schemars(length(max = 32768))]
    pub message: String,
    /// When `status` last changed, RFC 3339. Set by whoever writes the status; translation leaves it empty.
    #[serde(default)]
    pub last_transition_time: String,
}

/// What an object is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// The kind of the target; for now `Service`.
    #[schemars(extend("enum" = ["Service"]))]
    pub kind: String,
    /// The name of the target, in the namespace of this object.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub name: String,
}
