//! The configured side of an upstream: who its endpoints are and how connections to them are made. The running side
//! (pools, counters) is `proxy::upstream`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Common, Resilience, UpstreamTls};

/// The identity of a cluster, stable across snapshots: what running state and metrics are keyed by. For example
/// `shop/llm:8080`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// A cluster name from its text.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        ClusterName(name.into())
    }

    /// The text, as metrics and logs show it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As text that is shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of endpoints that serve the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// Identity.
    pub name: ClusterName,
    /// What the endpoints speak.
    pub protocol: Protocol,
    /// How connections are made and kept.
    pub connections: Common<Connections>,
    /// How it is balanced, checked and protected.
    pub resilience: Arc<Resilience>,
    /// Who may be chosen, in a stable order. Terminating endpoints are here only while no other is ready.
    pub endpoints: Arc<[Endpoint]>,
    /// How long streams of an endpoint that is gone from the list run on, until they are ended politely so that their clients
    /// come back to another endpoint. `None` lets them run.
    pub move_after: Option<Duration>,
}

impl Cluster {
    /// The values that its endpoints have of the label that subsets are made by, each once.
    pub fn subsets(&self) -> BTreeSet<Arc<str>> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.subset.as_deref().cloned()).collect()
    }

    /// Whether an address is one of its endpoints.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.address == address)
    }
}

#[cfg(test)]
impl Cluster {
    /// Without endpoints, with settings that no test depends on.
    pub(crate) fn plain() -> Self {
        Cluster {
            name: ClusterName::new("shop/llm:80"),
            protocol: Protocol::Http1,
            connections: Connections {
                connect_timeout: Duration::from_secs(1),
                idle_timeout: Duration::from_secs(1),
                max_idle_per_endpoint: 1,
                max_requests: None,
                tcp_keep_alive: None,
                upkeep: Upkeep::default(),
                proxy_protocol: None,
                tls: None,
            }
            .into(),
            resilience: Arc::default(),
            endpoints: Arc::default(),
            move_after: None,
        }
    }
}

/// One address that serves a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share relative to the others; at least 1.
    pub weight: u32,
    /// Whether it is in Floodway's own zone, or is meant to serve it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// Its value of the label that subsets are made by. In a box, because few have one and there are very many endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<Box<Arc<str>>>,
}

impl Endpoint {
    /// An endpoint of weight 1 of which nothing else is known.
    pub fn new(address: SocketAddr) -> Self {
        Endpoint { address, weight: 1, local: false, subset: None }
    }
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: in cleartext with prior knowledge, in TLS as agreed.
    Http2,
    /// Whichever the endpoint chooses, as only TLS can tell (ALPN).
    Agreed,
}

impl Protocol {
    /// What is offered in TLS, by the names of RFC 7301, the preferred first.
    pub fn alpn(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::Http2 => &[ALPN_HTTP2],
            Protocol::Agreed => &[ALPN_HTTP2, b"http/1.1"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }

    /// What is spoken once TLS has agreed on something, or on nothing. `None` if the endpoint does not speak what it has to.
    pub fn agreed(self, alpn: Option<&[u8]>) -> Option<Protocol> {
        match (self, alpn == Some(ALPN_HTTP2)) {
            (Protocol::Http2 | Protocol::Agreed, true) => Some(Protocol::Http2),
            (Protocol::Http1 | Protocol::Agreed, false) => Some(Protocol::Http1),
            (Protocol::Http2, false) | (Protocol::Http1, true) => None,
        }
    }
}

const ALPN_HTTP2: &[u8] = b"h2";

/// How connections to the endpoints are made and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// Time to connect when the route does not say.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Unused connections kept per endpoint and worker.
    pub max_idle_per_endpoint: u32,
    /// Requests after which a connection is not used again; `None` has no bound.
    pub max_requests: Option<u64>,
    /// Interval of TCP keep-alive probes; `None` sends none.
    pub tcp_keep_alive: Option<Duration>,
    /// What else is done for them.
    pub upkeep: Upkeep,
    /// Says with which header of the PROXY protocol each begins, which tells the endpoint the client: it then carries that client's
    /// request alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How TLS is spoken on them; `None` is cleartext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<UpstreamTls>>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

/// What is done so that connections are there, and well. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Upkeep {
    /// About the age at which a connection is not used again.
    pub max_age: Option<Duration>,
    /// Unused connections kept open per endpoint and worker.
    pub min_idle_per_endpoint: u32,
    /// How often an HTTP/2 connection is pinged, and how long the answer may take.
    pub http2_ping: Option<(Duration, Duration)>,
    /// How long a connection may be in the making until another endpoint is tried beside.
    pub stagger: Option<Duration>,
}
