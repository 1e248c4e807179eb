//! The immutable routing table that both planes share: what may be reached, and how. Control planes build it, the data
//! plane reads it, and neither changes it once it is published.
//!
//! Not here: anything Kubernetes (`translate` speaks that), and anything that changes while traffic flows (pools,
//! counters and health live in `proxy`, keyed by [`ClusterName`] and endpoint address, and survive a new snapshot).

mod client_auth;
mod cluster;
mod common;
pub mod destination;
pub mod duration;
mod host;
mod matching;
pub mod path;
mod policy;
mod publish;
mod resilience;
mod retry;
mod route;
mod router;
mod secret;
mod shared;
mod streaming;
mod tls;
mod upstream_tls;
pub(crate) mod x509;

use std::sync::Arc;

use serde::Serialize;

pub use client_auth::{ClientAsked, ClientAuth, ClientHeaders, ClientTerms};
pub use cluster::{Cluster, ClusterName, Connections, Endpoint, Protocol, ProxyProtocol, Upkeep};
pub use common::Common;
pub use host::{HostPattern, InvalidHost};
pub use matching::{FieldLines, InvalidPattern, PathMatch, Pattern, RouteMatch, TextMatch, joined, parameter};
pub use policy::{
    Algorithm as JwtAlgorithm, ClaimHeader, ClaimRule, CurrentKeys, Fetched, FetchedKeys, InvalidKeys, InvalidUrl,
    Issuer, IssuerKeys, Jwt, Key, KeyHosts, KeySource, KeyUrl, Keys, RemoteKeys,
};
pub use policy::{
    ApiKey, BasicAuth, Below, ClientCertificate, ClientName, Compression, Cors, ErrorPage, ExternalAuth, FramesFrom,
    Headers, IpAccess, Keyring, MediaTypes, MessageRate, Methods, Mirror, MissingKey, Names, Networks, OnFailure,
    Origins, Page, Policy, RateKey, RateLimit, RequestLimits, RequestRate, Tell, TokenPlace,
};
pub use publish::{Publisher, Reader, channel};
pub use resilience::{
    Adaptive, Algorithm, Balancing, BreakerMode, BreakerWait, BreakerWindow, CircuitBreaker, CookieKey, Ejection,
    Failures, Fallback, HalfOpenLimit, HashKey, Hashing, HealthCheck, HttpProbe, Limits, Locality, PANIC_PERCENT,
    Probe, ProbeHeaders, ProbeMethod, Resilience, RetryBudget, SlowStart, Statuses, Subset,
};
pub use retry::{Backoff, Hedge, Retry, RetryOn};
pub use route::{
    Action, Backend, Forward, HeaderEdits, Invalid, PathRewrite, Redirect, Respond, Rewrite, Route, RouteName,
    Timeouts, Transport,
};
pub use router::{Matched, RequestView, Router, VirtualHost};
pub use secret::SecretBytes;
pub use shared::SharedMap;
pub use streaming::{Ping, PingTarget, Sse, Streaming, WebSocket};
pub use tls::{Certificate, HostTls, Tls, TlsVersion};
pub use upstream_tls::{UpstreamTerms, UpstreamTls, why_no_tls};
pub use x509::Identity;

/// A map keyed by names that come from our own objects; `foldhash` because no client chooses the keys.
pub type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// One consistent view of the configuration. A request sees exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Which route serves a request.
    pub router: Router,
    /// The endpoints behind the routes. Routes name clusters instead of holding them, so that a change of endpoints
    /// rebuilds no route.
    pub clusters: SharedMap<ClusterName, Arc<Cluster>>,
    /// With which certificates TLS is ended.
    #[serde(skip_serializing_if = "Tls::is_empty")]
    pub tls: Tls,
}

impl Snapshot {
    /// On what terms TLS is for the host that a client names, in lower case. A wildcard whose TLS is passed on leaves the hosts below it
    /// alone that have routes of their own.
    pub fn terms(&self, host: &str) -> Option<&Arc<HostTls>> {
        let passes = |host: &Arc<VirtualHost>| {
            let oldest = host.routes().first().and_then(|route| route.transport.as_ref());
            oldest.is_some_and(|transport| transport.passed)
        };
        self.tls.named(host).filter(|terms| terms.passed.is_none() || self.router.closest(host).is_none_or(passes))
    }

    /// How clients of a host are verified, by its own terms or those of hosts that have none.
    pub fn clients(&self, host: &str) -> Option<&Arc<ClientAuth>> {
        self.terms(host).or_else(|| self.tls.unnamed())?.clients.as_ref()
    }
}
