//! How a cluster is balanced, checked and protected, from what its ProxyUpstream says of it.

mod balancing;
mod breaker;
mod ejection;
mod fallback;
mod health;
mod limits;
mod retry_budget;

pub(super) use breaker::status_range;

use super::Key;
use super::conditions::Problem;
use super::retry::retry;
use super::route::Target;
use crate::api;
use crate::snapshot::Resilience;

/// What a ProxyUpstream says, and the fallback that must still be looked up; what is wrong is left out.
pub(super) fn resilience(
    spec: &api::ProxyUpstreamSpec,
    key: &Key,
    problems: &mut Vec<Problem>,
) -> (Resilience, Option<Target>) {
    let (fallback, target) = fallback::fallback(spec, key, problems);
    let mut breaker = |given: &Option<Box<_>>, place| breaker::breaker(given.as_deref(), place, problems);
    let circuit_breaker = breaker(&spec.circuit_breaker, breaker::Place::Upstream);
    let endpoint_circuit_breaker = breaker(&spec.endpoint_circuit_breaker, breaker::Place::Endpoint);
    let api::ProxyUpstreamSpec { load_balancing, health_check, retry: again, retry_budget, limits, endpoints, .. } =
        spec;
    let mut keep = |problem| problems.push(problem);
    let balancing =
        load_balancing.as_ref().map(|given| balancing::balancing(given, !endpoints.is_empty(), "spec.loadBalancing"));
    let balancing = balancing.and_then(|read| read.map_err(&mut keep).ok()).unwrap_or_default();
    let passive = health_check.as_ref().and_then(|health| health.passive.as_ref());
    let ejection = passive.map(|given| ejection::ejection(given, "spec.healthCheck.passive"));
    let active = health_check.as_ref().and_then(|health| health.active.as_ref());
    let check = active.map(|given| self::health::health(given, "spec.healthCheck.active"));
    // How long a whole exchange has, routes say.
    let again = retry(again.as_deref(), None, "spec.retry");
    let retry_budget = retry_budget.as_ref().map(|given| retry_budget::budget(given, "spec.retryBudget"));
    let limits = limits.as_ref().map(|given| limits::limits(given, "spec.limits"));
    let resilience = Resilience {
        owner: Some(key.to_string().into()),
        balancing,
        ejection: ejection.and_then(|read| read.map_err(&mut keep).ok()),
        health: check.and_then(|read| read.map_err(&mut keep).ok()),
        limits: limits.and_then(|read| read.map_err(&mut keep).ok()),
        retry: again.map_err(&mut keep).ok().flatten(),
        retry_budget: retry_budget.and_then(|read| read.map_err(&mut keep).ok()),
        circuit_breaker,
        endpoint_circuit_breaker,
        fallback,
    };
    (resilience, target)
}
