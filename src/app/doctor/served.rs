//! What would be served: hosts, their rules, and where these lead.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::report::{Check, Report};
use crate::snapshot::{Action, ClusterName, HostPattern, PathMatch, Route, RouteMatch, Snapshot};
use crate::translate::{Key, Resources, ServiceKind};

/// A host and its rules.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Host {
    host: String,
    /// `ended`, with certificates; `passed` on; or none.
    tls: &'static str,
    rules: Vec<Rule>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Rule {
    /// Object and rule.
    route: String,
    matches: Vec<String>,
    /// What is done beside, or instead of, leading somewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    does: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backends: Vec<Target>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Target {
    name: String,
    weight: u32,
    /// Endpoints that may get requests; unknown for names, which are not looked up here.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<usize>,
}

/// Hosts, and rules of one, that a terminal is shown.
const SHOWN: usize = 40;

/// Every host, sorted, those for any last.
pub(super) fn hosts(snapshot: &Snapshot, resources: &Resources) -> Vec<Host> {
    let sorted: BTreeMap<HostPattern, _> = snapshot.router.hosts().collect();
    let hosts = sorted.into_iter().map(|(pattern, host)| {
        let tls = match snapshot.tls.get(&pattern) {
            Some(terms) if terms.passed.is_some() => "passed",
            Some(terms) if !terms.certificates.is_empty() => "ended",
            Some(_) => "refused",
            None => "none",
        };
        let rules = host.routes().iter().map(|route| rule(route, snapshot, resources)).collect();
        Host { host: pattern.to_string(), tls, rules }
    });
    hosts.collect()
}

fn rule(route: &Route, snapshot: &Snapshot, resources: &Resources) -> Rule {
    let (does, backends) = match &route.action {
        Action::Forward(forward) => {
            let backends = forward.backends.iter().map(|backend| match &backend.cluster {
                Ok(name) => target(name, backend.weight, snapshot, resources),
                Err(invalid) => Target {
                    name: format!("refused with 500: {}", invalid.0),
                    weight: backend.weight,
                    ready: None,
                    endpoints: None,
                },
            });
            (None, backends.collect())
        }
        Action::Redirect(redirect) => (Some(format!("redirects with {}", redirect.status.as_u16())), Vec::new()),
        Action::Respond(respond) => (Some(format!("answers {}", respond.status.as_u16())), Vec::new()),
        Action::Invalid(invalid) => (Some(format!("refused with 500: {}", invalid.0)), Vec::new()),
    };
    Rule { route: route.name.to_string(), matches: route.matches.iter().map(shown).collect(), does, backends }
}

fn target(name: &ClusterName, weight: u32, snapshot: &Snapshot, resources: &Resources) -> Target {
    let known = counts(name, snapshot, resources);
    let (ready, endpoints) = known.unzip();
    Target { name: name.to_string(), weight, ready, endpoints }
}

/// Endpoints that may get requests, and all of them. `None` if a name would have to be looked up.
fn counts(name: &ClusterName, snapshot: &Snapshot, resources: &Resources) -> Option<(usize, usize)> {
    let ready = snapshot.clusters.get(name).map_or(0, |cluster| cluster.endpoints.len());
    match service(name) {
        Some(key) => {
            let service = resources.services.get(&key);
            if service.is_some_and(|service| matches!(service.kind, ServiceKind::External(_))) {
                return None;
            }
            let slices = resources.slices.get(&key);
            let all = slices.map_or(0, |slices| slices.iter().map(|(_, slice)| slice.endpoints.len()).sum());
            Some((ready, all))
        }
        None => {
            let key = name.as_str().strip_prefix("upstream ").and_then(|key| key.split_once('/'));
            let key = key.map(|(namespace, name)| Key::new(namespace, name));
            let named = key.and_then(|key| resources.upstreams.get(&key)).is_some_and(|it| it.spec.hostname.is_some());
            (!named).then_some((ready, ready))
        }
    }
}

/// The Service whose endpoints a cluster has: clusters of Services are named `namespace/name:port`.
fn service(name: &ClusterName) -> Option<Key> {
    let (service, _port) = name.as_str().rsplit_once(':')?;
    let (namespace, name) = service.split_once('/').filter(|(namespace, _)| !namespace.contains(' '))?;
    Some(Key::new(namespace, name))
}

/// `GET /v1/*, x-tenant`
fn shown(RouteMatch { path, method, headers, query }: &RouteMatch) -> String {
    let mut text = method.as_ref().map(|method| format!("{method} ")).unwrap_or_default();
    text.push_str(&match path {
        PathMatch::Exact(path) => path.to_string(),
        PathMatch::Prefix(path) => format!("{path}/*"),
        PathMatch::Regex(pattern) => format!("~{}", pattern.as_str()),
    });
    let fields = headers.iter().map(|(name, _)| format!(", header {name}"));
    text.extend(fields.chain(query.iter().map(|(name, _)| format!(", query {name}"))));
    text
}

/// Says which backends have nobody who could answer.
pub(super) fn endpoints(snapshot: &Snapshot, resources: &Resources, report: &mut Report) {
    let mut fine = 0;
    for name in std::collections::BTreeSet::from_iter(snapshot.clusters.keys()) {
        match counts(name, snapshot, resources) {
            None | Some((1.., _)) => fine += 1,
            Some((0, 0)) => {
                let remedy = "see its selector, and whether what it selects is scaled to 0";
                report.fail(Check::Endpoints, name.to_string(), "it has no endpoints: requests get 503", remedy);
            }
            Some((0, all)) => {
                let message = format!("none of its {all} endpoints is ready, or none has the port: requests get 503");
                report.fail(
                    Check::Endpoints,
                    name.to_string(),
                    message,
                    "see the readiness probes of its pods, and targetPort",
                );
            }
        }
    }
    if fine > 0 {
        report.ok(
            Check::Endpoints,
            "",
            format!("{fine} of {} upstreams have ready endpoints, or are named", snapshot.clusters.len()),
        );
    }
}

/// As text.
pub(super) fn show(text: &mut String, hosts: &[Host], heading: impl Fn(&str) -> String) {
    if hosts.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", heading("What would be served"));
    for host in hosts.iter().take(SHOWN) {
        let tls = match host.tls {
            "none" => String::new(),
            tls => format!(" (TLS {tls})"),
        };
        let _ = writeln!(text, "  {}{tls}", host.host);
        for rule in host.rules.iter().take(SHOWN) {
            let to: Vec<String> = rule.backends.iter().map(Target::shown).chain(rule.does.clone()).collect();
            let _ = writeln!(text, "    {}  {} -> {}", rule.matches.join(" or "), rule.route, to.join(", "));
        }
        if host.rules.len() > SHOWN {
            let _ = writeln!(text, "    and {} more rules; --json has all", host.rules.len() - SHOWN);
        }
    }
    if hosts.len() > SHOWN {
        let _ = writeln!(text, "  and {} more hosts; --json has all", hosts.len() - SHOWN);
    }
}

impl Target {
    fn shown(&self) -> String {
        let Target { name, weight, ready, endpoints } = self;
        let count = match (ready, endpoints) {
            (Some(ready), Some(all)) => format!(", {ready} of {all} ready"),
            _ => String::new(),
        };
        format!("{name} (weight {weight}{count})")
    }
}
