//! How many retries an upstream bears.

use crate::api;
use crate::snapshot::RetryBudget;
use crate::translate::conditions::Problem;

/// Envoy's default.
const PERCENT: u32 = 20;
/// Envoy's default.
const MIN_CONCURRENT: u32 = 3;

pub(super) fn budget(
    &api::RetryBudget { percent, min_concurrent }: &api::RetryBudget,
    at: &str,
) -> Result<RetryBudget, Problem> {
    let percent = percent.unwrap_or(PERCENT);
    if percent > 100 {
        return Err(Problem::invalid(
            format!("{at}.percent"),
            format_args!("{percent} is not a percentage from 0 to 100"),
        ));
    }
    Ok(RetryBudget { percent, min_concurrent: min_concurrent.unwrap_or(MIN_CONCURRENT) })
}
