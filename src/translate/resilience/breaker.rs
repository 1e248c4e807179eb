//! Circuit breakers. What nobody says is what Resilience4j has.

use std::time::Duration;

use crate::api;
use crate::snapshot::{BreakerMode, BreakerWait, BreakerWindow, CircuitBreaker, Failures, HalfOpenLimit};
use crate::translate::conditions::Problem;
use crate::translate::streaming::time_within;

/// Where a breaker is.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Upstream,
    Endpoint,
}

const WINDOW_CALLS: u32 = 100;
const MINIMUM_CALLS: u32 = 100;
const FAILURE_RATE_PERCENT: u8 = 50;
const SLOW_CALL_RATE_PERCENT: u8 = 100;
const SLOW_CALL_DURATION: Duration = Duration::from_secs(60);
const WAIT_IN_OPEN: Duration = Duration::from_secs(60);
/// The longest wait, in times of the first.
const MAX_WAIT_IN_OPEN: u32 = 10;
const WAIT_JITTER_PERCENT: u8 = 10;
const PERMITTED_IN_HALF_OPEN: u32 = 10;

pub(super) fn breaker(
    given: Option<&api::CircuitBreaker>,
    place: Place,
    problems: &mut Vec<Problem>,
) -> Option<CircuitBreaker> {
    let api::CircuitBreaker {
        mode,
        window,
        minimum_calls,
        failure_rate_percent,
        slow_call_rate_percent,
        slow_call_duration,
        wait_in_open,
        wait_growth_percent,
        max_wait_in_open,
        wait_jitter_percent,
        permitted_in_half_open,
        max_in_half_open,
        after_half_open,
        failure_statuses,
        count_cut,
    } = given?;
    let at = match place {
        Place::Upstream => "spec.circuitBreaker",
        Place::Endpoint => "spec.endpointCircuitBreaker",
    };
    let mut time = |text: &Option<String>, bounds, field: &str| {
        time_within(text, bounds, || format!("{at}.{field}")).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        })
    };
    let slow_call_duration = time(slow_call_duration, api::CALL, "slowCallDuration").unwrap_or(SLOW_CALL_DURATION);
    let first = time(wait_in_open, api::STATE, "waitInOpen").unwrap_or(WAIT_IN_OPEN);
    let most = time(max_wait_in_open, api::STATE, "maxWaitInOpen");
    let half_open = time(max_in_half_open, api::STATE, "maxInHalfOpen");
    let given_window = window.clone().unwrap_or_default();
    let window_time = time(&given_window.time, api::WINDOW, "window.time");

    let mut wrong = |field: &str, message: &str| problems.push(Problem::invalid(format!("{at}{field}"), message));
    let window = match (window, given_window.calls, window_time) {
        (Some(_), Some(calls), None) => BreakerWindow::Calls(calls.clamp(1, 1000)),
        (Some(_), None, Some(time)) => BreakerWindow::Time(time),
        (None, ..) => BreakerWindow::Calls(WINDOW_CALLS),
        (Some(given), ..) => {
            if given.calls.is_some() == given.time.is_some() {
                wrong(".window", "a window needs exactly one of calls and time");
            }
            BreakerWindow::Calls(WINDOW_CALLS)
        }
    };
    if let (BreakerWindow::Calls(calls), Some(minimum)) = (window, minimum_calls)
        && *minimum > calls
        && given_window.calls.is_some()
    {
        wrong("", "minimumCalls cannot be more than window.calls: there would never be so many");
    }
    if most.is_some() && wait_growth_percent.is_none() {
        wrong("", "maxWaitInOpen bounds a wait that grows: it needs waitGrowthPercent");
    }
    if most.is_some_and(|most| most < first) {
        wrong("", "maxWaitInOpen cannot be shorter than waitInOpen, which is 60s when absent");
    }
    if after_half_open.is_some() && max_in_half_open.is_none() {
        wrong("", "afterHalfOpen says what comes when maxInHalfOpen is over: it needs maxInHalfOpen");
    }
    let mut statuses = Vec::with_capacity(failure_statuses.len().max(1));
    for (position, text) in failure_statuses.iter().enumerate() {
        match status_range(text) {
            Some(range) => statuses.push(range),
            None => wrong(
                &format!(".failureStatuses[{position}]"),
                "write a status or a class of them, for example '503' or '5xx'",
            ),
        }
    }
    if failure_statuses.is_empty() {
        statuses.push((500, 599));
    }
    Some(CircuitBreaker {
        mode: match mode {
            api::BreakerMode::Automatic => BreakerMode::Automatic,
            api::BreakerMode::MetricsOnly => BreakerMode::MetricsOnly,
            api::BreakerMode::ForcedOpen => BreakerMode::ForcedOpen,
            api::BreakerMode::Disabled => BreakerMode::Disabled,
        },
        window,
        minimum_calls: minimum_calls.unwrap_or(MINIMUM_CALLS).max(1),
        failure_rate_percent: failure_rate_percent.unwrap_or(FAILURE_RATE_PERCENT).clamp(1, 100),
        slow_call_rate_percent: slow_call_rate_percent.unwrap_or(SLOW_CALL_RATE_PERCENT).clamp(1, 100),
        slow_call_duration,
        wait: BreakerWait {
            first,
            growth_percent: wait_growth_percent.unwrap_or(100).clamp(100, 1000),
            most: most.unwrap_or(first * MAX_WAIT_IN_OPEN),
            jitter_percent: wait_jitter_percent.unwrap_or(WAIT_JITTER_PERCENT).min(100),
        },
        permitted_in_half_open: permitted_in_half_open.unwrap_or(PERMITTED_IN_HALF_OPEN).clamp(1, 1000),
        half_open_limit: half_open
            .map(|time| HalfOpenLimit { time, then_closes: *after_half_open == Some(api::AfterHalfOpen::Closed) }),
        failures: Failures { statuses, cut: count_cut.unwrap_or(matches!(place, Place::Endpoint)) },
    })
}

/// `503`, or `5xx` for all from 500 to 599.
pub(in crate::translate) fn status_range(text: &str) -> Option<(u16, u16)> {
    let [class @ b'1'..=b'5', rest @ ..] = text.as_bytes() else { return None };
    let first = u16::from(class - b'0') * 100;
    match rest {
        b"xx" => Some((first, first + 99)),
        [b'0'..=b'9', b'0'..=b'9'] => text.parse().ok().map(|status| (status, status)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_says_is_what_resilience4j_has() {
        let mut problems = Vec::new();
        let defaults = breaker(Some(&api::CircuitBreaker::default()), Place::Upstream, &mut problems);
        assert!(problems.is_empty());
        let expected = CircuitBreaker {
            mode: BreakerMode::Automatic,
            window: BreakerWindow::Calls(100),
            minimum_calls: 100,
            failure_rate_percent: 50,
            slow_call_rate_percent: 100,
            slow_call_duration: Duration::from_secs(60),
            wait: BreakerWait {
                first: Duration::from_secs(60),
                growth_percent: 100,
                most: Duration::from_secs(600),
                jitter_percent: 10,
            },
            permitted_in_half_open: 10,
            half_open_limit: None,
            failures: Failures { statuses: vec![(500, 599)], cut: false },
        };
        assert_eq!(defaults, Some(expected));
    }

    #[test]
    fn statuses_are_read() {
        for (text, expected) in [
            ("5xx", Some((500, 599))),
            ("429", Some((429, 429))),
            ("6xx", None),
            ("50", None),
            ("5x0", None),
            ("", None),
            ("５xx", None),
        ] {
            assert_eq!(status_range(text), expected, "{text}");
        }
    }
}
