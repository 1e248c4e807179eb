//! How much may come of each key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::TimeBounds;
use crate::api::rules::{duration_within, header_name, rules};

/// Of `rateLimit[].per`.
pub const RATE_PERIOD: TimeBounds = ("1s", "24h");
/// Of `rateLimit[].webSocket.per`.
pub const MESSAGE_PERIOD: TimeBounds = ("1s", "1h");

/// How much may come of each key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "has(self.requests) || has(self.streams) || has(self.webSocket)",
        "a limit needs requests and per, or streams, or webSocket, for example {requests: 100, per: 1m} or {streams: {concurrent: 10}}",
    ),
    ("has(self.requests) == has(self.per)", "requests and per belong together, for example {requests: 100, per: 1m}"),
    ("!has(self.burst) || has(self.requests)", "burst says how many of the requests may come at once: it needs requests and per"),
    ("!has(self.scope) || self.scope != 'Global' || has(self.requests)", "scope Global is of requests and per; streams and messages are counted by each process"),
    ("!has(self.onFailure) || (has(self.scope) && self.scope == 'Global')", "onFailure says what becomes of requests while Redis is away: it needs scope Global"),
    ("!has(self.onMissingKey) || has(self.key)", "onMissingKey says what becomes of requests without their key: it needs key"),
    ("!has(self.maxKeys) || has(self.key)", "maxKeys bounds how many keys are counted: it needs key"),
])))]
pub struct RateLimit {
    /// What it is known by in metrics and to clients, for example `per-user`.
    #[schemars(
        length(min = 1, max = 63),
        extend("x-kubernetes-validations" = rules([(
            "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "write lower-case letters, digits and '-', for example 'per-user'",
        )]))
    )]
    pub name: String,
    /// What is counted by itself: everything named here together makes a key, for example `[{header: x-user}, {route: true}]`. All requests
    /// share one bucket when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub key: Vec<RateKey>,
    /// What becomes of requests that lack part of their key: `Share`, they are one key (when absent); `Skip`, they are not limited; `Refuse`,
    /// they are answered with 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_missing_key: Option<OnMissingKey>,
    /// How many requests may come in the time of `per`, for example `100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: Option<u32>,
    /// The time in which they may come, for example `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(RATE_PERIOD)))]
    pub per: Option<String>,
    /// How many may come at once, after a time without any; as many as `requests` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// Who counts the requests: `Local`, each process by itself (when absent), or `Global`, all replicas together, in the Redis of
    /// `rateLimits.redis` in the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// What becomes of requests while Redis is away: `Local`, each process counts by itself (when absent); `Allow`, they pass; `Refuse`, they are
    /// answered with 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// How much there may be at once, whatever the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<StreamLimit>,
    /// How fast the sides of a WebSocket may send, each WebSocket by itself, whatever its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_socket: Option<MessageLimit>,
    /// For how many keys buckets are kept; 65536 when absent. Of more, those go first that are the nearest to being full. A key takes up to
    /// 35 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_194_304))]
    pub max_keys: Option<u32>,
    /// The status of refusals; 429 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<u16>,
    /// Which answers have the fields `RateLimit` and `RateLimit-Policy`: `Refused` (when absent), `Always` or `Never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tell: Option<Tell>,
}

/// Part of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "[has(self.address), has(self.header), has(self.cookie), has(self.query), has(self.route), has(self.claim), has(self.user)].exists_one(it, it)",
    "each part of a key is exactly one of address, header, cookie, query, route, claim and user",
)])))]
pub struct RateKey {
    /// The client's address, found through trusted proxies; `{}` for the address of an IPv4 client and the /64 of an IPv6 client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressKey>,
    /// The value of a header, for example `x-user`. Clients can write what they like there, unless something before Floodway sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = header_name()))]
    pub header: Option<String>,
    /// The value of a cookie, for example `session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        extend("x-kubernetes-validations" = rules([(
            r#"self.matches("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")"#,
            "write the name of a cookie, for example 'session': letters, digits, '-' and '_'",
        )]))
    )]
    pub cookie: Option<String>,
    /// The value of a query parameter, for example `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub query: Option<String>,
    /// The rule that takes the request: `true`. A policy of several routes counts them together without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [true]))]
    pub route: Option<bool>,
    /// A claim of the token that `jwt` has verified, for example `sub`, together with who issued it. A claim within another is named with
    /// both: `realm_access.tenant`. Requests that no `jwt` asks for a token lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,
    /// Who sent the request, by `basicAuth` or by `apiKey`: `true`. Requests that neither asks lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [true]))]
    pub user: Option<bool>,
}

/// How much of an address is a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressKey {
    /// How many bits of an IPv4 address; 32 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub prefix4: Option<u8>,
    /// How many bits of an IPv6 address; 64 when absent, because a client may choose the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub prefix6: Option<u8>,
}

/// How much there may be at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamLimit {
    /// How many requests and streams a key may have under way, for example `10`. Each counts until it is over: an event stream or a
    /// WebSocket for as long as it lives.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrent: u32,
}

/// Who counts requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// Each process by itself.
    Local,
    /// All replicas together.
    Global,
}

/// What becomes of requests while Redis is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Each process counts by itself.
    Local,
    /// They pass.
    Allow,
    /// They are answered with 503.
    Refuse,
}

/// How fast the sides of a WebSocket may send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "has(self.messages) || has(self.bytes)",
        "say how many messages or bytes may come, for example {messages: 20} or {bytes: 65536, per: 1s}",
    ),
    ("!has(self.burst) || has(self.messages)", "burst says how many of the messages may come at once: it needs messages"),
    ("!has(self.burstBytes) || has(self.bytes)", "burstBytes says how many of the bytes may come at once: it needs bytes"),
])))]
pub struct MessageLimit {
    /// How many messages may come in the time of `per`, for example `20`. Pings count, pongs and closes do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub messages: Option<u32>,
    /// How many bytes may come in the time of `per`, frames and all, for example `65536`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub bytes: Option<u32>,
    /// The time in which they may come; `1s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(MESSAGE_PERIOD)))]
    pub per: Option<String>,
    /// How many messages may come at once, after a time without any; as many as `messages` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// How many bytes may come at once, after a time without any; as many as `bytes` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub burst_bytes: Option<u32>,
    /// What becomes of who sends more: `Delay`, it is read no faster (when absent), or `Close`, the WebSocket is closed with 1008.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_excess: Option<OnExcess>,
    /// Whose messages count: `Client` (when absent), `Endpoint`, or `Both`, each by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<FramesFrom>,
}

/// What becomes of a side of a WebSocket that sends more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExcess {
    /// It is read no faster.
    Delay,
    /// The WebSocket is closed.
    Close,
}

/// Whose messages count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FramesFrom {
    /// Those of clients.
    Client,
    /// Those of endpoints.
    Endpoint,
    /// Those of each side, by themselves.
    Both,
}

/// What becomes of requests that lack part of their key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnMissingKey {
    /// They are one key.
    Share,
    /// They are not limited.
    Skip,
    /// They are answered with 400.
    Refuse,
}

/// Which answers have the fields `RateLimit` and `RateLimit-Policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Tell {
    /// Refusals.
    Refused,
    /// All.
    Always,
    /// None.
    Never,
}
