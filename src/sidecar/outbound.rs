//! What the app asks of others: a route to each port of each Service that a ProxyRoute or a ProxyUpstream names, found by its cluster
//! IP or by its name. ProxyRoutes say here only which Services are meant; how they are treated, their ProxyUpstreams say.

use std::collections::BTreeSet;

use super::{key, route, wanted};
use crate::api::{Backend, Rule, ServicePort, ServiceRef};
use crate::snapshot::{SharedMap, destination};
use crate::translate::{Key, Resources, Service};

/// Whose Services are balanced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    /// The pod's namespace, whose Services are found by their names alone.
    pub namespace: String,
    /// Further namespaces.
    pub others: Vec<String>,
    /// The class that the translator serves.
    pub class: String,
}

impl Outbound {
    /// The objects that say so. Policies are for who is asked, and not for who asks: there are none.
    pub fn objects(&self, read: &Resources) -> Resources {
        let (routes, policies, upstreams) = (SharedMap::default(), SharedMap::default(), wanted(read, []));
        let mut objects = Resources { routes, policies, upstreams, ..read.clone() };
        for service in self.named(read) {
            let Some(found) = read.services.get(&service) else { continue };
            // What was named a moment ago is passed on until it is known where to.
            if !read.knows_slices_of(&service) {
                continue;
            }
            for port in &found.ports {
                let backend = Backend {
                    service: Some(ServiceRef { name: service.name.to_string(), port: ServicePort::Number(port.port) }),
                    upstream: None,
                    weight: 1,
                };
                let rule = Rule { backends: vec![backend], ..Rule::default() };
                let route = route(&self.class, self.hosts(&service, found, port.port), vec![rule]);
                let name = format!("outbound:{}:{}", service.name, port.port);
                objects.routes.insert(key(&service.namespace, name), route);
            }
        }
        objects
    }

    /// The Services that somebody names.
    pub(super) fn named(&self, read: &Resources) -> BTreeSet<Key> {
        let ours =
            |key: &Key| *key.namespace == *self.namespace || self.others.iter().any(|one| **one == *key.namespace);
        let by_routes = read.routes.iter().filter(|(key, _)| ours(key)).flat_map(|(key, route)| {
            let backends = route.spec.rules.iter().flat_map(|rule| &rule.backends);
            let services = backends.filter_map(|backend| backend.service.as_ref());
            services.map(|service| Key::new(key.namespace.clone(), service.name.as_str()))
        });
        let by_upstreams = read.upstreams.iter().filter(|(key, _)| ours(key)).flat_map(|(key, upstream)| {
            let services = upstream.spec.target_refs.iter().filter(|target| target.kind == "Service");
            services.map(|target| Key::new(key.namespace.clone(), target.name.as_str()))
        });
        by_routes.chain(by_upstreams).collect()
    }

    /// All names of a port: those that a resolver in the pod knows of the Service, and its cluster IPs.
    fn hosts(&self, Key { namespace, name }: &Key, service: &Service, port: u16) -> Vec<String> {
        let names = [
            (**namespace == *self.namespace).then(|| name.to_string()),
            Some(format!("{name}.{namespace}")),
            Some(format!("{name}.{namespace}.svc")),
            Some(format!("{name}.{namespace}.svc.cluster.local")),
        ];
        let by_name = names.into_iter().flatten().map(|name| destination::of_host(&name, port));
        by_name.chain(service.addresses.iter().map(|ip| destination::of_address((*ip, port).into()))).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use serde_json::json;

    use super::super::own;
    use super::*;

    fn service(resources: &mut Resources, namespace: &str, name: &str) {
        let object = json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"],
                     "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}]},
        });
        let service = Service::from_object(&serde_json::from_value(object).unwrap()).unwrap();
        resources.services.insert(Key::new(namespace, name), Arc::new(service));
    }

    #[test]
    fn a_service_is_passed_on_until_its_endpoints_were_read() {
        let mut read = Resources::default();
        service(&mut read, "shop", "llm");
        let spec = json!({"targetRefs": [{"kind": "Service", "name": "llm"}]});
        read.upstreams.insert(Key::new("shop", "llm"), own(serde_json::from_value(spec).unwrap()));
        let plan = Outbound { namespace: "shop".to_owned(), others: Vec::new(), class: "floodway".to_owned() };
        for (known, routes) in [(vec![], 0), (vec!["cart"], 0), (vec!["cart", "llm"], 2)] {
            let known: BTreeSet<Key> = known.into_iter().map(|name| Key::new("shop", name)).collect();
            read.slices_of = Some(Arc::new(known));
            assert_eq!(plan.objects(&read).routes.len(), routes, "{:?}", read.slices_of);
        }
    }

    #[test]
    fn services_that_are_named_are_found_by_name_and_address() {
        let mut read = Resources::default();
        for (namespace, name) in
            [("shop", "llm"), ("shop", "cart"), ("shop", "nobodys"), ("far", "llm"), ("other", "x")]
        {
            service(&mut read, namespace, name);
        }
        let upstream =
            || own(serde_json::from_value(json!({"targetRefs": [{"kind": "Service", "name": "llm"}]})).unwrap());
        read.upstreams.insert(Key::new("shop", "llm"), upstream());
        read.upstreams.insert(Key::new("far", "llm"), upstream());
        let rules = json!({"rules": [{"backends": [{"service": {"name": "cart", "port": "http"}}]}]});
        read.routes.insert(Key::new("shop", "cart"), own(serde_json::from_value(rules).unwrap()));
        let x = json!({"rules": [{"backends": [{"service": {"name": "x", "port": 1}}]}]});
        read.routes.insert(Key::new("other", "x"), own(serde_json::from_value(x).unwrap()));

        let plan =
            Outbound { namespace: "shop".to_owned(), others: vec!["far".to_owned()], class: "floodway".to_owned() };
        let objects = plan.objects(&read);
        let mut keys: Vec<_> = objects.routes.keys().map(ToString::to_string).collect();
        keys.sort();
        let expected = [
            "far/outbound:llm:8080",
            "far/outbound:llm:9090",
            "shop/outbound:cart:8080",
            "shop/outbound:cart:9090",
            "shop/outbound:llm:8080",
            "shop/outbound:llm:9090",
        ];
        assert_eq!(keys, expected);
        let hosts = |key: &str, name: &str| objects.routes.get(&Key::new(key, name)).unwrap().spec.hosts.join(" ");
        assert_eq!(
            hosts("shop", "outbound:llm:8080"),
            "8080.llm 8080.llm.shop 8080.llm.shop.svc 8080.llm.shop.svc.cluster.local 8080.10.96.0.5 8080.fd00.0.0.0.0.0.0.5"
        );
        assert!(hosts("far", "outbound:llm:9090").starts_with("9090.llm.far 9090.llm.far.svc "));
    }
}
