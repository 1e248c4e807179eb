//! What answers to failures look like.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::rules::{object_name, rules, texts};

/// Why Floodway itself answers: the reasons of docs/errors.md, of answers that clients get.
pub const ANSWER_REASONS: [&str; 53] = [
    "bad_request",
    "body_incomplete",
    "http_version",
    "method",
    "expectation",
    "slow_head",
    "target_too_long",
    "headers_too_large",
    "body_too_large",
    "no_route",
    "misdirected",
    "invalid_route",
    "invalid_policy",
    "address_denied",
    "client_certificate_missing",
    "client_certificate_denied",
    "origin_denied",
    "method_not_allowed",
    "content_type",
    "basic_auth_missing",
    "basic_auth_invalid",
    "api_key_missing",
    "api_key_invalid",
    "auth_denied",
    "auth_unavailable",
    "rate_limited",
    "too_many_streams",
    "rate_limit_unavailable",
    "no_rate_key",
    "token_missing",
    "token_invalid",
    "token_expired",
    "claims_refused",
    "keys_unavailable",
    "no_backend",
    "no_endpoint",
    "upstream_overflow",
    "queue_timeout",
    "breaker_open",
    "connect_failed",
    "connect_timeout",
    "upstream_tls",
    "upstream_reset",
    "upstream_protocol",
    "no_websocket",
    "head_timeout",
    "try_timeout",
    "first_byte_timeout",
    "request_timeout",
    "idle",
    "upload_idle",
    "upstream_stalled",
    "draining",
];

/// What answers to failures look like, by their status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "has(self.html) || has(self.json) || has(self.plain)",
        "an error page needs html, json or plain: the entry of the ConfigMap that has it",
    ),
    (
        "!(has(self.endpointAnswers) && self.endpointAnswers && has(self.reasons))",
        "answers of endpoints have no reasons; leave out endpointAnswers or reasons",
    ),
])))]
pub struct ErrorPage {
    /// The statuses that it is for, for example `["5xx", "404"]`.
    #[schemars(length(min = 1, max = 16), extend("items" = texts(3, status()), "x-kubernetes-list-type" = "set"))]
    pub statuses: Vec<String>,
    /// The reasons that it is for, of those in docs/errors.md, for example `[no_endpoint]`; all when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("items" = reason(), "x-kubernetes-list-type" = "set"))]
    pub reasons: Vec<String>,
    /// Whether answers of endpoints with these statuses look like this, too, and not only Floodway's own. Those to HEAD, gRPC, WebSockets
    /// and event streams never do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub endpoint_answers: bool,
    /// The ConfigMap that has the pages, in the namespace of the policy, with the label `floodway.dev/use: "true"`.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub config_map_name: String,
    /// The entry with the page for those who like HTML best, at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = entry()))]
    pub html: Option<String>,
    /// The entry for those who like JSON best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = entry()))]
    pub json: Option<String>,
    /// The entry for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = entry()))]
    pub plain: Option<String>,
}

fn status() -> Value {
    rules([("self.matches('^[45](xx|[0-9][0-9])$')", "write a status or a class of them, for example '404' or '5xx'")])
}

fn reason() -> Value {
    json!({"type": "string", "enum": &ANSWER_REASONS[..]})
}

fn entry() -> Value {
    rules([(
        "self.matches('^[-._a-zA-Z0-9]+$')",
        "write the name of an entry of the ConfigMap, for example '404.html'",
    )])
}
