//! How endpoints are asked whether they are well.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

use crate::snapshot::Protocol;
use crate::snapshot::route::fields;

/// How and when each endpoint of a cluster is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// The port that is asked; `None` is that of the endpoint.
    pub port: Option<u16>,
    /// From the beginning of a check to that of the next.
    pub interval: Duration,
    /// The same while the endpoint is unhealthy.
    pub unhealthy_interval: Duration,
    /// Time for a check as a whole, the connection included.
    pub timeout: Duration,
    /// Checks that must pass one after the other until an unhealthy endpoint is healthy.
    pub healthy_threshold: u32,
    /// Checks that must fail one after the other until a healthy endpoint is unhealthy.
    pub unhealthy_threshold: u32,
    /// Whether nothing is asked while the cluster has no traffic.
    pub only_with_traffic: bool,
    /// Whether a new endpoint is kept out until its first check has passed.
    pub before_use: bool,
}

/// What is asked. Every check has a connection of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Probe {
    /// A request whose answer is looked at.
    Http(HttpProbe),
    /// A connection.
    Tcp,
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service that is asked for; empty for the server as a whole.
        service: String,
        /// The authority; `None` is the address that is asked.
        host: Option<String>,
    },
    /// The opening handshake of a WebSocket.
    WebSocket {
        /// Path and query.
        path: String,
        /// The `Host`; `None` is the address that is asked.
        host: Option<String>,
        /// Further fields of the request.
        headers: ProbeHeaders,
    },
}

/// A request, and the answer that is expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpProbe {
    /// What is spoken; `None` is what the cluster speaks.
    pub protocol: Option<Protocol>,
    /// The method.
    pub method: ProbeMethod,
    /// Path and query.
    pub path: String,
    /// The `Host`; `None` is the address that is asked.
    pub host: Option<String>,
    /// Further fields of the request.
    pub headers: ProbeHeaders,
    /// The statuses that are well; at least one range.
    pub statuses: Vec<Statuses>,
    /// What the content must have in it, near its beginning.
    pub body: Option<String>,
}

/// Fields of a request. Shared, because each endpoint's checks send them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ProbeHeaders(#[serde(serialize_with = "shown")] pub Arc<[(HeaderName, HeaderValue)]>);

fn shown<S: Serializer>(headers: &Arc<[(HeaderName, HeaderValue)]>, serializer: S) -> Result<S::Ok, S::Error> {
    fields(headers, serializer)
}

/// The method of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum ProbeMethod {
    /// `GET`.
    #[default]
    Get,
    /// `HEAD`.
    Head,
}

/// Statuses from one to another, both included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub RangeInclusive<u16>);

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.0.start(), self.0.end());
        if from == to { write!(f, "{from}") } else { write!(f, "{from}-{to}") }
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
