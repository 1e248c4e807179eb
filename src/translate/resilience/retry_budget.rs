//! How many retries an upstream bears.

use crate::api;
use crate::snapshot::RetryBudget;
use crate::translate::conditions::Problem;

pub(super) fn budget(given: &api::RetryBudget, at: &str) -> Result<RetryBudget, Problem> {
    let &api::RetryBudget { percent, min_concurrent } = given;
    let default = RetryBudget::default();
    let percent = percent.unwrap_or(default.percent);
    if percent > 100 {
        return Err(Problem::invalid(
            format!("{at}.percent"),
            format_args!("{percent} is not a percentage from 0 to 100"),
        ));
    }
    Ok(RetryBudget { percent, min_concurrent: min_concurrent.unwrap_or(default.min_concurrent) })
}
