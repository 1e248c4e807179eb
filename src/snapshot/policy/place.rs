//! Where in a request a token or a key is.

use http::HeaderName;
use serde::{Serialize, Serializer};

/// A place where a token or a key can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum TokenPlace {
    /// A header field, and the word before the token in it; empty if there is none.
    Header(#[serde(serialize_with = "name")] HeaderName, Box<str>),
    /// A cookie.
    Cookie(Box<str>),
    /// A parameter of the query.
    Query(Box<str>),
}

fn name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}
