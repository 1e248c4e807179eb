//! Host names as routes and requests write them.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A host that a route serves: exact, one leading `*.`, or any. Lower case, without a port or a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `chat.example.com`
    Exact(Arc<str>),
    /// `*.example.com`, kept as `example.com`: one or more labels before it, as the Gateway API defines.
    Wildcard(Arc<str>),
    /// A route without hosts.
    Any,
}

/// Why a text is not a host pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host name; write \"chat.example.com\" or \"*.example.com\", without a port")]
pub struct InvalidHost(pub String);

impl HostPattern {
    /// Reads a pattern as objects write it.
    ///
    /// # Errors
    /// [`InvalidHost`] if it is not a DNS name with at most one `*.` in front.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        let lower = text.to_ascii_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (lower.as_str(), false),
        };
        if !is_dns_name(name) {
            return Err(InvalidHost(text.to_owned()));
        }
        Ok(if wildcard { HostPattern::Wildcard(name.into()) } else { HostPattern::Exact(name.into()) })
    }
}

fn is_dns_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Wildcard(name) => write!(f, "*.{name}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
