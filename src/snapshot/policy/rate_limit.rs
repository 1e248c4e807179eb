//! How much may come of each key. Who counts it is `resilience`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use serde::{Serialize, Serializer};

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    /// What it is counted under: its policy, its name, and all that makes counts comparable. A limit that changes is another one.
    #[serde(skip)]
    pub identity: Arc<str>,
    /// `namespace/name` of its policy, for metrics; `settings` for that of the settings.
    pub policy: Arc<str>,
    /// Its name within the policy.
    pub name: Arc<str>,
    /// What a key is made of: all of these together. One bucket for everyone if there are none.
    pub keys: Box<[RateKey]>,
    /// What becomes of requests that lack part of it.
    pub missing: MissingKey,
    /// How fast requests may come; at any rate if `None`.
    pub rate: Option<RequestRate>,
    /// Whether all replicas count requests together, and what becomes of them while nobody can.
    pub shared: Option<OnFailure>,
    /// How many exchanges there may be at once.
    pub at_once: Option<u32>,
    /// How fast the sides of a WebSocket may send, each WebSocket by itself.
    pub web_socket: Option<Arc<MessageRate>>,
    /// For how many keys buckets are kept, at least.
    pub max_keys: u32,
    /// The status of refusals.
    #[serde(serialize_with = "status")]
    pub status: StatusCode,
    /// Which answers tell of it.
    pub tell: Tell,
}

/// How fast requests may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RequestRate {
    /// So many, at least 1,
    pub requests: u32,
    /// in that time, and
    pub per: Duration,
    /// so many at once, at least 1.
    pub burst: u32,
}

/// What becomes of requests that nobody counts for all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum OnFailure {
    /// They are counted here.
    Local,
    /// They pass.
    Allow,
    /// They are refused.
    Refuse,
}

/// How fast the sides of a WebSocket may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MessageRate {
    /// How fast messages may come, pings included.
    pub messages: Option<RequestRate>,
    /// How fast bytes may come, those of frames included.
    pub bytes: Option<RequestRate>,
    /// Whether a WebSocket is closed whose side sends more, instead of being read no faster.
    pub close: bool,
    /// Whose.
    pub from: FramesFrom,
}

/// Whose messages are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum FramesFrom {
    /// Those of clients.
    Client,
    /// Those of endpoints.
    Endpoint,
    /// Those of each side, by themselves.
    Both,
}

/// Part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum RateKey {
    /// The network of so many bits that the client's address is in, found through trusted proxies.
    Address {
        /// Of an IPv4 address; up to 32.
        prefix4: u8,
        /// Of an IPv6 address; up to 128.
        prefix6: u8,
    },
    /// The value of a field.
    Header(#[serde(serialize_with = "name")] HeaderName),
    /// The value of a cookie.
    Cookie(Arc<str>),
    /// The value of a query parameter.
    Query(Arc<str>),
    /// The object of the route, and its rule.
    Route,
    /// A claim of the token that was verified, and who issued it: a subject is one person with one issuer alone (RFC 7519 4.1.2).
    Claim(Arc<str>),
    /// The user of `basicAuth`, or who has the key of `apiKey`.
    User,
}

/// What becomes of requests that lack part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum MissingKey {
    /// They are one key.
    Share,
    /// They are not limited.
    Skip,
    /// They are refused.
    Refuse,
}

/// Which answers tell of a limit, by `RateLimit` and `RateLimit-Policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Tell {
    /// Refusals.
    Refused,
    /// All.
    Always,
    /// None.
    Never,
}

fn name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

fn status<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}
