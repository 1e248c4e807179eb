//! Which pages of other origins may read answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::rules::{duration_within, rules, texts};

/// How long a browser may keep the answer to a preflight, least and most.
const MAX_AGE: (&str, &str) = ("1s", "24h");

/// Which pages of other origins may read answers (the CORS protocol of the Fetch standard).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "!(has(self.allowCredentials) && self.allowCredentials) || (!('*' in self.allowOrigins) && \
         !(has(self.allowMethods) && '*' in self.allowMethods) && \
         !(has(self.allowHeaders) && '*' in self.allowHeaders) && \
         !(has(self.exposeHeaders) && '*' in self.exposeHeaders))",
        "browsers take no '*' where allowCredentials is true; name the origins, methods and headers",
    ),
    (
        "!(has(self.refuseOthers) && self.refuseOthers) || !('*' in self.allowOrigins)",
        "refuseOthers refuses nobody where allowOrigins has '*'; name the origins",
    ),
])))]
pub struct Cors {
    /// Origins whose pages may read answers: `https://shop.example.com`, `https://*.example.com` for every host below it, at whatever
    /// depth, or `*` for all.
    #[schemars(length(min = 1, max = 256), extend("items" = texts(280, origin()), "x-kubernetes-list-type" = "set"))]
    pub allow_origins: Vec<String>,
    /// Methods that those pages may use beside GET, HEAD and POST, which need no leave, for example `[PUT, DELETE]`; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("items" = texts(32, method()), "x-kubernetes-list-type" = "set"))]
    pub allow_methods: Vec<String>,
    /// Header fields that they may set, for example `[authorization, content-type]`; `*` for all but `authorization`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("items" = texts(128, field()), "x-kubernetes-list-type" = "set"))]
    pub allow_headers: Vec<String>,
    /// Header fields of answers that they may read, beside those that every page may; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("items" = texts(128, field()), "x-kubernetes-list-type" = "set"))]
    pub expose_headers: Vec<String>,
    /// Whether browsers send cookies and other credentials along; no when absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_credentials: bool,
    /// How long a browser may keep the answer to a preflight, from `1s` to `24h`; as long as it likes when absent, which is five
    /// seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(MAX_AGE)))]
    pub max_age: Option<String>,
    /// Whether requests of other origins are refused with 403, WebSockets among them. When absent they go on, and the browser keeps
    /// the answer from the page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refuse_others: bool,
}

/// An origin as browsers write it, perhaps with `*.` before its host; or `*`.
fn origin() -> Value {
    rules([
        (
            "self.matches('^([*]|[a-z][-+.a-z0-9]*://([*][.])?([a-z0-9]([-_a-z0-9]*[a-z0-9])?([.][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*|\\\\[[0-9a-f:.]+\\\\])(:[0-9]{1,5})?)$')",
            "write an origin in lower case and without a path, for example 'https://shop.example.com', 'https://*.example.com' or '*'",
        ),
        (
            "!self.matches('^(https://.*:443|http://.*:80)$')",
            "browsers leave the usual port out of an origin; do the same",
        ),
    ])
}

/// A method (RFC 9110 9.1), or `*`.
fn method() -> Value {
    rules([("self.matches('^([*]|[A-Z][-A-Z]*)$')", "write a method in upper case, for example 'PUT', or '*'")])
}

/// The name of a field, or `*`.
fn field() -> Value {
    rules([("self.matches('^([*]|[-_.0-9A-Za-z]+)$')", "write the name of a header, for example 'x-tenant', or '*'")])
}
