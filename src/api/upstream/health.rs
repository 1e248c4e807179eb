//! How it is found out which endpoints are well.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Passive;

/// How it is found out which endpoints are well, beside their readiness in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// By what becomes of requests, for example `{consecutiveFailures: 3, baseEjection: 10s}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<Passive>,
}
