//! A JSON patch (RFC 6902), as far as one is needed here.

use serde::Serialize;
use serde_json::Value;

/// Changes, each made to what the one before it left.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Patch(pub Vec<Change>);

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Change {
    /// RFC 6902 4.1: "If the target location specifies an array index, a new value is inserted into the array at the specified index."
    Add {
        /// Where, as a JSON pointer.
        path: String,
        /// What.
        value: Value,
    },
    /// RFC 6902 4.2
    Remove {
        /// What, as a JSON pointer.
        path: String,
    },
}

impl Patch {
    pub(super) fn add(&mut self, path: impl Into<String>, value: Value) {
        self.0.push(Change::Add { path: path.into(), value });
    }

    pub(super) fn remove(&mut self, path: impl Into<String>) {
        self.0.push(Change::Remove { path: path.into() });
    }
}

/// RFC 6901 3: "'~' needs to be encoded as '~0' and '/' needs to be encoded as '~1'".
pub(super) fn token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
