//! Which answers are compressed.

use super::limits::media_types;
use crate::api;
use crate::snapshot::{Compression, MediaTypes};
use crate::translate::conditions::Problem;

/// What is compressed where nothing is said: what people and programs read, and what holds text.
const TYPES: [&str; 10] = [
    "text/*",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/xhtml+xml",
    "application/ld+json",
    "application/manifest+json",
    "application/problem+json",
    "application/wasm",
    "image/svg+xml",
];
/// Below that there is little to win, and a packet is sent in any case.
const MIN_BYTES: u32 = 1024;
/// Beyond that, time doubles for a few percent.
const LEVEL: u8 = 4;

/// How answers are compressed.
pub(super) fn compression(given: &api::Compression, path: &str, problems: &mut Vec<Problem>) -> Compression {
    let api::Compression { types, min_bytes, event_streams, level } = given;
    media_types(types, &format!("{path}.types"), problems);
    let level = level.unwrap_or(LEVEL);
    if !(1..=9).contains(&level) {
        problems.push(Problem::invalid(format!("{path}.level"), "write a level from 1, fast, to 9, small"));
    }
    let types =
        if types.is_empty() { MediaTypes::new(TYPES) } else { MediaTypes::new(types.iter().map(String::as_str)) };
    Compression {
        types,
        min_bytes: u64::from(min_bytes.unwrap_or(MIN_BYTES)),
        event_streams: *event_streams,
        level: level.clamp(1, 9),
    }
}
