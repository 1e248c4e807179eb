//! ProxyPolicy: who may pass, and on what terms. Each section stands for itself; how the sections of several policies
//! become those of one request is `translate::policy`'s to say.

mod access;
mod basic;
mod client;
mod compression;
mod cors;
mod external;
mod headers;
mod jwt;
mod key;
mod limits;
mod mirror;
mod pages;
mod place;
mod rate_limit;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::IpAccess;
pub use basic::BasicAuth;
pub use client::{ClientCertificate, ClientName};
pub use compression::Compression;
pub use cors::Cors;
pub use external::{AUTH_TIMEOUT, ExternalAuth, OnAuthFailure};
pub use headers::{Frames, Headers, ReferrerPolicy, SecurityHeaders};
pub use jwt::{CLOCK_SKEW, ClaimToHeader, Issuer, Jwks, Jwt, JwtAlgorithm, MAX_STALE, OnExpiry, RequiredClaim};
pub use key::ApiKey;
pub use limits::RequestLimits;
pub use mirror::{MIRROR_TIMEOUT, Mirror};
pub use pages::{ANSWER_REASONS, ErrorPage};
pub use place::TokenSource;
pub use rate_limit::{
    AddressKey, FramesFrom, MESSAGE_PERIOD, MessageLimit, OnExcess, OnFailure, OnMissingKey, RATE_PERIOD, RateKey,
    RateLimit, Scope, StreamLimit, Tell,
};

use super::Condition;
use super::rules::object_name;

/// Who may pass, and on what terms: named by rules, or attached to routes and upstreams.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "floodway.dev",
    version = "v1alpha1",
    kind = "ProxyPolicy",
    plural = "proxypolicies",
    namespaced,
    doc = "Who may pass, and on what terms: named by rules, or attached to routes and upstreams.",
    status = "PolicyStatus",
    shortname = "ppolicy",
    category = "floodway",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Target", "type": "string", "description": "The first of them.", "jsonPath": ".spec.targetRefs[*].name"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Accepted')].status"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Programmed')].status"}"#,
    printcolumn = r#"{"name": "Resolved", "type": "string", "jsonPath": ".status.conditions[?(@.type=='ResolvedRefs')].status", "priority": 1}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Programmed')].reason", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ProxyPolicySpec {
    /// Routes and upstreams in the namespace of the policy that it is for, for example `[{kind: ProxyRoute, name: chat}]`. Rules
    /// can name a policy without this: `policies: [{name: signed-in}]`. What is said nearer to a request goes before what is said
    /// farther away, section by section: a policy that its rule names, then one attached to its route, to its upstream,
    /// and the default of the settings; among equals the one that the rule names first, or the older one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"])
    )]
    pub target_refs: Vec<PolicyTarget>,
    /// From which addresses requests may come, for example `{allow: [10.0.0.0/8], deny: [10.9.9.9]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_access: Option<IpAccess>,
    /// Which pages of other origins may read answers, for example `{allowOrigins: ["https://*.example.com"], allowMethods: [PUT]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// Which header fields neither clients nor backends may send, and which every answer has, for example
    /// `{security: {}, hideServer: true}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// Which answers are compressed, for example `{}` for the usual ones, or `{types: [application/json], minBytes: 256}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// What answers to failures look like, for example `[{statuses: ["5xx"], configMapName: pages, html: sorry.html}]`;
    /// the first that fits is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub error_pages: Vec<ErrorPage>,
    /// How large requests may be, and of which kinds, for example `{bodyBytes: 1048576, methods: [GET, POST]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_limits: Option<RequestLimits>,
    /// Which clients may pass, by the certificates that their connections were opened with, for example
    /// `{allow: [{uri: "spiffe://example.com/ns/shop/*"}]}`. What signs them is said in `tls.clientCertificates` of a ProxyRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
    /// Users with passwords, for example `{secretName: users}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// Keys of programs, for example `{secretName: clients}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKey>,
    /// Whom another service lets pass, for example `{service: {name: auth, port: http}, path: /verify}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<ExternalAuth>,
    /// Copies of requests for another service, whose answers nobody gets, for example
    /// `{service: {name: next, port: http}, percent: 10}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// How many requests may come, and how much there may be at once, for example
    /// `[{name: per-user, key: [{header: x-user}], requests: 100, per: 1m}]`. A request has to be within all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rate_limit: Vec<RateLimit>,
    /// What requests have to show that they come from somebody who is signed in, for example
    /// `{issuers: [{issuer: "https://id.example.com", audiences: [chat], jwks: {secretName: id-keys}}]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
}

/// What a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTarget {
    /// `ProxyRoute`: every request that its rules take. `ProxyUpstream`: every request that goes to it, whatever the route.
    pub kind: PolicyTargetKind,
    /// The name of the target, in the namespace of the policy.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub name: String,
}

/// The kind of what a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::enum_variant_names, reason = "the names of the kinds")]
pub enum PolicyTargetKind {
    /// Every request that its rules take.
    ProxyRoute,
    /// Every request that goes to it.
    ProxyUpstream,
}

/// A policy that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRef {
    /// The name of the ProxyPolicy, in the namespace of the route.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = object_name()))]
    pub name: String,
}

/// What is known of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// `Accepted`: the spec makes sense. `ResolvedRefs`: what it names exists. `Programmed`: it is in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}
