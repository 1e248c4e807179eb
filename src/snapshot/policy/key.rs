//! Keys of programs. Not the keys themselves are kept, but what tells them.

use std::fmt;

use http::HeaderName;
use ring::digest::{SHA256, digest};
use serde::{Serialize, Serializer};

use super::TokenPlace;
use crate::snapshot::Map;
use crate::snapshot::route::optional_name;

/// Whose keys may pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    /// The keys.
    pub keys: Keyring,
    /// Where a key can be; the first place that has one counts.
    pub from: Box<[TokenPlace]>,
    /// The field that tells the backend whose key it was.
    #[serde(serialize_with = "optional_name")]
    pub forward_name: Option<HeaderName>,
}

/// Names by the SHA-256 of their keys. Whoever measures how long it takes to find one learns about digests, of which nobody
/// can choose a second byte after the first: looking a key up needs no comparison in constant time.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keyring(Map<[u8; 32], Box<str>>);

impl Keyring {
    /// Adds a key.
    ///
    /// # Errors
    /// The name of who has the same key.
    pub fn add(&mut self, name: &str, key: &[u8]) -> Result<(), Box<str>> {
        self.0.insert(sha256(key), name.into()).map_or(Ok(()), Err)
    }

    /// The name of who has a key.
    pub fn name(&self, key: &[u8]) -> Option<&str> {
        self.0.get(&sha256(key)).map(|name| &**name)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.values().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }
}

fn sha256(key: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, key).as_ref());
    bytes
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.names()).finish()
    }
}

impl Serialize for Keyring {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.names().serialize(serializer)
    }
}
