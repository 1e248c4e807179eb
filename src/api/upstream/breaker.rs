//! Circuit breakers, and what requests get that nobody may be asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::rules::{duration_within, rules, texts};
use crate::api::{Redirect, Respond, ServiceRef, TimeBounds, UpstreamRef};

/// The least and the most for times of calls.
pub const CALL: TimeBounds = ("1ms", "1h");
/// The least and the most for times in a state.
pub const STATE: TimeBounds = ("100ms", "24h");
/// The least and the most for a window of time.
pub const WINDOW: TimeBounds = ("1s", "1h");

/// When a circuit breaker opens and how it closes again, for example
/// `{failureRatePercent: 50, minimumCalls: 20, window: {time: 20s}, waitInOpen: 5s, permittedInHalfOpen: 4}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "!has(self.minimumCalls) || !has(self.window) || !has(self.window.calls) || self.minimumCalls <= self.window.calls",
        "minimumCalls cannot be more than window.calls: there would never be so many",
    ),
    (
        "!has(self.maxWaitInOpen) || has(self.waitGrowthPercent)",
        "maxWaitInOpen bounds a wait that grows: it needs waitGrowthPercent",
    ),
    (
        "!has(self.maxWaitInOpen) || duration(self.maxWaitInOpen) >= duration(has(self.waitInOpen) ? self.waitInOpen : '60s')",
        "maxWaitInOpen cannot be shorter than waitInOpen, which is 60s when absent",
    ),
    (
        "!has(self.afterHalfOpen) || has(self.maxInHalfOpen)",
        "afterHalfOpen says what comes when maxInHalfOpen is over: it needs maxInHalfOpen",
    ),
])))]
pub struct CircuitBreaker {
    /// `Automatic`: opens and closes. `MetricsOnly`: only counts. `ForcedOpen`: lets nothing through. `Disabled`: lets everything
    /// through and counts nothing.
    #[serde(default)]
    pub mode: BreakerMode,
    /// Which calls it judges by; the last 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<BreakerWindow>,
    /// Calls in the window below which it does not judge; 100 when absent, or as many as the window has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minimum_calls: Option<u32>,
    /// It opens when so many percent of the calls failed, or more; 50 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_rate_percent: Option<u8>,
    /// It opens when so many percent of the calls were slow, or more; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub slow_call_rate_percent: Option<u8>,
    /// A call is slow if its first byte takes longer; `60s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(CALL)))]
    pub slow_call_duration: Option<String>,
    /// How long it stays open; `60s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(STATE)))]
    pub wait_in_open: Option<String>,
    /// Each time that it opens again without having closed, the wait is so many percent of the one before: with 150 and `10s` it is
    /// 10, 15 and 22.5 seconds. 100, which does not grow, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 1000))]
    pub wait_growth_percent: Option<u32>,
    /// The longest wait; ten times `waitInOpen` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(STATE)))]
    pub max_wait_in_open: Option<String>,
    /// By how many percent a wait is made longer or shorter at random, so that replicas do not come back at once; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub wait_jitter_percent: Option<u8>,
    /// After the wait so many calls are let through, whose outcomes close it or open it again; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub permitted_in_half_open: Option<u32>,
    /// How long it waits for these outcomes; for as long as the calls take when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(STATE)))]
    pub max_in_half_open: Option<String>,
    /// What comes if they are not there by then: `Open` (when absent) or `Closed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_half_open: Option<AfterHalfOpen>,
    /// Answers with these statuses are failures, for example `[5xx, "429"]`; `[5xx]` when absent. A status of gRPC counts as the
    /// status of HTTP that it maps to. That there is no answer always is a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend(
            "items" = texts(3, rules([(
                "self.matches('^[1-5](xx|[0-9][0-9])$')",
                "write a status or a class of them, for example '503' or '5xx'",
            )])),
            "x-kubernetes-list-type" = "set",
        )
    )]
    pub failure_statuses: Vec<String>,
    /// Whether an answer that breaks off after it began is one more call, which failed. When absent: no for `circuitBreaker`, because
    /// a single endpoint that goes cuts all of its streams; yes for `endpointCircuitBreaker`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_cut: Option<bool>,
}

/// What a circuit breaker does with what it sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BreakerMode {
    /// It opens and closes.
    #[default]
    Automatic,
    /// It only counts.
    MetricsOnly,
    /// It lets nothing through.
    ForcedOpen,
    /// It lets everything through and counts nothing.
    Disabled,
}

/// Which calls a circuit breaker judges by: exactly one of `calls` and `time`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([(
    "has(self.calls) != has(self.time)",
    "a window needs exactly one of calls and time",
)])))]
pub struct BreakerWindow {
    /// The last so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub calls: Option<u32>,
    /// Those of the last so long, for example `20s`. It forgets in steps of a second, and above 40 seconds in 40
    /// steps of equal length: with `20m`, of half a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), extend("x-kubernetes-validations" = duration_within(WINDOW)))]
    pub time: Option<String>,
}

/// What comes after a half-open state that took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AfterHalfOpen {
    /// It opens again.
    Open,
    /// It closes.
    Closed,
}

/// What requests get for which no endpoint may be asked: because the circuit breaker is open, or because there is no endpoint.
/// Exactly one of `service`, `upstream`, `respond` and `redirect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules([
    (
        "[has(self.service), has(self.upstream), has(self.respond), has(self.redirect)].exists_one(it, it)",
        "a fallback needs exactly one of service, upstream, respond and redirect",
    ),
    (
        "!has(self.redirect) || !has(self.redirect.path) || self.redirect.path.type == 'ReplaceFull'",
        "a fallback knows no prefix that could be replaced: the path of its redirect is of type ReplaceFull",
    ),
])))]
pub struct Fallback {
    /// Another Service in this namespace, for example `{name: llm-small, port: http}`. Its own fallback does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// Another ProxyUpstream in this namespace, with endpoints or a hostname of its own. Its own fallback does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamRef>,
    /// A direct answer, for example `{status: 503, body: busy}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Box<Respond>>,
    /// Another location, for example `{host: status.example.com}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Box<Redirect>>,
}
