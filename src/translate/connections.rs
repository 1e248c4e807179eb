//! What a ProxyUpstream says of connections to its endpoints, and what holds where nobody says anything. TLS on them is
//! `upstream_tls`'s.

use std::time::Duration;

use super::Context;
use super::action::time;
use super::conditions::Problem;
use super::streaming::time_within;
use crate::api;
use crate::snapshot::{Connections, ProxyProtocol, Upkeep};

/// Unused connections kept per endpoint and worker when nobody says otherwise.
const MAX_IDLE_PER_ENDPOINT: u32 = 64;
/// Silence after which the kernel asks an endpoint whether it is still there.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long the answer to a ping may take when nobody says otherwise.
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections of a cluster that no upstream says anything of.
pub(super) fn default_connections(context: &Context) -> Connections {
    Connections {
        connect_timeout: context.defaults.connect,
        idle_timeout: context.defaults.upstream_idle,
        max_idle_per_endpoint: MAX_IDLE_PER_ENDPOINT,
        max_requests: None,
        tcp_keep_alive: Some(TCP_KEEP_ALIVE),
        upkeep: Upkeep::default(),
        proxy_protocol: None,
        tls: None,
    }
}

/// What an upstream says of its connections.
pub(super) fn connections(
    given: Option<&api::Connections>,
    context: &Context,
    problems: &mut Vec<Problem>,
) -> Connections {
    let defaults = default_connections(context);
    let Some(given) = given else { return defaults };
    let api::Connections {
        connect_timeout,
        idle_timeout,
        max_idle_per_endpoint,
        max_requests,
        tcp_keep_alive,
        max_age,
        min_idle_per_endpoint,
        http2_ping_interval,
        http2_ping_timeout,
        connect_stagger,
        proxy_protocol,
    } = given;
    let mut wrong = Vec::new();
    let mut within = |text: &Option<String>, bounds, field: &str| {
        time_within(text, bounds, || format!("spec.connections.{field}")).unwrap_or_else(|problem| {
            wrong.push(problem);
            None
        })
    };
    let ping_timeout = within(http2_ping_timeout, api::PING_TIMEOUT, "http2PingTimeout");
    let http2_ping = within(http2_ping_interval, api::PING, "http2PingInterval")
        .map(|interval| (interval, ping_timeout.unwrap_or(HTTP2_PING_TIMEOUT)));
    let upkeep = Upkeep {
        max_age: within(max_age, api::CONNECTION_AGE, "maxAge"),
        min_idle_per_endpoint: min_idle_per_endpoint.unwrap_or_default(),
        http2_ping,
        stagger: within(connect_stagger, api::STAGGER, "connectStagger"),
    };
    if http2_ping_interval.is_none() && http2_ping_timeout.is_some() {
        let message = "http2PingTimeout is for the answers to pings: it needs http2PingInterval, for example 30s";
        wrong.push(Problem::invalid("spec.connections", message));
    }
    if max_idle_per_endpoint.is_some_and(|most| upkeep.min_idle_per_endpoint > most) {
        wrong.push(Problem::invalid("spec.connections", "minIdlePerEndpoint cannot be more than maxIdlePerEndpoint"));
    }
    if proxy_protocol.is_some() && upkeep.min_idle_per_endpoint > 0 {
        let message =
            "a connection with proxyProtocol is for one client's request: none can be kept open by minIdlePerEndpoint";
        wrong.push(Problem::invalid("spec.connections", message));
    }
    problems.append(&mut wrong);
    let mut time = |text: &Option<String>, field: &str| {
        time(text.as_deref(), || format!("spec.connections.{field}")).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        })
    };
    Connections {
        connect_timeout: time(connect_timeout, "connectTimeout").unwrap_or(defaults.connect_timeout),
        idle_timeout: time(idle_timeout, "idleTimeout").unwrap_or(defaults.idle_timeout),
        tcp_keep_alive: time(tcp_keep_alive, "tcpKeepAlive").or(defaults.tcp_keep_alive),
        max_idle_per_endpoint: max_idle_per_endpoint.unwrap_or(defaults.max_idle_per_endpoint),
        max_requests: max_requests.map(u64::from),
        upkeep,
        // By the cluster: it has a name of its own.
        tls: None,
        proxy_protocol: proxy_protocol.map(|version| match version {
            api::ProxyProtocol::V1 => ProxyProtocol::V1,
            api::ProxyProtocol::V2 => ProxyProtocol::V2,
        }),
    }
}
