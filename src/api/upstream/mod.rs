//! ProxyUpstream: how one Service, or a set of addresses outside the cluster, is connected to.

mod active;
mod balancing;
mod breaker;
mod health;
mod limits;
mod passive;
mod tls;

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{duration, duration_within, rules};
use super::{Condition, PING, Retry, RetryBudget, TargetRef, TimeBounds};

pub use active::{
    ActiveCheck, CHECK_INTERVAL, CHECK_THRESHOLD, CHECK_TIMEOUT, CheckMethod, GrpcCheck, HttpCheck, InitialState,
    TcpCheck, WebSocketCheck,
};
pub use balancing::{
    Algorithm, COOKIE_TTL, CookieKey, HashKey, IssuedCookie, LoadBalancing, Locality, SLOW_START, SameSite, Subset,
    SubsetFallback, TABLE_SIZES,
};
pub use breaker::{AfterHalfOpen, BreakerMode, BreakerWindow, CALL, CircuitBreaker, Fallback, STATE, WINDOW};
pub use health::HealthCheck;
pub use limits::{ADAPTIVE_WINDOW, Adaptive, Limits, PENDING_TIMEOUT};
pub use passive::{EJECTION, EJECTION_INTERVAL, Passive};
pub use tls::UpstreamTls;

/// How one Service, or a set of addresses of its own, is connected to: exactly one of `targetRefs`, `endpoints` and
/// `hostname`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "floodway.dev",
    version = "v1alpha1",
    kind = "ProxyUpstream",
    namespaced,
    doc = "How one Service, or a set of addresses outside the cluster, is connected to.",
    status = "UpstreamStatus",
    shortname = "pup",
    category = "floodway",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Service", "type": "string", "description": "The first of them.", "jsonPath": ".spec.targetRefs[*].name"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Accepted')].status"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Programmed')].status"}"#,
    printcolumn = r#"{"name": "Healthy", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Healthy')].status"}"#,
    printcolumn = r#"{"name": "Health", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Healthy')].message", "priority": 1}"#,
    printcolumn = r#"{"name": "Endpoint", "type": "string", "description": "The first of them.", "jsonPath": ".spec.endpoints[*].address", "priority": 1}"#,
    printcolumn = r#"{"name": "Hostname", "type": "string", "jsonPath": ".spec.hostname", "priority": 1}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Programmed')].reason", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "[has(self.targetRefs), has(self.endpoints), has(self.hostname)].exists_one(it, it)",
        "an upstream needs exactly one of targetRefs, endpoints and hostname",
    ),
    (
        "!has(self.loadBalancing) || !has(self.loadBalancing.subset) || has(self.endpoints)",
        "subsets are made by labels of endpoints, which EndpointSlices and DNS do not have: subset needs endpoints",
    ),
    (
        "!has(self.fallback) || !has(self.fallback.service) || !has(self.targetRefs) || \
         !self.targetRefs.exists(target, target.name == self.fallback.service.name)",
        "a Service cannot be its own fallback",
    ),
])))]
pub struct ProxyUpstreamSpec {
    /// The Services, in this namespace, whose settings these are, for example `[{kind: Service, name: llm}]`. Every
    /// route to them uses these settings. If several upstreams name one Service, the oldest counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"])
    )]
    pub target_refs: Vec<TargetRef>,
    /// Addresses to send to, for example `[{address: 10.0.0.5:8080, weight: 2}]`. Routes name the upstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 1024),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["address"])
    )]
    pub endpoints: Vec<Endpoint>,
    /// A name and a port, for example `api.example.com:443`, resolved by DNS, and again as its time to live ends. Routes
    /// name the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 259),
        extend("x-kubernetes-validations" = rules([(
            "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*[.]?:[1-9][0-9]{0,4}$')",
            "write a name in lower case and a port, for example 'api.example.com:443'; for addresses use endpoints",
        )]))
    )]
    pub hostname: Option<String>,
    /// What the endpoints speak. `Auto`: HTTP/2 if `appProtocol` of the Service port is `kubernetes.io/h2c` or `grpc`, otherwise
    /// HTTP/1.1, or with `tls` what the endpoint chooses (ALPN). `Http1`: HTTP/1.1. `Http2`: HTTP/2, in cleartext with prior
    /// knowledge.
    #[serde(default)]
    pub protocol: Protocol,
    /// How connections are made and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// Speaks TLS with the endpoints; cleartext when absent. `{}` verifies that their certificate is for the name that they have, and
    /// signed by an authority that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// Who of the endpoints gets the next request. For example `{algorithm: LeastRequest, slowStart: 30s}`, which is the default
    /// without the slow start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// How it is found out which endpoints are well. For example `{active: {http: {path: /healthz}}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// What is asked again of another endpoint, and when, of requests whose rule does not say so by a `retry` of its own; what a sidecar sends
    /// for its app comes by no rule. For example `{attempts: 3}`. No more than is safe for every request when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Box<Retry>>,
    /// How many retries are under way at the same time, over all routes, beside what else is; no bound when absent. For example
    /// `{percent: 20, minConcurrent: 3}`. `limits.retries` bounds their number as such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
    /// How much of it may be in use at once, for example `{connections: 1000, requests: 200, pendingTimeout: 2s}`. No limit when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Lets no request through for a while if too many failed or were slow. One for all endpoints together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<Box<CircuitBreaker>>,
    /// The same for each endpoint by itself: while its breaker is open, requests go to the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_circuit_breaker: Option<Box<CircuitBreaker>>,
    /// What requests get for which no endpoint may be asked: because the circuit breaker is open, or because there is no
    /// endpoint. A 503 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// What becomes of the streams of an endpoint that goes: one that terminates, is not ready, or was removed. It gets no new
    /// requests in any case, unless no other is left. For example `{mode: Move, grace: 1m}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_drain: Option<EndpointDrain>,
}

/// What becomes of the streams of an endpoint that goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "self.mode == 'Move' || !has(self.grace)",
    "grace is the time until streams are moved: it needs mode Move",
)])))]
pub struct EndpointDrain {
    /// `Keep`: they run until they end. `Move`: after the grace they are ended politely, so that their clients come back and
    /// get another endpoint.
    #[serde(default)]
    pub mode: DrainMode,
    /// How long streams run on before they are moved, for example `1m`; `30s` when absent. Keep it shorter than the
    /// `terminationGracePeriodSeconds` of the endpoints' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub grace: Option<String>,
}

/// What becomes of the streams of an endpoint that goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrainMode {
    /// They run until they end.
    #[default]
    Keep,
    /// They are ended politely after a grace.
    Move,
}

/// An address to send to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// An address and a port: `10.0.0.5:8080` or `[fd00::5]:8080`.
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-validations" = rules([(
            r"self.matches('^([0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}|\\[[0-9a-fA-F:.]+\\]):[1-9][0-9]{0,4}$')",
            "write an address and a port, for example '10.0.0.5:8080' or '[fd00::5]:8080'; for a name use hostname",
        )]))
    )]
    pub address: String,
    /// The share relative to the other endpoints.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: u32,
    /// The zone that it is in, for `loadBalancing.locality`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub zone: Option<String>,
    /// Labels, for `loadBalancing.subset`; for example `{version: v2}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub labels: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// By `appProtocol` of the Service port: `kubernetes.io/h2c` and `grpc` mean HTTP/2, everything else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in cleartext with prior knowledge.
    Http2,
}

/// How connections are made and kept. Durations are written like `30s`, `1m30s` or `500ms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "!has(self.minIdlePerEndpoint) || !has(self.maxIdlePerEndpoint) || \
         self.minIdlePerEndpoint <= self.maxIdlePerEndpoint",
        "minIdlePerEndpoint cannot be more than maxIdlePerEndpoint",
    ),
    (
        "has(self.http2PingInterval) || !has(self.http2PingTimeout)",
        "http2PingTimeout is for the answers to pings: it needs http2PingInterval, for example 30s",
    ),
    (
        "!has(self.proxyProtocol) || !has(self.minIdlePerEndpoint) || self.minIdlePerEndpoint == 0",
        "a connection with proxyProtocol is for one client's request: none can be kept open by minIdlePerEndpoint",
    ),
])))]
pub struct Connections {
    /// Time to connect, unless the route says otherwise; for example `2s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub connect_timeout: Option<String>,
    /// How long an unused connection is kept, for example `60s`. Keep it shorter than the servers do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub idle_timeout: Option<String>,
    /// Unused connections kept per endpoint and worker thread; 0 keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub max_idle_per_endpoint: Option<u32>,
    /// Requests after which a connection is not used again; no bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub max_requests: Option<u32>,
    /// Interval of TCP keep-alive probes in whole seconds, `30s` when absent. An
    /// endpoint that answers none of four, or leaves what it was sent unacknowledged for as long, is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 24),
        extend("x-kubernetes-validations" = rules([(
            "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$') && duration(self) > duration('0s')",
            "write a duration in whole seconds like '30s' or '2m'",
        )]))
    )]
    pub tcp_keep_alive: Option<String>,
    /// The age after which a connection is not used again, give or take a tenth, for example `10m`; what runs on it goes on.
    /// No bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(CONNECTION_AGE)))]
    pub max_age: Option<String>,
    /// Unused connections kept open per endpoint and worker thread once it has had requests, so that later ones need not wait
    /// for any; with HTTP/2 one is enough. None when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub min_idle_per_endpoint: Option<u32>,
    /// How often a connection of HTTP/2 is pinged, for example `30s`; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(PING)))]
    pub http2_ping_interval: Option<String>,
    /// How long the answer to a ping of HTTP/2 may take until the connection is given up with its streams; `10s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(PING_TIMEOUT)))]
    pub http2_ping_timeout: Option<String>,
    /// How long a connection may be in the making until another endpoint is tried beside, if possible one of the other family
    /// of addresses (RFC 8305); the first to be connected gets the request. `250ms` with `hostname`; otherwise endpoints are tried
    /// one after the other when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(STAGGER)))]
    pub connect_stagger: Option<String>,
    /// Begins each connection with a header of the PROXY protocol, `V1` or `V2`, which tells the endpoint the client's address. Such a
    /// connection carries one request, or one stream, and is then closed. Health checks say that they come from Floodway itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

/// Of `connections.maxAge`.
pub const CONNECTION_AGE: TimeBounds = ("1s", "8760h");
/// Of `connections.http2PingTimeout`.
pub const PING_TIMEOUT: TimeBounds = ("100ms", "1h");
/// Of `connections.connectStagger`. RFC 8305 5: it "MUST NOT be less than 10 milliseconds".
pub const STAGGER: TimeBounds = ("10ms", "2s");

/// What is known of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStatus {
    /// `Accepted`: the spec makes sense. `ResolvedRefs`: what it names exists. `Programmed`: it is in force.
    /// `Healthy`, where health is looked after: how many endpoints get requests, as the leader sees it; `False` if none does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}
