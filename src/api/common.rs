//! What several objects share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A condition as `kubectl wait --for=condition=…` reads it: the shape of `meta/v1` Condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs` or `Programmed`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The generation of the spec that was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One CamelCase word for programs.
    pub reason: String,
    /// One sentence for people.
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
    pub kind: String,
    /// The name of the target, in the namespace of this object.
    pub name: String,
}
