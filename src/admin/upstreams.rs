//! `/upstreams`: what is known of every endpoint, as JSON. `floodway upstreams` reads the same types. Fields may be added to
//! them; those that are here stay.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::resilience::{Checked, EndpointState, InUse, KeptOut, Limits, Moment, Registry, Socket};
use crate::snapshot::{Cluster, Snapshot};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstreams {
    /// By name.
    pub upstreams: Vec<Upstream>,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// `shop/llm:8080` for a port of a Service, `upstream shop/legacy` for a ProxyUpstream.
    pub name: String,
    /// How many of its endpoints may get requests.
    pub available: usize,
    /// What its circuit breaker does; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// What is limited of it, by the names in `limits`; absent where nothing is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Limit>,
    /// In their order; those that are gone and still have streams come last.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it may get requests.
    pub available: bool,
    /// Whether its streams run on although it is no endpoint any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// What active checks say: `healthy`, `unhealthy`, or `unchecked` before the first and where there are none.
    pub health: String,
    /// How it was checked last; absent before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_check: Option<LastCheck>,
    /// Why it is ejected, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected: Option<Ejected>,
    /// What its circuit breaker does; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// Requests and streams in flight.
    pub outstanding: u64,
    /// A moving average of the time to the first byte; absent before the first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<f64>,
    /// Its share relative to the others.
    pub weight: u32,
}

/// Something that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// How much is in use.
    pub active: u32,
    /// How much may be.
    pub most: u32,
    /// Requests that wait for more; absent where none does in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastCheck {
    /// Whether it passed.
    pub passed: bool,
    /// How it went: `passed`, `status 503`.
    pub reason: String,
    /// How long ago that was.
    pub ago_ms: u64,
}

/// A circuit breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// `closed`, `open`, `half_open`, `forced_open`, `disabled` or `metrics_only`.
    pub state: String,
    /// How long it lasts at most; absent if time alone changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
    /// The calls that it judges by; of an open one, those that it opened for.
    pub calls: u32,
    /// How many of them failed.
    pub failed: u32,
    /// How many of them were slow.
    pub slow: u32,
}

/// An ejection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ejected {
    /// Which rule says so, one of those in docs/resilience.md.
    pub why: String,
    /// How many times in short order it was, this one included.
    pub times: u32,
    /// How long it lasts from now on.
    pub remaining_ms: u64,
}

impl Upstreams {
    /// What is known of the clusters of `snapshot`.
    pub(super) fn of(snapshot: &Snapshot, registry: &Registry, now: Moment) -> Self {
        let clusters: BTreeMap<_, _> = snapshot.clusters.iter().collect();
        Upstreams { upstreams: clusters.into_values().map(|cluster| upstream(cluster, registry, now)).collect() }
    }
}

fn upstream(cluster: &Cluster, registry: &Registry, now: Moment) -> Upstream {
    let known = registry.known(&cluster.name);
    let mut by_address: BTreeMap<SocketAddr, &EndpointState> =
        known.iter().map(|state| (state.address(), &**state)).collect();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for endpoint in cluster.endpoints.iter() {
        endpoints.push(self::endpoint(endpoint.address, endpoint.weight, by_address.remove(&endpoint.address), now));
    }
    for (address, state) in by_address.into_iter().filter(|(_, state)| state.in_flight() > 0) {
        endpoints.push(Endpoint { gone: true, available: false, ..self::endpoint(address, 0, Some(state), now) });
    }
    let state = known.first().map(|state| state.cluster());
    Upstream {
        name: cluster.name.to_string(),
        breaker: state.and_then(|state| breaker(state.breaker(), now)),
        limits: state.map(|state| limits(state.limits())).unwrap_or_default(),
        available: endpoints.iter().filter(|endpoint| endpoint.available).count(),
        endpoints,
    }
}

/// One without a state had no request yet.
fn endpoint(address: SocketAddr, weight: u32, state: Option<&EndpointState>, now: Moment) -> Endpoint {
    let ejected = state.and_then(EndpointState::ejected).map(|out| Ejected {
        why: out.why.word().to_owned(),
        times: out.times,
        remaining_ms: millis(out.until - now),
    });
    let is_out = |why| state.is_some_and(|state| state.is_kept_out(why));
    let checked = state.and_then(EndpointState::checked);
    let health = match &checked {
        _ if is_out(KeptOut::Unhealthy) => "unhealthy",
        None => "unchecked",
        Some(_) if is_out(KeptOut::Untried) => "unhealthy",
        Some(_) => "healthy",
    };
    Endpoint {
        address,
        available: state.is_none_or(EndpointState::is_available),
        gone: false,
        health: health.to_owned(),
        last_check: checked.map(|Checked { passed, reason, at }| LastCheck {
            passed,
            reason,
            ago_ms: millis(now - at),
        }),
        ejected,
        breaker: state.and_then(|state| breaker(state.breaker(), now)),
        outstanding: state.map_or(0, EndpointState::in_flight),
        first_byte_ms: state.and_then(|state| state.first_byte().value()).map(|time| time.as_micros() as f64 / 1000.0),
        weight,
    }
}

fn limits(limits: &Limits) -> BTreeMap<String, Limit> {
    let limited = limits.in_use().filter_map(|InUse { what, active, most, line }| {
        Some((what.to_owned(), Limit { active, most: most?, pending: line.map(|line| line.waiting) }))
    });
    limited.collect()
}

fn breaker(socket: &Socket, now: Moment) -> Option<Breaker> {
    let look = socket.circuit()?.look(now);
    Some(Breaker {
        state: look.word().word().to_owned(),
        remaining_ms: look.left.map(millis),
        calls: look.totals.calls,
        failed: look.totals.failed,
        slow: look.totals.slow,
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
