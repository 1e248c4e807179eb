//! What a rule asks for requests that an endpoint did not serve.

use std::sync::Arc;
use std::time::Duration;

use super::action::time;
use super::conditions::Problem;
use super::streaming::time_within;
use crate::api;
use crate::snapshot::{Backoff, Hedge, Retry, RetryOn};

const ATTEMPTS: u32 = 3;
const ON: [&str; 5] = ["ConnectFailure", "Reset", "RefusedStream", "503", "Unavailable"];
/// Envoy's default.
const BACKOFF_BASE: Duration = Duration::from_millis(25);
/// Envoy's default, as a multiple of the base.
const BACKOFF_MAX: u32 = 10;
const BACKOFF_FACTOR_PERCENT: u32 = 200;
const MAX_RETRY_AFTER: Duration = Duration::from_secs(1);
const BODY_BYTES: u32 = 64 * 1024;
const PERCENTILE: u32 = 95;
const MIN_DELAY: Duration = Duration::from_millis(5);

/// What is asked for; `request` is the time that the whole exchange has.
pub(super) fn retry(
    given: Option<&api::Retry>,
    request: Option<Duration>,
    at: &str,
) -> Result<Option<Arc<Retry>>, Problem> {
    let Some(given) = given else { return Ok(None) };
    let api::Retry {
        attempts,
        retry_on,
        methods,
        per_try_timeout,
        backoff,
        max_retry_after,
        body_bytes,
        hold_bytes,
        hedge,
    } = given;
    let attempts = attempts.unwrap_or(ATTEMPTS);
    if !(2..=10).contains(&attempts) {
        let message = format!("{attempts} is not a number of attempts from 2 to 10, the first one included");
        return Err(Problem::invalid(format!("{at}.attempts"), message));
    }
    let on = match &retry_on[..] {
        [] => causes(&ON, at)?,
        given => causes(given, at)?,
    };
    let per_try_timeout = time(per_try_timeout.as_deref(), || format!("{at}.perTryTimeout"))?;
    if per_try_timeout.is_some() && !on.timeout {
        let message = "perTryTimeout ends an attempt so that another one is made: it needs Timeout in retryOn";
        return Err(Problem::invalid(at, message));
    }
    if per_try_timeout.is_some_and(|one| request.is_some_and(|all| one > all)) {
        let message = "perTryTimeout is the time for one attempt: it cannot be longer than timeouts.request";
        return Err(Problem::invalid(at, message));
    }
    if max_retry_after.is_some() && on.statuses.is_empty() {
        let message = "maxRetryAfter is about answers with a status: it needs a status in retryOn, for example '503'";
        return Err(Problem::invalid(at, message));
    }
    let max_retry_after = time_within(max_retry_after, api::BACKOFF, || format!("{at}.maxRetryAfter"))?;
    let hedge = hedge.as_ref().map(|given| self::hedge(given, per_try_timeout, at)).transpose()?;
    Ok(Some(Arc::new(Retry {
        attempts,
        on,
        any_method: *methods == api::RetryMethods::Any,
        per_try_timeout,
        backoff: self::backoff(backoff.as_ref(), &format!("{at}.backoff"))?,
        max_retry_after: max_retry_after.unwrap_or(MAX_RETRY_AFTER),
        body_bytes: body_bytes.unwrap_or(BODY_BYTES) as usize,
        hold_bytes: hold_bytes.map_or(0, u64::from),
        hedge,
    })))
}

fn causes<T: AsRef<str>>(words: &[T], at: &str) -> Result<RetryOn, Problem> {
    let mut on = RetryOn::default();
    let mut statuses = Vec::new();
    for (position, word) in words.iter().enumerate() {
        let word = word.as_ref();
        match word {
            "ConnectFailure" => on.connect_failure = true,
            "Reset" => on.reset = true,
            "RefusedStream" => on.refused_stream = true,
            "Timeout" => on.timeout = true,
            "4xx" => statuses.push((400, 499)),
            "5xx" => statuses.push((500, 599)),
            _ => match (word.parse(), api::GRPC_CODES.iter().find(|(name, _)| *name == word)) {
                (Ok(status @ 400..=599), _) => statuses.push((status, status)),
                (_, Some((_, code))) => on.grpc |= 1 << code,
                _ => {
                    let message = format!(
                        "{word:?} is none of ConnectFailure, Reset, RefusedStream, Timeout, a status like '503' or '5xx', \
                         and a code of gRPC like 'Unavailable'"
                    );
                    return Err(Problem::invalid(format!("{at}.retryOn[{position}]"), message));
                }
            },
        }
    }
    on.statuses = statuses.into();
    Ok(on)
}

fn hedge(
    api::Hedge { percentile, min_delay, max_delay }: &api::Hedge,
    per_try_timeout: Option<Duration>,
    retry: &str,
) -> Result<Hedge, Problem> {
    let at = format!("{retry}.hedge");
    let percentile = percentile.unwrap_or(PERCENTILE);
    if !(50..=99).contains(&percentile) {
        let message = format!("{percentile} is not a percentile from 50 to 99");
        return Err(Problem::invalid(format!("{at}.percentile"), message));
    }
    let min_delay = time_within(min_delay, api::BACKOFF, || format!("{at}.minDelay"))?;
    let max_delay = time_within(max_delay, api::BACKOFF, || format!("{at}.maxDelay"))?;
    if min_delay.zip(per_try_timeout).is_some_and(|(min, one)| min >= one) {
        let message = "hedge.minDelay is waited for an answer before another endpoint is asked: it must be shorter than perTryTimeout";
        return Err(Problem::invalid(retry, message));
    }
    if min_delay.zip(max_delay).is_some_and(|(min, max)| min > max) {
        let message =
            "hedge.minDelay and hedge.maxDelay are the bounds of one wait: minDelay cannot be longer than maxDelay";
        return Err(Problem::invalid(at, message));
    }
    let min_delay = min_delay.unwrap_or_else(|| max_delay.map_or(MIN_DELAY, |max| max.min(MIN_DELAY)));
    Ok(Hedge { percentile, min_delay, max_delay })
}

fn backoff(given: Option<&api::Backoff>, at: &str) -> Result<Backoff, Problem> {
    const NONE: api::Backoff = api::Backoff { base: None, max: None, factor_percent: None };
    let api::Backoff { base, max, factor_percent } = given.unwrap_or(&NONE);
    let base = time_within(base, api::BACKOFF, || format!("{at}.base"))?;
    let max = time_within(max, api::BACKOFF, || format!("{at}.max"))?;
    let (base, max) = match (base, max) {
        (Some(base), Some(max)) if base > max => {
            let message = "backoff.base is the first bound and backoff.max the last: base cannot be longer than max";
            return Err(Problem::invalid(at, message));
        }
        (Some(base), max) => (base, max.unwrap_or(base * BACKOFF_MAX)),
        (None, max) => {
            let max = max.unwrap_or(BACKOFF_BASE * BACKOFF_MAX);
            (BACKOFF_BASE.min(max), max)
        }
    };
    let factor_percent = factor_percent.unwrap_or(BACKOFF_FACTOR_PERCENT);
    if !(101..=1000).contains(&factor_percent) {
        let message = format!("{factor_percent} is not a percentage from 101 to 1000");
        return Err(Problem::invalid(format!("{at}.factorPercent"), message));
    }
    Ok(Backoff { base, factor_percent, max })
}
