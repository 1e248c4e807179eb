//! What a rule of a ProxyRoute does with the requests it takes: edits, rewrites, redirects, direct answers, timers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{PLAIN_PATH, duration, editable_header_name, host, rules, texts};

/// Edits of header fields, applied in the order remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "has(self.set) || has(self.add) || has(self.remove)",
    "header edits need at least one of set, add and remove",
)])))]
pub struct HeaderEdits {
    /// Fields that replace what is there, for example `[{name: x-tenant, value: blue}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub set: Vec<Header>,
    /// Fields that come beside what is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub add: Vec<Header>,
    /// Names of fields to take out, for example `[x-debug, server]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("items" = texts(128, editable_header_name()), "x-kubernetes-list-type" = "set")
    )]
    pub remove: Vec<String>,
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The name of the field in any case, for example `x-tenant`.
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = editable_header_name()))]
    pub name: String,
    /// The value of the field.
    #[schemars(
        length(max = 4096),
        extend("x-kubernetes-validations" = rules([(
            "!self.matches('[[:cntrl:]]')",
            "a header value holds no line breaks or other control characters",
        )]))
    )]
    pub value: String,
}

/// Changes of the target before the request goes out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "has(self.path) || has(self.host)",
    "a rewrite needs a path or a host",
)])))]
pub struct Rewrite {
    /// The new path; the query stays. For example `{type: ReplacePrefix, value: /api}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// The Host that the upstream sees, for example `api.internal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = host()))]
    pub host: Option<String>,
}

/// A new path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    PLAIN_PATH,
    "a path begins with '/' and has no '//', '/./', '/../', '?', '#' or space, for example '/v1/chat'",
)])))]
pub struct PathRewrite {
    /// `ReplacePrefix`: what replaces the prefix that matched, so that with the prefix `/old` and the value `/new`,
    /// `/old/x` becomes `/new/x`; needs matches of type Prefix. `ReplaceFull`: what replaces the whole path.
    #[serde(rename = "type")]
    pub type_: PathRewriteType,
    /// What comes instead, for example `/new`; `/` takes a prefix away.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// What a path rewrite replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathRewriteType {
    /// The prefix that matched.
    ReplacePrefix,
    /// The whole path.
    ReplaceFull,
}

/// Answers with another location; what is absent stays as the request has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "has(self.scheme) || has(self.host) || has(self.port) || has(self.path)",
    "a redirect needs a scheme, host, port or path, or it leads back to where it came from",
)])))]
pub struct Redirect {
    /// The new scheme: `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The new host, for example `www.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = host()))]
    pub host: Option<String>,
    /// The new port. When only the scheme changes, its own port is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The new path; the query stays. For example `{type: ReplacePrefix, value: /new}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// 301, 302 (the default), 303, 307 or 308. With 307 and 308 clients repeat method and body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub status: Option<u16>,
}

/// A scheme of the web.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Scheme {
    Http,
    Https,
}

/// Answers directly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    ("has(self.body) || !has(self.contentType)", "contentType says what body is: it needs a body"),
    ("!has(self.body) || !(self.status in [204, 205, 304])", "answers with status 204, 205 or 304 have no body"),
])))]
pub struct Respond {
    /// The status, 200 to 599.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// The Content-Type of the body; `text/plain; charset=utf-8` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        extend("x-kubernetes-validations" = rules([(
            "self.matches('^[!-~]+/[!-~]([ -~]*[!-~])?$')",
            "write a media type, for example 'application/json'",
        )]))
    )]
    pub content_type: Option<String>,
    /// The body, for example `closed for repairs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub body: Option<String>,
}

/// Timers. Durations are written like `30s`, `1m30s` or `500ms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "!has(self.request) || !has(self.connect) || duration(self.request) >= duration(self.connect)",
        "timeouts.request is the time for the whole exchange: it cannot be shorter than timeouts.connect",
    ),
    (
        "!has(self.request) || !has(self.responseHead) || duration(self.request) >= duration(self.responseHead)",
        "timeouts.request is the time for the whole exchange: it cannot be shorter than timeouts.responseHead",
    ),
    (
        "!has(self.request) || !has(self.firstByte) || duration(self.request) >= duration(self.firstByte)",
        "timeouts.request is the time for the whole exchange: it cannot be shorter than timeouts.firstByte",
    ),
])))]
pub struct Timeouts {
    /// Time to connect to an endpoint, for example `2s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub connect: Option<String>,
    /// Time from the request sent to the head of the response, for example `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub response_head: Option<String>,
    /// Time from the head of the response to the first byte of its content, for example `20s`; that of `idle` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub first_byte: Option<String>,
    /// Silence in both directions after which a stream is ended, for example `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub idle: Option<String>,
    /// How long a side may take nothing of what waits for it, until the exchange is ended; for example `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub stall: Option<String>,
    /// Time for the whole exchange; none by default, because streams are not requests that take long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub request: Option<String>,
}
