//! Users with passwords.

use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

use crate::snapshot::route::{optional_name, optional_value};
use crate::snapshot::{Map, SecretBytes};

/// Users with passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BasicAuth {
    /// Hashes of passwords by the names of users, as bcrypt writes them.
    #[serde(serialize_with = "count")]
    pub users: Map<Box<str>, SecretBytes>,
    /// The hash that passwords of strangers are compared with, so that these wait as long as users do.
    pub decoy: SecretBytes,
    /// What WWW-Authenticate asks for.
    #[serde(serialize_with = "value")]
    pub challenge: HeaderValue,
    /// The field that tells the backend the name of the user.
    #[serde(serialize_with = "optional_name")]
    pub forward_user: Option<HeaderName>,
    /// Whether the backend gets the password.
    pub forward: bool,
}

fn count<S: Serializer>(users: &Map<Box<str>, SecretBytes>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(users.len() as u64)
}

fn value<S: Serializer>(value: &HeaderValue, serializer: S) -> Result<S::Ok, S::Error> {
    optional_value(&Some(value.clone()), serializer)
}
