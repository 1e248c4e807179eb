//! Which route serves a request. Hosts first, then within a host the precedence of the Gateway API.

use std::sync::Arc;

use regex::Regex;
use serde::{Serialize, Serializer};

use super::{HostPattern, Map, Route};

/// What a router looks at. `path` is the decoded-nothing path of the target without the query; `host` is lower case,
/// without port and trailing dot.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Host name.
    pub host: &'a str,
    /// Path, beginning with `/` (or `*`).
    pub path: &'a str,
    /// Raw query, without `?`.
    pub query: Option<&'a str>,
    /// Method.
    pub method: &'a http::Method,
    /// Fields.
    pub headers: &'a http::HeaderMap,
}

/// The route that was found, and the path match that found it (a prefix rewrite needs to know).
#[derive(Clone, Copy, Debug)]
pub struct Matched<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// How its path matched.
    pub path: &'a PathMatch,
}

/// All hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Router {
    /// Routes by the host they serve. A host that is not touched by a change keeps its `Arc`.
    pub hosts: Map<HostPattern, Arc<VirtualHost>>,
}

/// The routes of one host, in order of precedence.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VirtualHost {
    /// In order of precedence.
    pub routes: Vec<Arc<Route>>,
}

/// One way for a rule to apply: all that it names must hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The method; `None` takes any.
    #[serde(serialize_with = "method")]
    pub method: Option<http::Method>,
    /// Fields that must be there.
    #[serde(serialize_with = "headers")]
    pub headers: Vec<(http::HeaderName, TextMatch)>,
    /// Query parameters that must be there.
    pub query: Vec<(Arc<str>, TextMatch)>,
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// Whole leading segments; without trailing slash, `/` is empty.
    Prefix(Arc<str>),
    /// A regular expression on the whole path.
    Regex(Pattern),
}

/// How a field or a parameter is matched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum TextMatch {
    /// The whole value.
    Exact(Arc<str>),
    /// A regular expression on the whole value.
    Regex(Pattern),
    /// Any value.
    Present,
}

/// A compiled regular expression that matches whole texts, equal by its source. The `regex` crate runs in linear time.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl Router {
    /// The route for a request.
    pub fn find(&self, _request: RequestView<'_>) -> Option<Matched<'_>> {
        None
    }
}

fn method<S: Serializer>(method: &Option<http::Method>, serializer: S) -> Result<S::Ok, S::Error> {
    match method {
        Some(method) => serializer.serialize_some(method.as_str()),
        None => serializer.serialize_none(),
    }
}

fn headers<S: Serializer>(headers: &[(http::HeaderName, TextMatch)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.iter().map(|(name, value)| (name.as_str(), value)))
}
