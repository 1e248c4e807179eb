//! What is believed of what proxies in front say.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Which inbound forwarding headers are believed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Forwarding {
    /// Peers whose X-Forwarded-* , X-Request-Id, traceparent and tracestate are believed. Empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether these may say, too, which certificate their client showed: `Client-Cert`, `X-Forwarded-Client-Cert` and the like go on to
    /// endpoints as they come. Policies never ask them.
    pub client_certificates: bool,
}

/// What becomes of requests that come without the trace of a trusted proxy (W3C Trace Context).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tracing {
    /// Whether a trace begins with them: they go on with a `traceparent`. Off by default, because Floodway sends its spans to nobody,
    /// and because what is marked as sampled here overrules how often an endpoint samples.
    pub begin: bool,
    /// How many of those traces are marked as sampled, in percent.
    pub sampled_percent: u8,
}

impl Default for Tracing {
    fn default() -> Self {
        Tracing { begin: false, sampled_percent: 100 }
    }
}
