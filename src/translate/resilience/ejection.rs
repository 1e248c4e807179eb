//! Passive health.

use crate::api;
use crate::snapshot::Ejection;
use crate::translate::conditions::Problem;
use crate::translate::streaming::time_within;

pub(super) fn ejection(given: &api::Passive, at: &str) -> Result<Ejection, Problem> {
    let api::Passive {
        consecutive_failures,
        consecutive_gateway_failures,
        consecutive_connect_failures,
        failure_rate_percent,
        success_rate_stdev_percent,
        latency_percent,
        minimum_requests,
        minimum_endpoints,
        interval,
        base_ejection,
        max_ejection,
        ejection_jitter,
        max_ejected_percent,
    } = given;
    let defaults = Ejection::default();
    let time = |text, bounds, field| time_within(text, bounds, || format!("{at}.{field}"));
    let percent = |given: Option<u32>, default: u8, field| match given.map(u8::try_from) {
        None => Ok(default),
        Some(Ok(percent @ ..=100)) => Ok(percent),
        _ => Err(Problem::invalid(format!("{at}.{field}"), "a percentage is at most 100")),
    };
    let base = time(base_ejection, api::EJECTION, "baseEjection")?;
    let longest = time(max_ejection, api::EJECTION, "maxEjection")?;
    if longest.is_some_and(|longest| base.is_some_and(|base| base > longest)) {
        return Err(Problem::invalid(at, "maxEjection bounds what baseEjection grows to: it cannot be shorter"));
    }
    Ok(Ejection {
        consecutive_failures: consecutive_failures.unwrap_or(defaults.consecutive_failures),
        consecutive_gateway_failures: consecutive_gateway_failures.unwrap_or(defaults.consecutive_gateway_failures),
        consecutive_connect_failures: consecutive_connect_failures.unwrap_or(defaults.consecutive_connect_failures),
        failure_rate_percent: percent(*failure_rate_percent, defaults.failure_rate_percent, "failureRatePercent")?,
        success_rate_stdev_percent: success_rate_stdev_percent.unwrap_or(defaults.success_rate_stdev_percent),
        latency_percent: latency_percent.unwrap_or(defaults.latency_percent),
        minimum_requests: minimum_requests.unwrap_or(defaults.minimum_requests),
        minimum_endpoints: minimum_endpoints.unwrap_or(defaults.minimum_endpoints),
        interval: time(interval, api::EJECTION_INTERVAL, "interval")?.unwrap_or(defaults.interval),
        base: base.unwrap_or(defaults.base),
        longest: longest.unwrap_or(defaults.longest),
        jitter: time(ejection_jitter, api::EJECTION, "ejectionJitter")?.unwrap_or(defaults.jitter),
        max_percent: percent(*max_ejected_percent, defaults.max_percent, "maxEjectedPercent")?,
    })
}
