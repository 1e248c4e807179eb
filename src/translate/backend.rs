//! What the backends of a rule refer to, and the clusters made of it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use super::conditions::{Problem, reason};
use super::policy::Policies;
use super::route::Target;
use super::upstream::{Place, STAGGER, UpstreamPlan, Upstreams, name_problem};
use super::{Context, Key, Resources, Service, ServiceKind, ServicePort, SliceEndpoint, Slices, TargetPort};
use crate::api;
use crate::snapshot::{Cluster, ClusterName, Endpoint, Protocol};

/// What a cluster is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A port of a Service, by number.
    Service(Key, u16),
    /// A ProxyUpstream with endpoints or a name of its own.
    Upstream(Key),
}

impl Source {
    pub(super) fn cluster_name(&self) -> ClusterName {
        match self {
            Source::Service(key, port) => ClusterName::new(format!("{key}:{port}")),
            Source::Upstream(key) => ClusterName::new(format!("upstream {key}")),
        }
    }
}

/// All that references are looked up in.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    resources: &'a Resources,
    upstreams: &'a Upstreams,
    pub(super) policies: &'a Policies,
    context: &'a Context,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        upstreams: &'a Upstreams,
        policies: &'a Policies,
        context: &'a Context,
    ) -> Self {
        Lookup { resources, upstreams, policies, context }
    }

    /// What a backend refers to. A problem beside a source is one that time may solve: the cluster has no endpoints yet.
    ///
    /// # Errors
    /// What is missing; the backend then answers 500.
    pub(super) fn resolve(
        self,
        target: &Target,
        path: impl Fn() -> String,
    ) -> Result<(Source, Option<Problem>), Problem> {
        match target {
            Target::Upstream(key) => self.upstream(key, || format!("{}.upstream", path())),
            Target::Service(key, port) => self.service(key, port, || format!("{}.service", path())),
        }
    }

    fn upstream(self, key: &Key, path: impl Fn() -> String) -> Result<(Source, Option<Problem>), Problem> {
        let problem = |reason, message| Problem { reason, path: path(), message };
        let Some(plan) = self.upstreams.plans.get(key) else {
            return Err(problem(reason::BACKEND_NOT_FOUND, format!("ProxyUpstream {key} does not exist")));
        };
        usable(plan, key).map_err(|message| problem(reason::BACKEND_INVALID, message))?;
        match &plan.place {
            Place::Services(_) => Err(problem(
                reason::BACKEND_INVALID,
                format!("ProxyUpstream {key} has no endpoints of its own; name the Service that it is attached to"),
            )),
            Place::Endpoints(_) => Ok((Source::Upstream(key.clone()), None)),
            Place::Hostname { name, .. } => {
                Ok((Source::Upstream(key.clone()), name_problem(name, &path(), self.resources)))
            }
        }
    }

    fn service(
        self,
        key: &Key,
        port: &api::ServicePort,
        path: impl Fn() -> String,
    ) -> Result<(Source, Option<Problem>), Problem> {
        let Some(service) = self.resources.services.get(key) else {
            let message = format!("Service {key} does not exist");
            return Err(Problem { reason: reason::BACKEND_NOT_FOUND, path: path(), message });
        };
        let Some(number) = port_number(service, port) else {
            let message = format!("Service {key} has no port {port}; {}", ports_of(service));
            return Err(Problem { reason: reason::PORT_NOT_FOUND, path: format!("{}.port", path()), message });
        };
        if let Some(plan) = self.upstreams.of_service(key) {
            usable(plan, &plan.age.1).map_err(|message| Problem {
                reason: reason::BACKEND_INVALID,
                path: path(),
                message,
            })?;
        }
        let pending = match &service.kind {
            ServiceKind::External(name) => name_problem(name, &path(), self.resources),
            ServiceKind::Endpoints => None,
        };
        Ok((Source::Service(key.clone(), number), pending))
    }

    /// The cluster of a source. `None` if the source is gone.
    pub(super) fn cluster(self, name: ClusterName, source: &Source) -> Option<Cluster> {
        let unsaid = &self.upstreams.unsaid;
        let (protocol, mut connections, endpoints, settings) = match source {
            Source::Upstream(key) => {
                let plan = self.upstreams.plans.get(key)?;
                let endpoints = match &plan.place {
                    Place::Services(_) => return None,
                    Place::Endpoints(endpoints) => Arc::clone(endpoints),
                    Place::Hostname { name, port } => self.resolved(name, *port),
                };
                (protocol(plan.protocol, None, plan.tls.is_some()), plan.connections.clone(), endpoints, Some(plan))
            }
            Source::Service(key, number) => {
                let service = self.resources.services.get(key)?;
                let port = service_port(service, *number)?;
                let slices = self.resources.slices.get(key);
                let settings = self.upstreams.of_service(key);
                // Only who prefers a zone hears of zones: others need not change with them.
                let near = settings.is_some_and(|plan| plan.resilience.balancing.locality.is_some());
                let zone = self.context.zone.as_deref().filter(|_| near);
                let endpoints = match &service.kind {
                    ServiceKind::External(name) => self.resolved(name, target_number(&port)),
                    ServiceKind::Endpoints => slices.map_or_else(|| [].into(), |slices| endpoints(&port, slices, zone)),
                };
                let asked = settings.map_or(api::Protocol::Auto, |plan| plan.protocol);
                let spoken = port.app_protocol.as_deref().or_else(|| slice_protocol(&port, slices?));
                let connections = settings.map_or(&unsaid.connections, |plan| &plan.connections).clone();
                let secure = settings.is_some_and(|plan| plan.tls.is_some());
                (protocol(asked, spoken, secure), connections, endpoints, settings)
            }
        };
        let hostname = self.hostname(source);
        // Changed only where need be, so that most clusters have theirs in common.
        if hostname.is_some() && connections.upkeep.stagger.is_none() {
            connections.upkeep.stagger = Some(STAGGER);
        }
        if let Some(tls) = settings.and_then(|plan| plan.tls.as_ref()) {
            let inner = match source {
                Source::Service(Key { namespace, name }, _) => Some(format!("{name}.{namespace}.svc")),
                Source::Upstream(_) => None,
            };
            connections.tls = Some(Arc::new(tls.of_cluster(protocol, hostname.or(inner.as_deref()))));
        }
        let move_after = settings.and_then(|plan| plan.move_after);
        let resilience =
            settings.map_or_else(|| Arc::clone(&unsaid.resilience), |plan| self.upstreams.resilience(plan));
        Some(Cluster { name, protocol, connections, resilience, endpoints, move_after })
    }

    /// The upstream whose settings a source has.
    pub(super) fn settings(self, source: &Source) -> Option<&'a Arc<UpstreamPlan>> {
        match source {
            Source::Service(key, _) => self.upstreams.of_service(key),
            Source::Upstream(key) => self.upstreams.plans.get(key),
        }
    }

    /// The cluster that a source falls back to.
    pub(super) fn fallback(self, source: &Source) -> Option<&'a ClusterName> {
        self.upstreams.fallback(self.settings(source)?)
    }

    /// Whether any upstream falls back to something that others may change.
    pub(super) fn has_fallbacks(self) -> bool {
        !self.upstreams.fallbacks.is_empty()
    }

    /// The name that a source needs the addresses of.
    pub(super) fn hostname(self, source: &Source) -> Option<&'a str> {
        match source {
            Source::Upstream(key) => match &self.upstreams.plans.get(key)?.place {
                Place::Hostname { name, .. } => Some(name),
                _ => None,
            },
            Source::Service(key, _) => match &self.resources.services.get(key)?.kind {
                ServiceKind::External(name) => Some(name),
                ServiceKind::Endpoints => None,
            },
        }
    }

    fn resolved(self, name: &str, port: u16) -> Arc<[Endpoint]> {
        let mut addresses = self.resources.resolved.get(name).map(|found| found.to_vec()).unwrap_or_default();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.into_iter().map(|address| Endpoint::new((address, port).into())).collect()
    }
}

/// Settings that are not what their owner meant protect nothing: nobody gets through until they are right.
fn usable(plan: &UpstreamPlan, key: &Key) -> Result<(), String> {
    match plan.fault() {
        None => Ok(()),
        Some(problem) => Err(format!("ProxyUpstream {key} is not valid: {problem}")),
    }
}

fn port_number(service: &Service, port: &api::ServicePort) -> Option<u16> {
    let mut ports = service.ports.iter();
    match port {
        // A Service of type ExternalName need not list its ports.
        api::ServicePort::Number(number) if service.ports.is_empty() && service.kind != ServiceKind::Endpoints => {
            Some(*number)
        }
        api::ServicePort::Number(number) => ports.find(|port| port.port == *number).map(|port| port.port),
        api::ServicePort::Name(name) => ports.find(|port| *port.name == **name).map(|port| port.port),
    }
}

fn service_port(service: &Service, number: u16) -> Option<Cow<'_, ServicePort>> {
    let listed = service.ports.iter().find(|port| port.port == number).map(Cow::Borrowed);
    listed.or_else(|| {
        let target = TargetPort::Number(number);
        let unlisted = ServicePort { name: "".into(), port: number, target, app_protocol: None };
        (service.kind != ServiceKind::Endpoints && service.ports.is_empty()).then_some(Cow::Owned(unlisted))
    })
}

fn ports_of(service: &Service) -> String {
    let ports = service.ports.iter().map(|port| match &*port.name {
        "" => port.port.to_string(),
        name => format!("{} ({name})", port.port),
    });
    match ports.collect::<Vec<_>>() {
        ports if ports.is_empty() => "it has none for TCP".to_owned(),
        ports => format!("it has {}", ports.join(", ")),
    }
}

/// The port behind a Service port, where no slice says it.
fn target_number(port: &ServicePort) -> u16 {
    match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Name(_) => port.port,
    }
}

/// The endpoints of one port, over all slices: those that are ready and stay; if there is none, those that still serve
/// while they terminate (KEP-1669).
fn endpoints(port: &ServicePort, slices: &Slices, zone: Option<&str>) -> Arc<[Endpoint]> {
    let mut ready: Vec<(SocketAddr, &SliceEndpoint)> = Vec::new();
    let mut last_resort = Vec::new();
    for (_, slice) in slices.iter() {
        let Some(slice_port) = slice.ports.iter().find(|one| one.name == port.name) else { continue };
        // "If this is not specified, ports are not restricted": then the Service's own word counts.
        let number = slice_port.port.unwrap_or_else(|| target_number(port));
        for endpoint in &slice.endpoints {
            let address = SocketAddr::from((endpoint.address, number));
            // One that terminates counts as ready, too, where a Service publishes addresses that are not ready.
            match (endpoint.ready, endpoint.terminating) {
                (true, false) => ready.push((address, endpoint)),
                (ready, true) if ready || endpoint.serving => last_resort.push((address, endpoint)),
                _ => {}
            }
        }
    }
    let mut chosen = if ready.is_empty() { last_resort } else { ready };
    // A pod may be in two slices while it moves between them.
    chosen.sort_by_key(|(address, _)| *address);
    chosen.dedup_by_key(|(address, _)| *address);
    let is_local = is_local(&chosen, zone);
    let endpoint =
        |(address, endpoint): &(_, &SliceEndpoint)| Endpoint { local: is_local(endpoint), ..Endpoint::new(*address) };
    chosen.iter().map(endpoint).collect()
}

/// Which endpoints are for a zone: those that hints name for it, if all have hints and one is named; otherwise those that are in
/// it. EndpointSlice hints "may be ignored" by whoever does not find them complete (KEP-2433).
fn is_local<'a>(endpoints: &[(SocketAddr, &SliceEndpoint)], zone: Option<&'a str>) -> impl Fn(&SliceEndpoint) -> bool {
    let hinted =
        move |endpoint: &SliceEndpoint| zone.is_some_and(|zone| endpoint.hints().iter().any(|hint| **hint == *zone));
    let by_hints = endpoints.iter().all(|(_, endpoint)| !endpoint.hints().is_empty())
        && endpoints.iter().any(|(_, endpoint)| hinted(endpoint));
    move |endpoint| match by_hints {
        true => hinted(endpoint),
        false => zone.is_some() && endpoint.zone() == zone,
    }
}

fn slice_protocol<'a>(port: &ServicePort, slices: &'a Slices) -> Option<&'a str> {
    let mut ports = slices.iter().flat_map(|(_, slice)| &slice.ports).filter(|one| one.name == port.name);
    ports.find_map(|port| port.app_protocol.as_deref())
}

/// `appProtocol` by KEP-3726, and the older habit of plain `grpc`. `kubernetes.io/ws` and the rest begin as HTTP/1.1.
fn protocol(asked: api::Protocol, spoken: Option<&str>, secure: bool) -> Protocol {
    match (asked, spoken) {
        (api::Protocol::Http1, _) => Protocol::Http1,
        (api::Protocol::Http2, _) | (api::Protocol::Auto, Some("kubernetes.io/h2c" | "h2c" | "grpc")) => {
            Protocol::Http2
        }
        (api::Protocol::Auto, _) if secure => Protocol::Agreed,
        (api::Protocol::Auto, _) => Protocol::Http1,
    }
}
