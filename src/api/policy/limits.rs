//! How large requests may be, and of which kinds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::Method;
use crate::api::rules::{rules, texts};

/// How large requests may be, and of which kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "has(self.bodyBytes) || has(self.headerBytes) || has(self.methods) || has(self.contentTypes)",
    "requestLimits limits nothing; write for example {bodyBytes: 1048576}",
)])))]
pub struct RequestLimits {
    /// The most bytes of a request's content, whether it is announced or not, for example `1048576`. Takes the place of
    /// `limits.bodyBytes` of the settings, up or down; that one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_099_511_627_776_u64))]
    pub body_bytes: Option<u64>,
    /// The most bytes of a request's header fields together. `limits.headerBytes` of the settings is a bound for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 16_777_216))]
    pub header_bytes: Option<u32>,
    /// The methods that may be used, for example `[GET, POST]`; all when absent. HEAD may be used where GET may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub methods: Vec<Method>,
    /// What content requests may have, for example `[application/json, image/*]`; all when absent. Requests without content pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 32),
        extend("items" = texts(127, media_type()), "x-kubernetes-list-type" = "atomic")
    )]
    pub content_types: Vec<String>,
}

/// A media type without parameters, or all of a kind.
pub(super) fn media_type() -> serde_json::Value {
    rules([(
        r#"self.matches("^[-!#$%&'+.^_`|~0-9A-Za-z]+/([*]|[-!#$%&'+.^_`|~0-9A-Za-z]+)$")"#,
        "write a media type without parameters, for example 'application/json' or 'image/*'",
    )])
}
