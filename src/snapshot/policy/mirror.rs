//! Copies of requests for another service.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::snapshot::ClusterName;

/// Copies of requests for another service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mirror {
    /// Who gets them; `None` while it cannot be found, so that there are none.
    pub cluster: Option<ClusterName>,
    /// Of how many requests in a hundred.
    pub percent: u8,
    /// The most bytes of content that are kept for one.
    pub body_bytes: usize,
    /// How many there may be at once, in the process.
    pub concurrent: u32,
    /// How long one may take, with its answer.
    #[serde(serialize_with = "duration")]
    pub timeout: Duration,
    /// Whether they go without Authorization and Cookie.
    pub without_credentials: bool,
}

fn duration<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::snapshot::duration::format(*time))
}
