//! What is done with a request once its route is found.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::{Serialize, Serializer};

use super::secret::{REDACTED, is_secret};
use super::{ClientAsked, ClusterName, Common, Policy, Retry, RouteMatch, Streaming};

/// The identity of a route: its object and its rule, for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName {
    /// `namespace/name` of the object it came from; the metric label.
    pub object: Arc<str>,
    /// The name of the rule, or its position from 0.
    pub rule: Arc<str>,
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.object, self.rule)
    }
}

impl Serialize for RouteName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One rule: when it applies and what is done then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Identity.
    pub name: RouteName,
    /// It applies if any of these does. Never empty: a rule without matches has one that takes every request.
    pub matches: Vec<RouteMatch>,
    /// Edits of the request that the upstream gets. Boxed, because few routes have any and thousands of routes are kept.
    pub request_headers: Option<Box<HeaderEdits>>,
    /// Edits of the response that the client gets.
    pub response_headers: Option<Box<HeaderEdits>>,
    /// How requests have to come; `None`, as with most routes, does not mind.
    pub transport: Option<Arc<Transport>>,
    /// What is asked of requests that go to no backend; those that do have their backend's.
    pub policy: Option<Arc<Policy>>,
    /// What is done.
    pub action: Action,
}

/// How requests have to come, and what their answers say of that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Transport {
    /// TLS of the hosts is passed on to the endpoints, so that there is no request to be served: what comes by TLS has come to the
    /// wrong place, and for what comes without there is nothing but the redirect.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub passed: bool,
    /// What requests without TLS are answered with.
    pub redirect: Option<Redirect>,
    /// The Strict-Transport-Security of answers over TLS (RFC 6797).
    #[serde(serialize_with = "optional_value")]
    pub hsts: Option<HeaderValue>,
    /// Which certificates their clients show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientAsked>,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Send it to an endpoint.
    Forward(Forward),
    /// Answer with another location.
    Redirect(Redirect),
    /// Answer directly.
    Respond(Respond),
    /// The rule is broken: answer 500 instead of letting another rule take the request.
    Invalid(Invalid),
}

/// Why a rule or a backend cannot be served. Shown in logs and the configuration dump, never to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invalid(pub Arc<str>);

/// Sending a request on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// Candidates; each gets its weight's share. Never empty, and the sum of the weights may be 0 (then: 503).
    pub backends: Vec<Backend>,
    /// Changes of the target; `None`, as with most routes, changes nothing.
    #[serde(serialize_with = "rewrite")]
    pub rewrite: Option<Box<Rewrite>>,
    /// Timers.
    pub timeouts: Common<Timeouts>,
    /// What is asked for requests that an endpoint did not serve; `None` leaves that to the cluster.
    pub retry: Option<Arc<Retry>>,
    /// What is asked for streams; `None`, as with most routes, asks for nothing.
    pub streaming: Option<Arc<Streaming>>,
}

/// A weighted candidate. An invalid one answers 500 for its share, as the Gateway API asks of unresolved references.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// The share relative to the others; 0 takes nothing.
    pub weight: u32,
    /// Where to.
    pub cluster: Result<ClusterName, Invalid>,
    /// What is asked of requests that go there.
    pub policy: Option<Arc<Policy>>,
}

/// Changes of the request target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rewrite {
    /// The new path.
    pub path: Option<PathRewrite>,
    /// The new Host.
    #[serde(serialize_with = "optional_value")]
    pub host: Option<HeaderValue>,
}

/// A new path. The query stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum PathRewrite {
    /// Replaces the prefix that matched; needs a prefix match.
    Prefix(Arc<str>),
    /// Replaces the whole path.
    Full(Arc<str>),
}

/// Answering with another location. What is `None` stays as the request has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// The new host, without port.
    pub host: Option<Arc<str>>,
    /// The new port.
    pub port: Option<u16>,
    /// The new path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    #[serde(serialize_with = "status")]
    pub status: StatusCode,
}

/// Answering directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Respond {
    /// Any final status.
    #[serde(serialize_with = "status")]
    pub status: StatusCode,
    /// The Content-Type, if there is a body.
    #[serde(serialize_with = "optional_value")]
    pub content_type: Option<HeaderValue>,
    /// The body.
    #[serde(serialize_with = "text")]
    pub body: Bytes,
}

/// Timers of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// Time to connect; `None` takes the cluster's.
    pub connect: Option<Duration>,
    /// Time from the request sent to the response head.
    pub response_head: Duration,
    /// Time from the response head to the first byte of content; `None` leaves it to `idle`.
    pub first_byte: Option<Duration>,
    /// Silence in both directions after which the exchange is ended.
    pub idle: Duration,
    /// How long a side may take nothing of what waits for it.
    pub stall: Duration,
    /// Time for the whole exchange; `None`, the default, has no bound.
    pub request: Option<Duration>,
}

/// Edits of header fields, applied in the order remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HeaderEdits {
    /// Taken out.
    #[serde(serialize_with = "names")]
    pub remove: Vec<HeaderName>,
    /// Replace what is there.
    #[serde(serialize_with = "fields")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Come beside what is there.
    #[serde(serialize_with = "fields")]
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

fn status<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

fn rewrite<S: Serializer>(rewrite: &Option<Box<Rewrite>>, serializer: S) -> Result<S::Ok, S::Error> {
    rewrite.as_deref().unwrap_or(&Rewrite::default()).serialize(serializer)
}

fn text<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

pub(super) fn optional_value<S: Serializer>(value: &Option<HeaderValue>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_some(&String::from_utf8_lossy(value.as_bytes())),
        None => serializer.serialize_none(),
    }
}

/// The name of a field, if there is one.
pub(super) fn optional_name<S: Serializer>(name: &Option<HeaderName>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_ref().map(HeaderName::as_str).serialize(serializer)
}

/// The names of fields.
pub(super) fn names<S: Serializer>(names: &[HeaderName], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(HeaderName::as_str))
}

/// Header fields, with the values of secret ones left out.
pub(super) fn fields<S: Serializer>(fields: &[(HeaderName, HeaderValue)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(fields.iter().map(|(name, value)| match is_secret(name.as_str()) {
        true => format!("{name}: {REDACTED}"),
        false => format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())),
    }))
}
