//! Which answers are compressed.

use serde::Serialize;

use super::limits::MediaTypes;

/// Which answers are compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compression {
    /// What content.
    pub types: MediaTypes,
    /// Of what length at least, where one is announced.
    pub min_bytes: u64,
    /// Whether event streams are, too.
    pub event_streams: bool,
    /// From 1, fast, to 9, small.
    pub level: u8,
}
