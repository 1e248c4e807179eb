//! What answers to failures look like.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::rules::{object_name, rules, texts};

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
    #[schemars(length(min = 1, max = 64), extend("items" = texts(64, reason()), "x-kubernetes-list-type" = "set"))]
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
    rules([("self.matches('^[a-z0-9_]+$')", "write a reason as docs/errors.md has it, for example 'no_endpoint'")])
}

fn entry() -> Value {
    rules([(
        "self.matches('^[-._a-zA-Z0-9]+$')",
        "write the name of an entry of the ConfigMap, for example '404.html'",
    )])
}
