//! Which answers are compressed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::media_type;
use crate::api::rules::texts;

/// Which answers are compressed, with gzip, for clients that take that. What came always goes on at once, whether more comes or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compression {
    /// Content that is compressed, for example `[text/*, application/json]`. When absent: `text/*`, `application/json`,
    /// `application/javascript`, `application/xml`, `application/xhtml+xml`, `application/ld+json`, `application/manifest+json`,
    /// `application/problem+json`, `application/wasm` and `image/svg+xml`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        extend("items" = texts(127, media_type()), "x-kubernetes-list-type" = "atomic")
    )]
    pub types: Vec<String>,
    /// Answers that are announced to be shorter are left as they are: 1024 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_073_741_824))]
    pub min_bytes: Option<u32>,
    /// Whether event streams are compressed, each piece by itself, as soon as it came; no when absent. Each such stream takes a
    /// quarter of a megabyte.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub event_streams: bool,
    /// How hard it is tried, from 1, fast, to 9, small: 4 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub level: Option<u8>,
}
