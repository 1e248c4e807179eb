//! ProxyUpstream: how one Service, or a set of addresses outside the cluster, is connected to.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, TargetRef};

/// How one Service, or a set of addresses of its own, is connected to. Exactly one of `targetRefs`, `endpoints` and
/// `hostname`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "floodway.dev",
    version = "v1alpha1",
    kind = "ProxyUpstream",
    namespaced,
    status = "UpstreamStatus",
    shortname = "pup",
    category = "floodway",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ProxyUpstreamSpec {
    /// The Services, in this namespace, whose settings these are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetRef>,
    /// Addresses to send to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// `host:port`, resolved by DNS and resolved again as its time to live ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What the endpoints speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// How connections are made and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
}

/// An address to send to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// `10.0.0.5:8080` or `[fd00::5]:8080`.
    pub address: String,
    /// The share relative to the others.
    #[serde(default = "one")]
    pub weight: u32,
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

/// How connections are made and kept. Durations like `30s`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// Time to connect, unless the route says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<String>,
    /// How long an unused connection is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// Unused connections kept per endpoint and worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_idle_per_endpoint: Option<u32>,
    /// Requests after which a connection is not used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Interval of TCP keep-alive probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_keep_alive: Option<String>,
}

/// What is known of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStatus {
    /// `Accepted`, `ResolvedRefs` and `Programmed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
