//! What a rule of a ProxyRoute asks for requests that an endpoint did not serve; and how many of those an upstream bears.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TimeBounds;
use super::rules::{duration, duration_within, rules, texts};

/// Of `retry.backoff.base`, `retry.backoff.max`, `retry.maxRetryAfter`, `retry.hedge.minDelay` and `retry.hedge.maxDelay`.
pub const BACKOFF: TimeBounds = ("1ms", "1m");

/// Codes of gRPC that a rule may name, and their numbers.
pub const GRPC_CODES: [(&str, u32); 16] = [
    ("Cancelled", 1),
    ("Unknown", 2),
    ("InvalidArgument", 3),
    ("DeadlineExceeded", 4),
    ("NotFound", 5),
    ("AlreadyExists", 6),
    ("PermissionDenied", 7),
    ("ResourceExhausted", 8),
    ("FailedPrecondition", 9),
    ("Aborted", 10),
    ("OutOfRange", 11),
    ("Unimplemented", 12),
    ("Internal", 13),
    ("Unavailable", 14),
    ("DataLoss", 15),
    ("Unauthenticated", 16),
];

/// When a request is sent to another endpoint, because one did not serve it: only before the client got the first byte of an
/// answer. Durations are written like `30s`, `1m30s` or `500ms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "!has(self.perTryTimeout) || (has(self.retryOn) && 'Timeout' in self.retryOn)",
        "perTryTimeout ends an attempt so that another one is made: it needs Timeout in retryOn",
    ),
    (
        "!has(self.maxRetryAfter) || !has(self.retryOn) || self.retryOn.exists(it, it.matches('^[45]'))",
        "maxRetryAfter is about answers with a status: it needs a status in retryOn, for example '503'",
    ),
    (
        "!has(self.perTryTimeout) || !has(self.hedge) || !has(self.hedge.minDelay) || \
         duration(self.hedge.minDelay) < duration(self.perTryTimeout)",
        "hedge.minDelay is waited for an answer before another endpoint is asked: it must be shorter than perTryTimeout",
    ),
])))]
pub struct Retry {
    /// How many attempts are made altogether, the first one included; 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 10))]
    pub attempts: Option<u32>,
    /// After what another attempt is made: `ConnectFailure`, `Reset`, `RefusedStream`, `Timeout`, statuses like `"503"` or
    /// `5xx`, codes of gRPC like `Unavailable`. `[ConnectFailure, Reset, RefusedStream, "503", Unavailable]` when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 32),
        extend("items" = texts(32, causes()), "x-kubernetes-list-type" = "set")
    )]
    // Not `on`, which YAML 1.1, and with it kubectl, reads as `true`.
    pub retry_on: Vec<String>,
    /// Which requests may be sent again although an endpoint may have served them. `Idempotent`: those whose method says that
    /// it makes no difference (GET, HEAD, OPTIONS, TRACE, PUT, DELETE). `Any`: all. Requests of which certainly nothing was
    /// made are sent again in any case, and so are calls that ended with a code of gRPC named in `retryOn`.
    #[serde(default)]
    pub methods: RetryMethods,
    /// How long an attempt may take until its answer begins, for example `2s`. Needs `Timeout` in `retryOn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration()))]
    pub per_try_timeout: Option<String>,
    /// What is waited before another attempt, for example `{base: 25ms, max: 250ms}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// The longest Retry-After that is waited for, if no other endpoint can be asked; an answer that asks for more goes to the
    /// client. `1s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(BACKOFF)))]
    pub max_retry_after: Option<String>,
    /// How much of a request's content is kept to be sent again, in bytes; 65536 when absent. Requests with more are sent
    /// once, except if nothing was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub body_bytes: Option<u32>,
    /// Answers whose length is known and at most so many bytes are passed on once they are whole, so that one that is broken
    /// off counts as a reset. None are held when absent; event streams and longer answers never are. Answers of gRPC, whose
    /// length nobody tells, are held for 50 ms at most, so that codes named in `retryOn` count in trailers, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub hold_bytes: Option<u32>,
    /// Asks another endpoint beside one that is slow, and cancels the one that answers last. For requests that `methods` lets be
    /// sent again. None is asked when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
}

/// When another endpoint is asked beside one that has not answered yet: once that takes longer than answers of the upstream
/// mostly do. There is one such attempt for a request; it is one of `attempts`, and counts against the `retryBudget` of the
/// upstream, which is 20 % and 3 for it when absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "!has(self.minDelay) || !has(self.maxDelay) || duration(self.minDelay) <= duration(self.maxDelay)",
    "hedge.minDelay and hedge.maxDelay are the bounds of one wait: minDelay cannot be longer than maxDelay",
)])))]
pub struct Hedge {
    /// The wait is the time within which so many percent of the upstream's latest answers have begun; 95 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 50, max = 99))]
    pub percentile: Option<u32>,
    /// The shortest wait; `5ms` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(BACKOFF)))]
    pub min_delay: Option<String>,
    /// The longest wait; not bounded when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(BACKOFF)))]
    pub max_delay: Option<String>,
}

fn causes() -> serde_json::Value {
    let codes = GRPC_CODES.map(|(name, _)| name).join("|");
    rules([(
        &format!("self.matches('^(ConnectFailure|Reset|RefusedStream|Timeout|[45]([0-9][0-9]|xx)|{codes})$')"),
        "write ConnectFailure, Reset, RefusedStream, Timeout, a status like '503' or '5xx', or a code of gRPC like 'Unavailable'",
    )])
}

/// Which requests may be sent again although an endpoint may have served them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetryMethods {
    /// Those with an idempotent method.
    #[default]
    Idempotent,
    /// All.
    Any,
}

/// What is waited before another attempt: a random time up to a bound that grows. The first wait comes once an endpoint has
/// answered, broken off or taken too long; one that cannot be connected to is passed over at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "!has(self.base) || !has(self.max) || duration(self.base) <= duration(self.max)",
    "backoff.base is the first bound and backoff.max the last: base cannot be longer than max",
)])))]
pub struct Backoff {
    /// The bound of the first wait; `25ms` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(BACKOFF)))]
    pub base: Option<String>,
    /// The bound of any wait; ten times the first when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(BACKOFF)))]
    pub max: Option<String>,
    /// By how much each bound is longer than the one before, in percent; 200, which doubles it, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 101, max = 1000))]
    pub factor_percent: Option<u32>,
}

/// A bound for the retries that are under way at the same time, over all routes to an upstream: retries must not become the load
/// that keeps endpoints from recovering.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// How many of the requests in flight may be retries, in percent; 20 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<u32>,
    /// So many are allowed in any case; 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub min_concurrent: Option<u32>,
}
