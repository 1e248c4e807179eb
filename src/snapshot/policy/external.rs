//! Whom another service lets pass.

use std::time::Duration;

use http::HeaderName;
use serde::{Serialize, Serializer};

use crate::snapshot::ClusterName;
use crate::snapshot::route::names;

/// Whom another service lets pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExternalAuth {
    /// Who is asked.
    pub cluster: ClusterName,
    /// What for: a path, with or without a query.
    pub path: Box<str>,
    /// For which host; that of the request if `None`.
    pub host: Option<Box<str>>,
    /// How long the answer may take.
    #[serde(serialize_with = "duration")]
    pub timeout: Duration,
    /// Whether requests pass about which nothing is said.
    pub pass_on_failure: bool,
    /// Fields of the request that it gets.
    #[serde(serialize_with = "names")]
    pub request_headers: Box<[HeaderName]>,
    /// Fields of its leave that the backend gets.
    #[serde(serialize_with = "names")]
    pub backend_headers: Box<[HeaderName]>,
    /// Fields of its leave that the client gets.
    #[serde(serialize_with = "names")]
    pub success_headers: Box<[HeaderName]>,
    /// Fields of its refusal that the client gets.
    #[serde(serialize_with = "names")]
    pub refusal_headers: Box<[HeaderName]>,
}

fn duration<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::snapshot::duration::format(*time))
}
