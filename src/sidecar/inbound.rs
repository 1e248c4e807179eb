//! What comes to the app: for each of its ports a route to loopback, under the policies of the pod, and an upstream that is treated as
//! the ProxyUpstream that the pod names.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Kept, fallback, key, own, route, wanted};
use crate::api::{
    Backend, Connections, Endpoint, HeaderMatch, MatchType, PolicyRef, PolicyTargetKind, Protocol, ProxyPolicySpec,
    ProxyUpstreamSpec, RouteMatch, Rule, UpstreamRef,
};
use crate::snapshot::{SharedMap, destination};
use crate::translate::{Key, Resources};

/// What is asked of requests to the app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbound {
    /// The pod's namespace.
    pub namespace: String,
    /// The class that the translator serves.
    pub class: String,
    /// The app's ports.
    pub ports: BTreeSet<u16>,
    /// The policies that requests are under, the nearest first.
    pub policies: Vec<String>,
    /// The upstream whose breaker, limits, checks and timers guard the app.
    pub upstream: Option<String>,
}

impl Inbound {
    /// The objects that say so. What policies refer to is as it was read.
    pub fn objects(&self, read: &Resources) -> Resources {
        let spec = match self.given() {
            None => Some(ProxyUpstreamSpec::default()),
            Some(given) => read.upstreams.get(&given).map(|upstream| upstream.spec.clone()),
        };
        let policies = self.policies(read);
        let (kept, upstreams) = self.kept(read);
        let mut objects = Resources { routes: SharedMap::default(), policies: kept, upstreams, ..read.clone() };
        for port in &self.ports {
            let names = match &spec {
                Some(spec) => self.upstreams(*port, spec, &mut objects),
                // Nobody passes before it is there: settings that are missing protect nothing.
                None => vec![(self.upstream.clone().unwrap_or_default(), false)],
            };
            let rules = names.into_iter().map(|(name, grpc)| rule(name, grpc, &policies)).collect();
            let route = route(&self.class, vec![destination::of_port(*port)], rules);
            objects.routes.insert(key(&self.namespace, format!("inbound:{port}")), route);
        }
        objects
    }

    /// What is asked of what was read, and no more, so that nothing is fetched or checked for nobody: the policies, and the upstreams that
    /// they or the pod's own lead to.
    pub(super) fn kept(&self, read: &Resources) -> (Kept<ProxyPolicySpec>, Kept<ProxyUpstreamSpec>) {
        let beside = |name: &str| Key::new(self.namespace.as_str(), name);
        let (mut kept, mut leads) = (SharedMap::default(), Vec::new());
        for key in self.policies(read).iter().map(|policy| beside(&policy.name)) {
            let Some(policy) = read.policies.get(&key) else { continue };
            let ProxyPolicySpec { external_auth, mirror, .. } = &policy.spec;
            let external = external_auth.as_ref().and_then(|external| external.upstream.as_ref());
            let mirrored = mirror.as_ref().and_then(|mirror| mirror.upstream.as_ref());
            leads.extend(external.into_iter().chain(mirrored).map(|upstream| beside(&upstream.name)));
            kept.insert(key, Arc::clone(policy));
        }
        let spec = self.given().and_then(|given| Some((read.upstreams.get(&given)?, given)));
        leads.extend(spec.and_then(|(upstream, key)| fallback(&key, &upstream.spec)));
        (kept, wanted(read, leads))
    }

    fn given(&self) -> Option<Key> {
        self.upstream.as_ref().map(|name| Key::new(self.namespace.as_str(), name.as_str()))
    }

    /// The policies by name, and behind them those that are attached to the upstream, the oldest first.
    fn policies(&self, read: &Resources) -> Vec<PolicyRef> {
        let mut attached: Vec<_> = match &self.upstream {
            None => Vec::new(),
            Some(upstream) => {
                let names = |target: &crate::api::PolicyTarget| {
                    target.kind == PolicyTargetKind::ProxyUpstream && target.name == *upstream
                };
                let policies = read.policies.iter().filter(|(key, _)| *key.namespace == *self.namespace);
                policies.filter(|(_, policy)| policy.spec.target_refs.iter().any(names)).collect()
            }
        };
        attached.sort_by(|(a, of_a), (b, of_b)| (&of_a.created, a).cmp(&(&of_b.created, b)));
        let attached = attached.into_iter().map(|(key, _)| key.name.to_string());
        let mut all: Vec<PolicyRef> = Vec::new();
        for name in self.policies.iter().cloned().chain(attached) {
            if !all.iter().any(|known| known.name == name) {
                all.push(PolicyRef { name });
            }
        }
        all
    }

    /// Puts in the upstreams of a port; returns their names, and whether they are for gRPC alone. Where nobody says what the app
    /// speaks, gRPC is passed on as HTTP/2, which it cannot do without, and everything else as HTTP/1.1.
    fn upstreams(&self, port: u16, spec: &ProxyUpstreamSpec, objects: &mut Resources) -> Vec<(String, bool)> {
        let plain = format!("inbound:{port}");
        let spoken = match spec.protocol {
            Protocol::Auto => vec![(format!("{plain}:grpc"), Protocol::Http2, true), (plain, Protocol::Http1, false)],
            known => vec![(plain, known, false)],
        };
        let mut names = Vec::new();
        for (name, protocol, grpc) in spoken {
            let upstream = own(of_loopback(spec, port, protocol));
            objects.upstreams.insert(key(&self.namespace, name.clone()), upstream);
            names.push((name, grpc));
        }
        names
    }
}

/// The app's port, treated as `spec` says. What that says of the way to other pods is left out: TLS, the PROXY protocol, and who of
/// several gets the next request.
fn of_loopback(spec: &ProxyUpstreamSpec, port: u16, protocol: Protocol) -> ProxyUpstreamSpec {
    let connections = spec.connections.as_ref().map(|given| Connections { proxy_protocol: None, ..given.clone() });
    let endpoint = Endpoint { address: format!("127.0.0.1:{port}"), weight: 1, zone: None, labels: Default::default() };
    ProxyUpstreamSpec {
        target_refs: Vec::new(),
        endpoints: vec![endpoint],
        hostname: None,
        protocol,
        connections,
        tls: None,
        load_balancing: None,
        endpoint_drain: None,
        ..spec.clone()
    }
}

fn rule(upstream: String, grpc: bool, policies: &[PolicyRef]) -> Rule {
    let content_type = || HeaderMatch {
        name: "content-type".to_owned(),
        type_: MatchType::Regex,
        value: Some("application/grpc([;+].*)?".to_owned()),
    };
    let only_grpc = || RouteMatch { headers: vec![content_type()], ..RouteMatch::default() };
    Rule {
        name: Some(if grpc { "grpc" } else { "app" }.to_owned()),
        matches: grpc.then(only_grpc).into_iter().collect(),
        backends: vec![Backend { service: None, upstream: Some(UpstreamRef { name: upstream }), weight: 1 }],
        policies: policies.to_vec(),
        ..Rule::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::translate::Own;

    fn inbound() -> Inbound {
        Inbound {
            namespace: "shop".to_owned(),
            class: "floodway".to_owned(),
            ports: [8080].into(),
            policies: vec!["signed-in".to_owned()],
            upstream: None,
        }
    }

    fn put<S: serde::de::DeserializeOwned>(
        map: &mut crate::snapshot::SharedMap<Key, Arc<Own<S>>>,
        name: &str,
        spec: serde_json::Value,
    ) {
        map.insert(Key::new("shop", name), own(serde_json::from_value(spec).unwrap()));
    }

    #[test]
    fn each_port_has_a_route_to_loopback_under_the_policies() {
        let mut read = Resources::default();
        put(&mut read.routes, "users-own", json!({"rules": [{"respond": {"status": 200}}]}));
        let objects = inbound().objects(&read);
        let keys: Vec<_> = objects.routes.keys().map(ToString::to_string).collect();
        assert_eq!(keys, ["shop/inbound:8080"], "routes of users are the gateway's");
        let route = &objects.routes.values().next().unwrap().spec;
        assert_eq!(route.hosts, ["8080"]);
        let rules: Vec<_> =
            route.rules.iter().map(|rule| (rule.name.as_deref().unwrap(), rule.policies[0].name.as_str())).collect();
        assert_eq!(rules, [("grpc", "signed-in"), ("app", "signed-in")]);
        let upstream = &objects.upstreams.get(&Key::new("shop", "inbound:8080")).unwrap().spec;
        assert_eq!((upstream.endpoints[0].address.as_str(), upstream.protocol), ("127.0.0.1:8080", Protocol::Http1));
    }

    #[test]
    fn an_upstream_guards_the_app_and_brings_its_policies() {
        let mut read = Resources::default();
        let spec = json!({
            "targetRefs": [{"kind": "Service", "name": "app"}], "protocol": "Http2", "tls": {},
            "limits": {"requests": 5}, "connections": {"idleTimeout": "7s", "proxyProtocol": "V2"},
        });
        put(&mut read.upstreams, "app", spec);
        let target = json!({"targetRefs": [{"kind": "ProxyUpstream", "name": "app"}]});
        put(&mut read.policies, "fair", target);
        let plan = Inbound { upstream: Some("app".to_owned()), ..inbound() };
        let objects = plan.objects(&read);
        let upstream = &objects.upstreams.get(&Key::new("shop", "inbound:8080")).unwrap().spec;
        assert_eq!(upstream.limits.as_ref().unwrap().requests, Some(5));
        assert!(upstream.tls.is_none() && upstream.target_refs.is_empty());
        let connections = upstream.connections.as_ref().unwrap();
        assert!(connections.proxy_protocol.is_none() && connections.idle_timeout.as_deref() == Some("7s"));
        let rules = &objects.routes.values().next().unwrap().spec.rules;
        let policies: Vec<_> = rules[0].policies.iter().map(|policy| policy.name.as_str()).collect();
        assert_eq!((rules.len(), policies), (1, vec!["signed-in", "fair"]));
        // As long as it is not there, what leads to it leads nowhere.
        let objects = plan.objects(&Resources::default());
        let rules = &objects.routes.values().next().unwrap().spec.rules;
        assert_eq!(rules[0].backends[0].upstream.as_ref().unwrap().name, "app");
    }
}
