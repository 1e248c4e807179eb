//! ProxyRoute: who may be reached, and how. What a rule does once it matched is `action`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{PLAIN_PATH, header_name, host_pattern, object_name, rules, texts};
use super::tls::{PASSTHROUGH_HOSTS, PASSTHROUGH_RULE};
use super::{Condition, HeaderEdits, PolicyRef, Redirect, Respond, Retry, Rewrite, RouteTls, Streaming, Timeouts};

/// Who may be reached, and how: hosts, and rules that say which requests go where.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "floodway.dev",
    version = "v1alpha1",
    kind = "ProxyRoute",
    namespaced,
    doc = "Who may be reached, and how: hosts, and rules that say which requests go where.",
    status = "RouteStatus",
    shortname = "proute",
    category = "floodway",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Accepted')].status"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Programmed')].status"}"#,
    printcolumn = r#"{"name": "Resolved", "type": "string", "jsonPath": ".status.conditions[?(@.type=='ResolvedRefs')].status", "priority": 1}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Programmed')].reason", "priority": 1}"#,
    printcolumn = r#"{"name": "Certificate", "type": "string", "jsonPath": ".spec.tls.secretName", "priority": 1}"#,
    printcolumn = r#"{"name": "Service", "type": "string", "description": "The first of them.", "jsonPath": ".spec.rules[*].backends[*].service.name", "priority": 1}"#,
    printcolumn = r#"{"name": "Upstream", "type": "string", "description": "The first of them.", "jsonPath": ".spec.rules[*].backends[*].upstream.name", "priority": 1}"#,
    printcolumn = r#"{"name": "Policy", "type": "string", "description": "The first of them.", "jsonPath": ".spec.rules[*].policies[*].name", "priority": 1}"#,
    printcolumn = r#"{"name": "Class", "type": "string", "jsonPath": ".spec.className", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "!has(self.tls) || !has(self.tls.secretName) || has(self.hosts)",
        "a certificate is chosen by the host that a client names: tls.secretName needs hosts; for every other host, the settings \
         have listeners.tls.defaultCertificate",
    ),
    PASSTHROUGH_HOSTS,
    PASSTHROUGH_RULE,
])))]
pub struct ProxyRouteSpec {
    /// Which Floodway serves this route, for clusters with several; `floodway` when absent. Others leave it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub class_name: Option<String>,
    /// Hosts to serve, in lower case and without a port: `chat.example.com`, or `*.example.com` for one or more labels
    /// before `example.com`. Every host when absent. A request goes to the most specific host that takes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        extend("items" = texts(253, host_pattern()), "x-kubernetes-list-type" = "set")
    )]
    pub hosts: Vec<String>,
    /// TLS with clients, for example `{secretName: chat-tls, redirect: true}`. Without it, requests of this route come with or without TLS,
    /// and its hosts have the certificate that other routes give them, or the default one of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Box<RouteTls>>,
    /// What to do with which requests. The order matters only between rules that match equally well: an exact path goes
    /// before a regular expression, then the longest prefix, then a method, then more headers, then more query
    /// parameters, then the older object, then the first rule.
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-list-type" = "atomic"),
        extend("x-kubernetes-validations" = rules([(
            "self.all(r, !has(r.name) || self.exists_one(other, has(other.name) && other.name == r.name))",
            "two rules of a route cannot have the same name",
        )]))
    )]
    pub rules: Vec<Rule>,
}

/// What is known of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// `Accepted`: the spec makes sense. `ResolvedRefs`: what it names exists. `Programmed`: requests are served so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// What to do with some requests: exactly one of `backends`, `redirect` and `respond`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "[has(self.backends), has(self.redirect), has(self.respond)].exists_one(it, it)",
        "a rule needs exactly one of backends, redirect and respond",
    ),
    (
        "has(self.backends) || \
         !(has(self.rewrite) || has(self.timeouts) || has(self.retry) || has(self.streaming) || has(self.requestHeaders))",
        "rewrite, timeouts, retry, streaming and requestHeaders are for what goes to an upstream: they need backends",
    ),
    (
        "!has(self.timeouts) || !has(self.timeouts.request) || !has(self.retry) || !has(self.retry.perTryTimeout) || \
         duration(self.retry.perTryTimeout) <= duration(self.timeouts.request)",
        "retry.perTryTimeout is the time for one attempt: it cannot be longer than timeouts.request",
    ),
    (
        "!has(self.timeouts) || !has(self.timeouts.idle) || !has(self.streaming) || !has(self.streaming.sse) || \
         !has(self.streaming.sse.heartbeat) || duration(self.streaming.sse.heartbeat) < duration(self.timeouts.idle)",
        "streaming.sse.heartbeat must be shorter than timeouts.idle, or the stream ends before any is sent",
    ),
    (
        "!has(self.timeouts) || !has(self.timeouts.idle) || !has(self.streaming) || !has(self.streaming.webSocket) || \
         !has(self.streaming.webSocket.pingInterval) || \
         duration(self.streaming.webSocket.pingInterval) < duration(self.timeouts.idle)",
        "streaming.webSocket.pingInterval must be shorter than timeouts.idle, or the WebSocket ends before any is sent",
    ),
    (
        "!has(self.rewrite) || !has(self.rewrite.path) || self.rewrite.path.type != 'ReplacePrefix' || \
         !has(self.matches) || self.matches.all(m, !has(m.path) || m.path.type == 'Prefix')",
        "rewrite.path of type ReplacePrefix needs every match of the rule to have a path of type Prefix",
    ),
    (
        "!has(self.redirect) || !has(self.redirect.path) || self.redirect.path.type != 'ReplacePrefix' || \
         !has(self.matches) || self.matches.all(m, !has(m.path) || m.path.type == 'Prefix')",
        "redirect.path of type ReplacePrefix needs every match of the rule to have a path of type Prefix",
    ),
])))]
pub struct Rule {
    // What few rules have is boxed: thousands of rules are kept.
    /// A name for logs, metrics and status, for example `completions`; the position from 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        extend("x-kubernetes-validations" = rules([(
            "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "a rule's name begins with a letter and is made of lower-case letters, digits and '-'",
        )]))
    )]
    pub name: Option<String>,
    /// The rule applies if any of these holds; to every request when absent. Within one, everything it names must hold.
    /// For example `[{path: {type: Prefix, value: /v1}, method: POST}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<RouteMatch>,
    /// Where requests go, each backend getting its weight's share. For example
    /// `[{service: {name: llm, port: http}, weight: 90}, {service: {name: llm-next, port: http}, weight: 10}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub backends: Vec<Backend>,
    /// Answers with another location, for example `{scheme: https}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Box<Redirect>>,
    /// Answers directly, for example `{status: 503, body: "closed for repairs"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Box<Respond>>,
    /// Edits of the header fields that the upstream gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<Box<HeaderEdits>>,
    /// Edits of the header fields that the client gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<Box<HeaderEdits>>,
    /// Changes of the target before the request goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Box<Rewrite>>,
    /// Timers. There is none for the whole exchange unless it is asked for: a stream may last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Box<Timeouts>>,
    /// What is asked for requests that an endpoint did not serve, for example `{attempts: 3, retryOn: [ConnectFailure, "503"]}`.
    /// Without it a request is sent to another endpoint only if certainly nothing was made of it, or if a connection that was
    /// kept turns out to be closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Box<Retry>>,
    /// What is asked for streams, for example `{maxAge: 1h, sse: {heartbeat: 15s}}`. Without it they are kept alive by nobody
    /// but their two ends, and last as long as these want.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streaming: Option<Box<Streaming>>,
    /// ProxyPolicies that requests of this rule are under, for example `[{name: signed-in}]`. What the first says of something
    /// goes before what the others say of it, and all before what is attached to the route or the upstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub policies: Vec<PolicyRef>,
}

/// One way for a rule to apply: everything it names must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteMatch {
    /// The path, for example `{type: Prefix, value: /v1}`; every path when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// The method, for example `POST`; every method when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Header fields that must be there, for example `[{name: x-tenant, value: blue}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<HeaderMatch>,
    /// Query parameters that must be there, for example `[{name: beta, type: Present}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub query_params: Vec<QueryMatch>,
}

/// How a path is matched. The path of a request is compared in its normal form: without dot segments, and with
/// letters, digits, `-`, `.`, `_` and `~` decoded; an encoded slash is not a slash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    &format!("self.type == 'Regex' || ({PLAIN_PATH})"),
    "a path begins with '/' and has no '//', '/./', '/../', '?', '#' or space, for example '/v1/chat'",
)])))]
pub struct PathMatch {
    /// `Exact`: the whole path. `Prefix`: whole leading segments, so that `/v1` takes `/v1` and `/v1/x`, not `/v1x`.
    /// `Regex`: a regular expression (RE2 syntax, without look-around) for the whole path.
    #[serde(rename = "type", default)]
    pub type_: PathMatchType,
    /// What the path is compared with, for example `/v1/chat`, or `/v[0-9]+/.*` for a regular expression.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Whole leading segments.
    #[default]
    Prefix,
    /// A regular expression for the whole path.
    Regex,
}

/// A request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Patch,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchType {
    /// The whole value.
    #[default]
    Exact,
    /// A regular expression for the whole value.
    Regex,
    /// Any value; `value` must be absent.
    Present,
}

const VALUE_BY_TYPE: (&str, &str) = (
    "(self.type == 'Present') != has(self.value)",
    "a match needs a value, except one of type Present, which takes every value",
);

/// A header field that must be there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([VALUE_BY_TYPE])))]
pub struct HeaderMatch {
    /// The name of the field in any case, for example `x-tenant`.
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = header_name()))]
    pub name: String,
    /// `Exact`: the whole value. `Regex`: a regular expression for the whole value. `Present`: any value.
    #[serde(rename = "type", default)]
    pub type_: MatchType,
    /// What the value is compared with; absent for `Present`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub value: Option<String>,
}

/// A query parameter that must be there. If it is there more than once, its first value counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([VALUE_BY_TYPE])))]
pub struct QueryMatch {
    /// The name of the parameter, decoded and case-sensitive, for example `beta`.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// `Exact`: the whole value. `Regex`: a regular expression for the whole value. `Present`: any value.
    #[serde(rename = "type", default)]
    pub type_: MatchType,
    /// What the decoded value is compared with; absent for `Present`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
}

/// A weighted place where requests go: exactly one of `service` and `upstream`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "has(self.service) != has(self.upstream)",
    "a backend needs exactly one of service and upstream",
)])))]
pub struct Backend {
    /// A Service in the namespace of the route, for example `{name: llm, port: http}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// A ProxyUpstream with endpoints or a hostname of its own, in the namespace of the route: `{name: partner-api}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamRef>,
    /// The share relative to the other backends of the rule: with 90 and 10, nine of ten requests go to the first. 0
    /// takes none.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// A Service and one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// The name of the Service.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = object_name()))]
    pub name: String,
    /// The port of the Service by number (`8080`) or by name (`http`).
    pub port: ServicePort,
}

/// A port of a Service by number or by name. In the CRD: `x-kubernetes-int-or-string`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ServicePort {
    /// `8080`
    Number(u16),
    /// `http`
    Name(String),
}

impl std::fmt::Display for ServicePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ServicePort::Number(number) => write!(f, "{number}"),
            ServicePort::Name(name) => f.write_str(name),
        }
    }
}

impl JsonSchema for ServicePort {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ServicePort".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// With a pattern instead of a rule: to the API server, an int-or-string has no bound that makes rules cheap.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 1,
            "maximum": 65535,
            "minLength": 1,
            "maxLength": 63,
            "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        })
    }
}

/// A ProxyUpstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub name: String,
}
