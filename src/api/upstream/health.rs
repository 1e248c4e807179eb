//! How it is found out which endpoints are well.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActiveCheck, Passive};

/// How it is found out which endpoints are well, beside their readiness in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// By asking each of them now and then, for example `{http: {path: /healthz}, interval: 5s}`. One that does not answer as
    /// expected gets no requests. Exactly one of `http`, `tcp`, `grpc` and `webSocket`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveCheck>,
    /// By what becomes of requests, for example `{consecutiveFailures: 3, baseEjection: 10s}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<Passive>,
}
