//! How much of an upstream may be in use at once.

use std::time::Duration;

use crate::api;
use crate::snapshot::{Adaptive, Limits};
use crate::translate::conditions::Problem;
use crate::translate::streaming::time_within;

/// The limits that an upstream gives itself.
pub(super) fn limits(given: &api::Limits, at: &str) -> Result<Limits, Problem> {
    let &api::Limits {
        connections,
        connections_per_endpoint,
        requests,
        streams,
        retries,
        pending,
        ref pending_timeout,
        ref adaptive,
    } = given;
    if adaptive.is_none()
        && [connections, connections_per_endpoint, requests, streams, retries].iter().all(Option::is_none)
    {
        let message =
            "limits need at least one of connections, connectionsPerEndpoint, requests, streams, retries and adaptive";
        return Err(Problem::invalid(at, message));
    }
    if [connections, connections_per_endpoint, requests, streams].contains(&Some(0)) {
        return Err(Problem::invalid(at, "a limit of 0 lets nothing happen; leave it out for none"));
    }
    if connections.is_some_and(|all| connections_per_endpoint.is_some_and(|each| each > all)) {
        return Err(Problem::invalid(at, "connectionsPerEndpoint cannot be more than connections"));
    }
    if pending == Some(0) && pending_timeout.is_some() {
        let message = "nothing waits with pending 0: leave pendingTimeout out, or let some requests wait";
        return Err(Problem::invalid(at, message));
    }
    let timeout = time_within(pending_timeout, api::PENDING_TIMEOUT, || format!("{at}.pendingTimeout"))?;
    Ok(Limits {
        connections,
        connections_per_endpoint,
        requests,
        streams,
        retries,
        pending: pending.unwrap_or(Limits::NONE.pending),
        pending_timeout: timeout.unwrap_or(Limits::NONE.pending_timeout),
        adaptive: adaptive.as_ref().map(|given| self::adaptive(given, &format!("{at}.adaptive"))).transpose()?,
    })
}

fn adaptive(given: &api::Adaptive, at: &str) -> Result<Adaptive, Problem> {
    let &api::Adaptive { min_requests, max_requests, tolerance_percent, ref window } = given;
    let (min, max) = (min_requests.unwrap_or(1), max_requests.unwrap_or(1000));
    if min > max || min == 0 {
        let message = "minRequests (1 when absent) cannot be more than maxRequests (1000 when absent)";
        return Err(Problem::invalid(at, message));
    }
    let window = time_within(window, api::ADAPTIVE_WINDOW, || format!("{at}.window"))?;
    Ok(Adaptive {
        min,
        max,
        tolerance_percent: tolerance_percent.unwrap_or(150),
        window: window.unwrap_or(Duration::from_secs(1)),
    })
}
