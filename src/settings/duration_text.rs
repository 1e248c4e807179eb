//! Durations as `"1m30s"`, the notation of the objects.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

use crate::snapshot::duration;

/// Writes the shortest notation.
pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration::format(*value))
}

/// Reads the notation; the error names what was found and what would be right.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    duration::parse(&text).map_err(D::Error::custom)
}
