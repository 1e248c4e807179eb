//! Where in a request a token or a key is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::rules::{header_name, rules};

/// A place where a token or a key can be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "(has(self.header) ? 1 : 0) + (has(self.cookie) ? 1 : 0) + (has(self.query) ? 1 : 0) == 1",
        "a place needs exactly one of header, cookie and query, for example {cookie: session}",
    ),
    ("!has(self.prefix) || has(self.header)", "prefix is of a header: it needs header"),
])))]
pub struct TokenSource {
    /// A header field, for example `authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = header_name()))]
    pub header: Option<String>,
    /// The word before the token in it, in any case; `Bearer` in `authorization` and nothing in others when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-validations" = token()))]
    pub prefix: Option<String>,
    /// A cookie, for example `session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = token()))]
    pub cookie: Option<String>,
    /// A parameter of the query, for example `access_token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = token()))]
    pub query: Option<String>,
}

/// RFC 9110 5.6.2.
fn token() -> serde_json::Value {
    rules([(
        r#"self.matches("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")"#,
        "write letters, digits, '-', '_' and '.', without spaces",
    )])
}
