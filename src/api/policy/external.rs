//! Whom another service lets pass.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::rules::{duration_within, editable_header_name, host, rules, texts};
use crate::api::{ServiceRef, TimeBounds, UpstreamRef};

/// Of `externalAuth.timeout`.
pub const AUTH_TIMEOUT: TimeBounds = ("10ms", "1m");

/// Whom another service lets pass: it is asked about each request, with a GET that has no content. Its 2xx lets the request pass; a
/// 301, 302, 303, 307, 308 or 4xx becomes the answer of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "has(self.service) != has(self.upstream)",
    "externalAuth needs exactly one of service and upstream, for example {service: {name: auth, port: http}}",
)])))]
pub struct ExternalAuth {
    /// The Service that is asked, in the namespace of the policy, for example `{name: auth, port: http}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// A ProxyUpstream with endpoints or a hostname of its own, in the namespace of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamRef>,
    /// What it is asked for, for example `/verify`; `/` when absent. The path of the request is in `x-forwarded-uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules([(
        r#"self.matches("^/[!$-;=?-_a-z~]*$")"#,
        "write a path with or without a query, for example '/verify'",
    )])))]
    pub path: Option<String>,
    /// The host that it is asked for, for example `auth.example.com`; that of the request when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = host()))]
    pub host: Option<String>,
    /// How long its answer may take, for example `500ms`; `2s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(AUTH_TIMEOUT)))]
    pub timeout: Option<String>,
    /// What becomes of requests about which it says nothing, because it cannot be reached, is too slow, or answers otherwise: `Refuse`
    /// (when absent), they get 503; `Pass`, they go on without what it would have told the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnAuthFailure>,
    /// Headers of the request that it gets; `[authorization, cookie]` when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        extend("items" = texts(256, editable_header_name()), "x-kubernetes-list-type" = "atomic")
    )]
    pub request_headers: Vec<String>,
    /// Headers of its 2xx that the backend gets, for example `[x-user]`. What a client sends under these names is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        extend("items" = texts(256, editable_header_name()), "x-kubernetes-list-type" = "atomic")
    )]
    pub backend_headers: Vec<String>,
    /// Headers of its 2xx that the client gets with the answer of the backend, for example `[set-cookie]`; none when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        extend("items" = texts(256, editable_header_name()), "x-kubernetes-list-type" = "atomic")
    )]
    pub success_headers: Vec<String>,
    /// Headers of its refusal that the client gets; `[location, set-cookie, www-authenticate]` when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        extend("items" = texts(256, editable_header_name()), "x-kubernetes-list-type" = "atomic")
    )]
    pub refusal_headers: Vec<String>,
}

/// What becomes of requests about which a service says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnAuthFailure {
    /// They get 503.
    Refuse,
    /// They go on.
    Pass,
}
