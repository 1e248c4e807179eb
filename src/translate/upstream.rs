//! ProxyUpstreams: what each says, and which of them a Service has.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::action::time;
use super::conditions::{Problem, Verdict, conditions, reason, sentences};
use super::resilience::resilience;
use super::route::{Age, Target};
use super::streaming::time_within;
use super::{Context, Key, Own, Resources};
use crate::api::{self, Condition};
use crate::snapshot::{ClusterName, Connections, Endpoint, Fallback, Map, ProxyProtocol, Resilience, Upkeep};

/// Unused connections kept per endpoint and worker when nobody says otherwise.
const MAX_IDLE_PER_ENDPOINT: u32 = 64;
/// Silence after which the kernel asks an endpoint whether it is still there.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long streams of an endpoint that goes run on before they are moved, when nobody says otherwise.
const MOVE_GRACE: Duration = Duration::from_secs(30);
/// How long the answer to a ping may take when nobody says otherwise.
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// RFC 8305 5: "The recommended value for a default delay is 250 milliseconds."
pub(super) const STAGGER: Duration = Duration::from_millis(250);

/// What a ProxyUpstream says.
#[derive(Debug)]
pub(super) struct UpstreamPlan {
    pub(super) age: Age,
    generation: Option<i64>,
    pub(super) place: Place,
    pub(super) protocol: api::Protocol,
    pub(super) connections: Connections,
    pub(super) resilience: Arc<Resilience>,
    /// What has to be looked up for the fallback.
    pub(super) fallback: Option<Target>,
    pub(super) move_after: Option<Duration>,
    pub(super) problems: Vec<Problem>,
}

/// Where the endpoints come from.
#[derive(Debug)]
pub(super) enum Place {
    /// Services have them; the upstream only says how they are treated.
    Services(Vec<Key>),
    Endpoints(Arc<[Endpoint]>),
    Hostname {
        name: String,
        port: u16,
    },
}

impl UpstreamPlan {
    pub(super) fn read(key: &Key, object: &Own<api::ProxyUpstreamSpec>, context: &Context) -> Self {
        let Own { created, generation, spec } = object;
        let api::ProxyUpstreamSpec {
            target_refs,
            endpoints,
            hostname,
            protocol,
            connections,
            load_balancing,
            // Read by `resilience`.
            health_check: _,
            retry_budget: _,
            limits: _,
            circuit_breaker: _,
            endpoint_circuit_breaker: _,
            fallback: _,
            endpoint_drain,
        } = spec;
        let mut problems = Vec::new();
        let place = match (&target_refs[..], &endpoints[..], hostname) {
            ([_, ..], [], None) => services(target_refs, key, &mut problems),
            ([], [_, ..], None) => addresses(endpoints, load_balancing.as_ref(), context, &mut problems),
            ([], [], Some(hostname)) => host_and_port(hostname, &mut problems),
            _ => {
                problems.push(Problem::invalid(
                    "spec",
                    "an upstream needs exactly one of targetRefs, endpoints and hostname",
                ));
                services(target_refs, key, &mut problems)
            }
        };
        let (resilience, fallback) = resilience(spec, key, &mut problems);
        UpstreamPlan {
            age: Age(created.clone(), key.clone()),
            generation: *generation,
            place,
            protocol: *protocol,
            connections: self::connections(connections.as_ref(), context, &mut problems),
            resilience: Arc::new(resilience),
            fallback,
            move_after: move_after(endpoint_drain.as_ref(), &mut problems),
            problems,
        }
    }
}

fn services(refs: &[api::TargetRef], key: &Key, problems: &mut Vec<Problem>) -> Place {
    let mut services = Vec::new();
    for (at, api::TargetRef { kind, name }) in refs.iter().enumerate() {
        if kind == "Service" {
            services.push(Key { namespace: Arc::clone(&key.namespace), name: name.as_str().into() });
        } else {
            problems.push(Problem {
                reason: reason::UNSUPPORTED_VALUE,
                path: format!("spec.targetRefs[{at}].kind"),
                message: format!("{kind:?} is not supported, only Service is"),
            });
        }
    }
    Place::Services(services)
}

fn addresses(
    endpoints: &[api::Endpoint],
    load_balancing: Option<&api::LoadBalancing>,
    context: &Context,
    problems: &mut Vec<Problem>,
) -> Place {
    let label = load_balancing.and_then(|given| given.subset.as_ref()).map(|subset| &subset.label);
    let near = load_balancing.is_some_and(|given| given.locality.is_some());
    let mut read = BTreeMap::new();
    for (at, api::Endpoint { address, weight, zone, labels }) in endpoints.iter().enumerate() {
        match address.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 && *weight > 0 => {
                let subset = label.and_then(|label| labels.get(label)).map(|value| value.as_str().into());
                let local = near && zone.is_some() && *zone == context.zone;
                read.insert(address, Endpoint { address, weight: *weight, local, subset });
            }
            Ok(_) => problems.push(Problem::invalid(
                format!("spec.endpoints[{at}]"),
                "the port and the weight of an endpoint are above zero",
            )),
            Err(_) => problems.push(Problem::invalid(
                format!("spec.endpoints[{at}].address"),
                format_args!("{address:?} is not an address and a port; write \"10.0.0.5:8080\" or \"[fd00::5]:8080\""),
            )),
        }
    }
    Place::Endpoints(read.into_values().collect())
}

fn host_and_port(text: &str, problems: &mut Vec<Problem>) -> Place {
    let parts = text.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
    let parts = parts.filter(|(name, port)| !name.is_empty() && *port > 0);
    let Some((name, port)) = parts else {
        problems.push(Problem::invalid(
            "spec.hostname",
            format_args!("{text:?} is not a name and a port; write \"api.example.com:443\""),
        ));
        return Place::Services(Vec::new());
    };
    match name.parse::<IpAddr>() {
        Ok(address) => Place::Endpoints([Endpoint::new((address, port).into())].into()),
        Err(_) => Place::Hostname { name: name.trim_end_matches('.').to_ascii_lowercase(), port },
    }
}

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
    }
}

fn connections(given: Option<&api::Connections>, context: &Context, problems: &mut Vec<Problem>) -> Connections {
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
        proxy_protocol: proxy_protocol.map(|version| match version {
            api::ProxyProtocol::V1 => ProxyProtocol::V1,
            api::ProxyProtocol::V2 => ProxyProtocol::V2,
        }),
    }
}

fn move_after(given: Option<&api::EndpointDrain>, problems: &mut Vec<Problem>) -> Option<Duration> {
    let api::EndpointDrain { mode, grace } = given?;
    let grace = time(grace.as_deref(), || "spec.endpointDrain.grace".to_owned()).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    match (mode, grace) {
        (api::DrainMode::Move, grace) => Some(grace.unwrap_or(MOVE_GRACE)),
        (api::DrainMode::Keep, None) => None,
        (api::DrainMode::Keep, Some(_)) => {
            let message = "grace is the time until streams are moved: it needs mode Move";
            problems.push(Problem::invalid("spec.endpointDrain", message));
            None
        }
    }
}

/// All ProxyUpstreams.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    pub(super) plans: BTreeMap<Key, Arc<UpstreamPlan>>,
    /// The upstream that each Service has: the oldest that names it.
    attached: Map<Key, Arc<UpstreamPlan>>,
    /// Where the fallbacks lead that had to be looked up, and what is wrong with that.
    pub(super) fallbacks: Map<Key, (Option<ClusterName>, Option<Problem>)>,
}

impl Upstreams {
    /// The upstream whose settings a Service has.
    pub(super) fn of_service(&self, service: &Key) -> Option<&Arc<UpstreamPlan>> {
        self.attached.get(service)
    }

    /// The cluster that an upstream falls back to.
    pub(super) fn fallback(&self, plan: &UpstreamPlan) -> Option<&ClusterName> {
        self.fallbacks.get(&plan.age.1)?.0.as_ref()
    }

    /// What an upstream says of its clusters, with its fallback if that leads somewhere.
    pub(super) fn resilience(&self, plan: &UpstreamPlan) -> Arc<Resilience> {
        match self.fallback(plan) {
            None => Arc::clone(&plan.resilience),
            Some(name) => {
                let fallback = Some(Fallback::Cluster(name.clone()));
                Arc::new(Resilience { fallback, ..Resilience::clone(&plan.resilience) })
            }
        }
    }

    /// Decides again which upstream each Service has.
    pub(super) fn attach(&mut self) {
        let mut oldest_first: Vec<_> = self.plans.values().collect();
        oldest_first.sort_by(|a, b| a.age.cmp(&b.age));
        self.attached.clear();
        for plan in oldest_first {
            if let Place::Services(services) = &plan.place {
                for service in services {
                    self.attached.entry(service.clone()).or_insert_with(|| Arc::clone(plan));
                }
            }
        }
    }

    /// What to tell the owner of an upstream.
    pub(super) fn verdicts(&self, key: &Key, plan: &UpstreamPlan, resources: &Resources) -> Arc<[Condition]> {
        let (mut unresolved, mut lost, mut wanted) = (Vec::new(), Vec::new(), 0);
        match &plan.place {
            Place::Services(services) => {
                wanted = services.len();
                for (at, service) in services.iter().enumerate() {
                    let path = format!("spec.targetRefs[{at}]");
                    if let Some(winner) = self.of_service(service).filter(|winner| winner.age.1 != *key) {
                        let winner = &winner.age.1;
                        lost.push(format!("{path}: ProxyUpstream {winner}, which comes first, has Service {service}"));
                    }
                    if !resources.services.contains_key(service) {
                        let message = format!("Service {service} does not exist");
                        unresolved.push(Problem { reason: reason::TARGET_NOT_FOUND, path, message });
                    }
                }
            }
            Place::Hostname { name, .. } => unresolved.extend(name_problem(name, "spec.hostname", resources)),
            Place::Endpoints(_) => {}
        }
        let accepted = Verdict::of_problems(&plan.problems);
        let without_fallback = Verdict::of_problems(&unresolved);
        let fallback = self.fallbacks.get(key).and_then(|(_, problem)| problem.clone());
        let falls_nowhere = fallback.is_some();
        unresolved.extend(fallback);
        let resolved = Verdict::of_problems(&unresolved);
        let programmed = if accepted.is_some() {
            Verdict::bad(reason::INVALID, "backends of this upstream answer 500, because the spec is not accepted")
        } else if !lost.is_empty() && lost.len() >= wanted {
            Verdict::bad(reason::CONFLICTED, sentences(&lost))
        } else if let Some(unresolved) = &without_fallback {
            match unresolved.reason {
                reason::PENDING => Verdict::pending("requests are answered with 503, until the name is resolved"),
                reason::NAME_NOT_FOUND => {
                    Verdict::bad(reason::INVALID, "requests are answered with 503, for want of an address")
                }
                _ => Verdict::pending("the settings wait for the Services that they are for"),
            }
        } else if falls_nowhere && lost.is_empty() {
            Verdict::bad(reason::INVALID, "requests get no fallback, because what it refers to is not resolved")
        } else if lost.is_empty() {
            Verdict::good("Programmed", "the settings are in force")
        } else {
            Verdict { reason: reason::PARTIALLY_CONFLICTED, ..Verdict::good("", &sentences(&lost)) }
        };
        conditions(
            plan.generation,
            accepted.unwrap_or_else(|| Verdict::good("Accepted", "the spec is valid")),
            resolved.unwrap_or_else(|| Verdict::good("ResolvedRefs", "all references are resolved")),
            programmed,
        )
    }
}

/// What is wrong with a name that needs addresses, if anything.
pub(super) fn name_problem(name: &str, path: &str, resources: &Resources) -> Option<Problem> {
    let (reason, message) = match resources.resolved.get(name) {
        None => (reason::PENDING, format!("the name {name} is being resolved")),
        Some(addresses) if addresses.is_empty() => (reason::NAME_NOT_FOUND, format!("the name {name} has no address")),
        Some(_) => return None,
    };
    Some(Problem { reason, path: path.to_owned(), message })
}
