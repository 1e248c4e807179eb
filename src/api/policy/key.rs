//! Keys of programs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TokenSource;
use crate::api::rules::{editable_header_name, object_name};

/// Keys of programs, each with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// The Secret with the keys, in the namespace of the policy and labelled `floodway.dev/use: "true"`: the name of an entry is that
    /// of who has the key.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub secret_name: String,
    /// Where the key is looked for, the first place that has one counts: for example `[{header: x-api-key}, {query: key}]`; only
    /// `{header: x-api-key}` when absent. It is taken out of the request before that goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub from: Vec<TokenSource>,
    /// The header that tells the backend whose key it was, for example `x-client`. One that a client sends is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = editable_header_name()))]
    pub forward_name: Option<String>,
}
