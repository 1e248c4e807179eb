//! How a cluster is balanced, checked and protected, from what its ProxyUpstream says of it.

mod ejection;
mod health;
mod retry;

use super::conditions::Problem;
use crate::api;
use crate::snapshot::Resilience;

/// What a ProxyUpstream says; what is wrong is left out.
pub(super) fn resilience(
    health: Option<&api::HealthCheck>,
    retry_budget: Option<&api::RetryBudget>,
    problems: &mut Vec<Problem>,
) -> Resilience {
    let mut keep = |problem| problems.push(problem);
    let passive = health.and_then(|health| health.passive.as_ref());
    let ejection = passive.map(|given| ejection::ejection(given, "spec.healthCheck.passive"));
    let active = health.and_then(|health| health.active.as_ref());
    let check = active.map(|given| self::health::health(given, "spec.healthCheck.active"));
    let retry_budget = retry_budget.map(|given| retry::budget(given, "spec.retryBudget"));
    Resilience {
        ejection: ejection.and_then(|read| read.map_err(&mut keep).ok()),
        health: check.and_then(|read| read.map_err(&mut keep).ok()),
        retry_budget: retry_budget.and_then(|read| read.map_err(&mut keep).ok()),
        ..Resilience::default()
    }
}
