//! Copies of requests for another service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::rules::{duration_within, rules};
use crate::api::{ServiceRef, TimeBounds, UpstreamRef};

/// Of `mirror.timeout`.
pub const MIRROR_TIMEOUT: TimeBounds = ("10ms", "5m");

/// Copies of requests for another service, which is asked beside the backend and whose answers nobody gets. No request waits for its
/// copy, or fails because of it: a copy that cannot be made or sent at once is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "has(self.service) != has(self.upstream)",
    "mirror needs exactly one of service and upstream, for example {service: {name: next, port: http}}",
)])))]
pub struct Mirror {
    /// The Service that gets the copies, in the namespace of the policy, for example `{name: next, port: http}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// A ProxyUpstream with endpoints or a hostname of its own, in the namespace of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamRef>,
    /// Of how many requests in a hundred there are copies, by chance; 100 when absent, none with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<u32>,
    /// The most bytes of content that are kept for a copy while they pass; requests with more are not copied. 65536 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub body_bytes: Option<u32>,
    /// How many copies for the service there may be at once in a process, from the beginning of the request to the end of the answer
    /// to the copy; more are left out. 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrent: Option<u32>,
    /// How long a copy and the answer to it may take, for example `2s`; `5s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(MIRROR_TIMEOUT)))]
    pub timeout: Option<String>,
    /// Whether copies go without `authorization` and `cookie`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_credentials: bool,
}
