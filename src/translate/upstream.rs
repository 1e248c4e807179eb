//! ProxyUpstreams: what each says, and which of them a Service has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::action::time;
use super::changes::Changes;
use super::conditions::{Problem, Verdict, conditions, reason, sentences};
use super::policy::Material;
use super::resilience::resilience;
use super::route::{Age, Target};
use super::unsaid::Unsaid;
use super::upstream_tls::upstream_tls;
use super::{Context, Key, Own, Resources};
use crate::api::{self, Condition};
use crate::snapshot::{ClusterName, Common, Connections, Endpoint, Fallback, Map, Resilience, UpstreamTls};

/// How long streams of an endpoint that goes run on before they are moved, when nobody says otherwise.
const MOVE_GRACE: Duration = Duration::from_secs(30);
/// RFC 8305 5: "The recommended value for a default delay is 250 milliseconds."
pub(super) const STAGGER: Duration = Duration::from_millis(250);

/// What whoever skips verification is told.
const INSECURE: &str = "the settings are in force; INSECURE: tls.insecureSkipVerify believes whoever answers in place of the \
                        endpoints";

/// What a ProxyUpstream says.
#[derive(Debug)]
pub(super) struct UpstreamPlan {
    pub(super) age: Age,
    generation: Option<i64>,
    pub(super) place: Place,
    pub(super) protocol: api::Protocol,
    pub(super) connections: Common<Connections>,
    pub(super) resilience: Arc<Resilience>,
    /// What has to be looked up for the fallback.
    pub(super) fallback: Option<Target>,
    pub(super) move_after: Option<Duration>,
    pub(super) tls: Option<UpstreamTls>,
    pub(super) problems: Vec<Problem>,
    /// What is wrong with what it refers to for its connections.
    unresolved: Vec<Problem>,
    /// What it refers to, whether that is there or not.
    secrets: BTreeSet<Key>,
    config_maps: BTreeSet<Key>,
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
    /// What keeps requests from going there, if anything does.
    pub(super) fn fault(&self) -> Option<&Problem> {
        self.problems.first().or(self.unresolved.first())
    }

    /// Whether requests may go there.
    pub(super) fn is_usable(&self) -> bool {
        self.fault().is_none()
    }

    pub(super) fn read(
        key: &Key,
        object: &Own<api::ProxyUpstreamSpec>,
        resources: &Resources,
        context: &Context,
    ) -> Self {
        let Own { created, generation, spec, unread: _ } = object;
        let api::ProxyUpstreamSpec {
            target_refs,
            endpoints,
            hostname,
            protocol,
            connections,
            tls,
            load_balancing,
            // Read by `resilience`.
            health_check: _,
            retry: _,
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
        let mut material = Material::new(resources, &key.namespace, context);
        let tls = match tls {
            Some(given) => upstream_tls(given, "spec.tls", &mut material, &context.roots, &mut problems),
            None => None,
        };
        let Material { unresolved, secrets, config_maps, .. } = material;
        UpstreamPlan {
            age: Age(created.clone(), key.clone()),
            generation: *generation,
            place,
            protocol: *protocol,
            connections: super::connections::connections(connections.as_ref(), context, &mut problems).into(),
            resilience: Arc::new(resilience),
            fallback,
            move_after: move_after(endpoint_drain.as_ref(), &mut problems),
            tls,
            problems,
            unresolved,
            secrets,
            config_maps,
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
                let subset = label.and_then(|label| labels.get(label)).map(|value| Box::new(value.as_str().into()));
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
#[derive(Debug)]
pub(super) struct Upstreams {
    /// What clusters have that no upstream is for.
    pub(super) unsaid: Unsaid,
    pub(super) plans: BTreeMap<Key, Arc<UpstreamPlan>>,
    /// The upstream that each Service has: the oldest that names it.
    attached: Map<Key, Arc<UpstreamPlan>>,
    /// Where the fallbacks lead that had to be looked up, and what is wrong with that.
    pub(super) fallbacks: Map<Key, (Option<ClusterName>, Option<Problem>)>,
}

impl Upstreams {
    pub(super) fn new(context: &Context) -> Self {
        let (plans, attached, fallbacks) = Default::default();
        Upstreams { unsaid: Unsaid::of(context), plans, attached, fallbacks }
    }

    /// Those that refer to a Secret or ConfigMap which changed.
    pub(super) fn using(&self, changes: &Changes) -> Vec<Key> {
        if changes.secrets.is_empty() && changes.config_maps.is_empty() {
            return Vec::new();
        }
        let uses = |plan: &UpstreamPlan| {
            !plan.secrets.is_disjoint(&changes.secrets) || !plan.config_maps.is_disjoint(&changes.config_maps)
        };
        self.plans.iter().filter(|(_, plan)| uses(plan)).map(|(key, _)| key.clone()).collect()
    }

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
        unresolved.splice(..0, plan.unresolved.iter().cloned());
        let resolved = Verdict::of_problems(&unresolved);
        let programmed = if !plan.unresolved.is_empty() {
            Verdict::bad(
                reason::INVALID,
                "backends of this upstream answer 500, because TLS with its endpoints cannot be spoken as it asks",
            )
        } else if accepted.is_some() {
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
        } else if lost.is_empty() && plan.tls.as_ref().is_some_and(|tls| tls.terms.insecure) {
            Verdict::good("Insecure", INSECURE)
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
