//! Who of an upstream's endpoints gets the next request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::TimeBounds;
use crate::api::rules::{duration_within, header_name, rules};

/// Least and most of `slowStart`.
pub const SLOW_START: TimeBounds = ("1s", "1h");
/// Least and most of the time to live of a cookie.
pub const COOKIE_TTL: TimeBounds = ("1s", "8760h");
/// The sizes that a Maglev table may have: prime numbers near powers of two, and Envoy's.
pub const TABLE_SIZES: [u32; 6] = [1_021, 4_093, 16_381, 65_537, 262_139, 1_048_573];

/// Who of the endpoints gets the next request. Endpoints that fail their checks, are ejected or have an open breaker get none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "!has(self.choices) || self.algorithm == 'LeastRequest'",
        "choices is how many endpoints LeastRequest compares: it needs algorithm LeastRequest",
    ),
    (
        "has(self.hash) == (self.algorithm in ['RingHash', 'Maglev'])",
        "hash says what of a request the algorithms RingHash and Maglev hash: they need it, and others do not take it",
    ),
    (
        "!has(self.boundedLoadPercent) || self.algorithm in ['RingHash', 'Maglev']",
        "boundedLoadPercent bounds what hashing gives to one endpoint: it needs algorithm RingHash or Maglev",
    ),
    (
        "!has(self.ringPoints) || self.algorithm == 'RingHash'",
        "ringPoints are the points of an endpoint on a ring: they need algorithm RingHash",
    ),
    (
        "!has(self.tableSize) || self.algorithm == 'Maglev'",
        "tableSize is the size of a Maglev table: it needs algorithm Maglev",
    ),
    (
        "!has(self.slowStart) || !(self.algorithm in ['RingHash', 'Maglev'])",
        "RingHash and Maglev send a key to its endpoint from the first moment on: they take no slowStart",
    ),
    (
        "has(self.slowStart) || !has(self.slowStartMinPercent) && !has(self.slowStartAggressionPercent)",
        "slowStartMinPercent and slowStartAggressionPercent say how slowStart goes: they need it",
    ),
    (
        "!has(self.hash) || self.hash.filter(key, has(key.cookie) && has(key.cookie.issue)).size() == 0 || \
         self.hash.filter(key, has(key.cookie) && has(key.cookie.issue)).size() == 1 && \
         has(self.hash[self.hash.size() - 1].cookie) && has(self.hash[self.hash.size() - 1].cookie.issue)",
        "whoever lacks a cookie that is issued gets one, so that no key behind it is ever used: it has to be the last",
    ),
])))]
pub struct LoadBalancing {
    /// `LeastRequest`: of two endpoints that are drawn by weight, the one with fewer requests and streams in flight for its
    /// weight. `RoundRobin`: one after the other, whatever their weights. `WeightedRoundRobin`: one after the other by weight, evenly
    /// in time. `Random`: any, by weight. `PeakEwma`: of two, the one that is expected to begin its answer first. `RingHash`,
    /// `Maglev`: the same endpoint for the same key; `hash` says what the key is.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How many endpoints LeastRequest compares; 2 when absent. If there are no more than that, it is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 16))]
    pub choices: Option<u32>,
    /// What of a request is hashed: the first that it has. One that has none goes anywhere. For example
    /// `[{header: x-user}, {clientAddress: true}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub hash: Vec<HashKey>,
    /// An endpoint that has more than this many percent of its fair share in flight is passed over for the next, for example 150.
    /// No bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 101, max = 10_000))]
    pub bounded_load_percent: Option<u32>,
    /// Points on the ring of the lightest endpoint; 100 when absent. More are more even, and take more memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub ring_points: Option<u32>,
    /// Slots of the Maglev table, a prime number; 16381 when absent. A hundred times as many as there are endpoints are even.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = TABLE_SIZES))]
    pub table_size: Option<u32>,
    /// While fewer than this many percent of the endpoints are available, all of them are used; 50 when absent, 0 never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub panic_threshold_percent: Option<u32>,
    /// How long an endpoint is eased in that joins others, or was kept out: its weight grows with time. For example `30s`; not at all
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(SLOW_START)))]
    pub slow_start: Option<String>,
    /// The weight that it begins with, in percent; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub slow_start_min_percent: Option<u32>,
    /// 100, the default, grows evenly; more grows faster at first, less grows slower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1000))]
    pub slow_start_aggression_percent: Option<u32>,
    /// Prefers endpoints of Floodway's own zone, which `--zone` names, for example `{minAvailablePercent: 70}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// Lets requests choose among versions, for example `{header: x-version, label: version}`. For `endpoints` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Subset>,
}

/// Who is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// Of two that are drawn, the one with fewer requests and streams in flight.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// One after the other by weight.
    WeightedRoundRobin,
    /// Any, by weight.
    Random,
    /// Of two that are drawn, the one that is expected to begin its answer first.
    PeakEwma,
    /// The next on a ring.
    RingHash,
    /// By a table.
    Maglev,
}

/// What of a request is hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "[has(self.header), has(self.cookie), has(self.clientAddress), has(self.queryParameter), has(self.pathSegment)]\
     .exists_one(it, it)",
    "a key is exactly one of header, cookie, clientAddress, queryParameter and pathSegment",
)])))]
pub struct HashKey {
    /// The value of a header, for example `x-user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = header_name()))]
    pub header: Option<String>,
    /// The value of a cookie, for example `{name: session}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<CookieKey>,
    /// The client's address, found through trusted proxies: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [true]))]
    pub client_address: Option<bool>,
    /// The value of a query parameter, for example `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub query_parameter: Option<String>,
    /// A segment of the path, before it is rewritten; of `/v1/users/42` the third is `42`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub path_segment: Option<u32>,
}

/// A cookie that tells clients apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CookieKey {
    /// Its name.
    #[schemars(
        length(min = 1, max = 128),
        extend("x-kubernetes-validations" = rules([(
            r#"self.matches("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")"#,
            "write the name of a cookie, for example 'session': letters, digits, '-' and '_'",
        )]))
    )]
    pub name: String,
    /// Floodway gives it to clients that lack it, for example `{ttl: 1h}`; `{}` for one that ends with the browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issue: Option<IssuedCookie>,
}

/// How a cookie is issued.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "!has(self.sameSite) || self.sameSite != 'None' || has(self.secure) && self.secure",
    "browsers take a cookie with sameSite None only if it is secure",
)])))]
pub struct IssuedCookie {
    /// Its path; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        extend("x-kubernetes-validations" = rules([(
            "self.matches('^/[!-:<-~]*$')",
            "write a path that begins with '/', without ';' or spaces",
        )]))
    )]
    pub path: Option<String>,
    /// How long it lives, for example `1h`; until the browser ends when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(COOKIE_TTL)))]
    pub ttl: Option<String>,
    /// Whether scripts may not see it; `true` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_only: Option<bool>,
    /// Whether it is sent over TLS only; `false` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// Whether other sites' requests carry it; browsers take `Lax` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
}

/// Whether other sites' requests carry a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SameSite {
    /// None of them.
    Strict,
    /// Those that lead here.
    Lax,
    /// All of them.
    None,
}

/// When endpoints of Floodway's own zone are preferred: those that the EndpointSlices' hints name for it if all have hints,
/// otherwise those that are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Locality {
    /// How many percent of the zone's endpoints must be available; 70 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub min_available_percent: Option<u32>,
    /// And how many of them; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub min_endpoints: Option<u32>,
}

/// How requests choose among versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subset {
    /// The header whose value is that of the label. A request without it goes to any endpoint.
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = header_name()))]
    pub header: String,
    /// The label, as it stands at the endpoints.
    #[schemars(length(min = 1, max = 317))]
    pub label: String,
    /// Who gets a request whose value no endpoint has. `Any`: any endpoint. `Refuse`: nobody, it is answered with 503.
    #[serde(default)]
    pub fallback: SubsetFallback,
}

/// Who gets a request whose value no endpoint has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubsetFallback {
    /// Any endpoint.
    #[default]
    Any,
    /// Nobody.
    Refuse,
}
