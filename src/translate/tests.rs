//! What translation remembers must not show in what it gives, and must be used.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::{DEFAULT_CLASS, ProxyPolicy, ProxyRoute, ProxyRouteSpec, ProxyUpstream, ProxyUpstreamSpec};
use crate::snapshot::{ClusterName, FetchedKeys, HostPattern};

fn translator() -> Translator {
    Translator::new(Context {
        class_name: DEFAULT_CLASS.to_owned(),
        zone: None,
        defaults: RouteDefaults::default(),
        policy: Default::default(),
        shared_limits: true,
        default_certificate: Some(key("c1")),
        client_certificates: None,
        https_port: 443,
        roots: Default::default(),
        key_hosts: Default::default(),
    })
}

fn route(name: &str, created: Option<u8>, spec: &serde_json::Value) -> Arc<Own<ProxyRouteSpec>> {
    let created = created.map(|day| format!("2026-01-{:02}T00:00:00Z", day + 1));
    let metadata = json!({"name": name, "namespace": "shop", "creationTimestamp": created});
    let object: ProxyRoute = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    Arc::new(object.into())
}

fn upstream(created: u8, spec: &serde_json::Value) -> Arc<Own<ProxyUpstreamSpec>> {
    let metadata = json!({"name": "u", "creationTimestamp": format!("2026-01-{:02}T00:00:00Z", created + 1)});
    let object: ProxyUpstream = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    Arc::new(object.into())
}

fn policy(created: u8, spec: &serde_json::Value) -> Arc<Own<ProxyPolicySpec>> {
    let metadata = json!({"name": "p", "creationTimestamp": format!("2026-01-{:02}T00:00:00Z", created + 1)});
    let object: ProxyPolicy = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    Arc::new(object.into())
}

fn service(port: u16) -> Arc<Service> {
    let port = ServicePort { name: "".into(), port, target: TargetPort::Number(port), app_protocol: None };
    Arc::new(Service { kind: ServiceKind::Endpoints, ports: [port].into(), addresses: Box::default() })
}

fn slice(last: u8, ready: bool) -> Arc<AddressSlice> {
    let address = std::net::Ipv4Addr::new(10, 0, 0, last).into();
    Arc::new(AddressSlice {
        ports: [SlicePort { name: "".into(), port: Some(80), app_protocol: None }].into(),
        endpoints: [SliceEndpoint { address, ready, serving: true, terminating: !ready, place: None }].into(),
    })
}

fn key(name: impl std::fmt::Display) -> Key {
    Key::new("shop", name.to_string())
}

/// As many routes as asked, each at a host of its own and to a Service of its own.
fn many(count: u16) -> Resources {
    let mut resources = Resources::default();
    for at in 0..count {
        let spec = json!({
            "hosts": [format!("h{at}.example.com")],
            "rules": [{"backends": [{"service": {"name": format!("s{at}"), "port": 80}}]}],
        });
        resources.routes.insert(key(at), route(&at.to_string(), None, &spec));
        let service_key = key(format_args!("s{at}"));
        resources.services.insert(service_key.clone(), service(80));
        for last in 0..10u8 {
            resources.put_slice(service_key.clone(), format!("s{last}").into(), slice(last, true));
        }
    }
    resources
}

#[test]
fn a_change_of_endpoints_touches_its_cluster_alone() {
    let mut resources = many(20);
    let mut translator = translator();
    let before = translator.translate(&resources);
    resources.put_slice(key("s7"), "new".into(), slice(200, true));
    let after = translator.translate(&resources);
    for (name, cluster) in after.snapshot.clusters.iter() {
        assert_eq!(Arc::ptr_eq(cluster, &before.snapshot.clusters[name]), name.as_str() != "shop/s7:80", "{name}");
    }
    assert_eq!(after.snapshot.clusters[&ClusterName::new("shop/s7:80")].endpoints.len(), 11);
    assert!(after.statuses.routes.is(&before.statuses.routes));
    for (host, routes) in after.snapshot.router.hosts() {
        assert!(Arc::ptr_eq(routes, before.snapshot.router.host(&host).unwrap()));
    }
}

#[test]
fn a_change_of_a_route_touches_its_host_alone() {
    let mut resources = many(20);
    let mut translator = translator();
    let before = translator.translate(&resources);
    let spec = json!({"hosts": ["h3.example.com"], "rules": [{"respond": {"status": 200}}]});
    resources.routes.insert(key(3), route("3", None, &spec));
    // Written again without a change, as by whoever writes its status.
    let same = Arc::new(Own::clone(&resources.routes[&key(4)]));
    resources.routes.insert(key(4), same);
    let after = translator.translate(&resources);
    for (host, routes) in after.snapshot.router.hosts() {
        let kept = Arc::ptr_eq(routes, before.snapshot.router.host(&host).unwrap());
        assert_eq!(kept, host != HostPattern::Exact("h3.example.com".into()), "{host}");
    }
    for (name, cluster) in after.snapshot.clusters.iter() {
        assert!(Arc::ptr_eq(cluster, &before.snapshot.clusters[name]), "{name}");
    }
    assert_eq!(before.snapshot.clusters.len(), after.snapshot.clusters.len() + 1);
    assert!(Arc::ptr_eq(&after.statuses.routes[&key(5)], &before.statuses.routes[&key(5)]));
}

#[test]
fn a_policy_that_cannot_be_read_lets_nobody_pass() {
    let mut resources = many(2);
    let spec = json!({"targetRefs": [{"kind": "ProxyRoute", "name": "1"}]});
    let unread = Own { unread: Some(Malformed("spec.x: unknown field".into())), ..Own::clone(&policy(0, &spec)) };
    resources.policies.insert(key("p"), Arc::new(unread));
    let after = translator().translate(&resources);
    for (host, closed) in [("h0.example.com", false), ("h1.example.com", true)] {
        let routes = after.snapshot.router.host(&HostPattern::Exact(host.into())).unwrap();
        let said = format!("{routes:?}");
        assert_eq!(said.contains("spec: this version cannot read it: spec.x: unknown field"), closed, "{said}");
    }
    let condition = &after.statuses.policies[&key("p")][0];
    assert_eq!((condition.type_.as_str(), condition.status.as_str()), ("Accepted", "False"));
}

#[test]
fn nothing_changed_gives_the_same() {
    let resources = many(3);
    let mut translator = translator();
    let before = translator.translate(&resources);
    assert_eq!(translator.translate(&resources.clone()), before);
    let empty = translator.translate(&Resources::default());
    assert_eq!(Translation { complaint: None, ..empty }, Translation::default());
}

/// A change of one object; `None` removes it.
#[derive(Clone, Debug)]
enum Edit {
    /// Written again, with another generation: as by whoever writes labels or statuses.
    Again(u8, i64),
    /// When it was made, its hosts, its TLS and its rules.
    Route(u8, Option<(u8, Vec<u8>, u8, Vec<u8>)>),
    /// When it was made, what it is, and its fallback.
    Upstream(u8, Option<(u8, u8, u8)>),
    Policy(u8, Option<(u8, u8)>),
    Service(u8, Option<u8>),
    Slice(u8, u8, Option<(u8, bool)>),
    /// Sound or not.
    Secret(u8, Option<u8>),
    ConfigMap(Option<u8>),
    Resolved(u8, Option<u8>),
    /// Whether keys were fetched, and whether that is trouble now.
    Fetched(u8, Option<(bool, bool)>),
}

fn edit() -> impl Strategy<Value = Edit> {
    use proptest::collection::vec;
    use proptest::option::of;
    prop_oneof![
        (0u8..4, 0i64..3).prop_map(|(at, generation)| Edit::Again(at, generation)),
        (0u8..4, of((0u8..3, vec(0u8..3, 0..3), 0u8..12, vec(0u8..12, 1..4)))).prop_map(|(at, to)| Edit::Route(at, to)),
        (0u8..2, of(0u8..4)).prop_map(|(at, to)| Edit::Secret(at, to)),
        of(0u8..3).prop_map(Edit::ConfigMap),
        (0u8..3, of((0u8..3, 0u8..6, 0u8..9))).prop_map(|(at, to)| Edit::Upstream(at, to)),
        (0u8..3, of((0u8..3, 0u8..13))).prop_map(|(at, to)| Edit::Policy(at, to)),
        (0u8..3, of(0u8..3)).prop_map(|(at, to)| Edit::Service(at, to)),
        (0u8..3, 0u8..2, of((0u8..4, any::<bool>()))).prop_map(|(at, slice, to)| Edit::Slice(at, slice, to)),
        (0u8..2, of(0u8..3)).prop_map(|(at, to)| Edit::Resolved(at, to)),
        (0u8..2, of((any::<bool>(), any::<bool>()))).prop_map(|(at, to)| Edit::Fetched(at, to)),
    ]
}

fn rule(choice: u8) -> serde_json::Value {
    let number = choice % 3;
    match choice / 3 {
        0 => json!({
            "policies": [{"name": format!("p{number}")}],
            "backends": [{"service": {"name": format!("s{number}"), "port": 80}}],
        }),
        1 => json!({
            "matches": [{"path": {"value": format!("/{number}")}}],
            "backends": [{"upstream": {"name": format!("u{number}")}}, {"service": {"name": "s0", "port": 81}}],
        }),
        2 => {
            json!({"matches": [{"path": {"type": "Exact", "value": "/x"}}], "respond": {"status": 200 + u16::from(number)}})
        }
        _ => json!({"matches": [{"path": {"value": format!("/{number}")}}]}),
    }
}

/// Two that can be served, one whose key is that of another, and one that is nothing.
static SECRETS: std::sync::LazyLock<[Arc<SecretData>; 4]> = std::sync::LazyLock::new(|| {
    let made = || {
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["h0.example.com".to_owned()]).unwrap();
        (params.self_signed(&pair).unwrap().pem(), pair.serialize_pem())
    };
    let (one, other) = (made(), made());
    let secret = |certificate: &str, key: &str| {
        let bytes = |text: &str| text.as_bytes().to_vec().into();
        Arc::new(SecretData::tls(bytes(certificate), bytes(key), None).unwrap())
    };
    [secret(&one.0, &one.1), secret(&other.0, &other.1), secret(&one.0, &other.1), secret("", "")]
});

/// The TLS of a route; nothing in half of the cases.
fn tls(choice: u8) -> Option<serde_json::Value> {
    Some(match choice {
        0 => json!({"secretName": "c0", "redirect": true}),
        1 => json!({"secretName": "c1", "minVersion": "1.3"}),
        2 => json!({"secretName": "c0", "alternateSecretName": "c1"}),
        3 => json!({"hsts": {"maxAge": "8760h"}}),
        4 => json!({"passthrough": true}),
        5 => json!({"passthrough": true, "redirect": true}),
        _ => return None,
    })
}

/// What an upstream falls back on; nothing in half of the cases.
fn fallback(choice: u8) -> Option<serde_json::Value> {
    Some(match choice {
        0 => json!({"service": {"name": "s0", "port": 80}}),
        1 => json!({"service": {"name": "s1", "port": 81}}),
        2 => json!({"upstream": {"name": "u0"}}),
        3 => json!({"upstream": {"name": "u1"}}),
        4 => json!({"respond": {"status": 503, "body": "busy"}}),
        _ => return None,
    })
}

fn apply(resources: &mut Resources, edit: Edit) {
    fn put<V: Clone>(map: &mut SharedMap<Key, V>, key: Key, value: Option<V>) {
        match value {
            Some(value) => drop(map.insert(key, value)),
            None => drop(map.remove(&key)),
        }
    }
    match edit {
        Edit::Again(at, generation) => {
            if let Some(object) = resources.routes.get_mut(&key(at)) {
                let mut again = Own::clone(object);
                again.generation = Some(generation);
                *object = Arc::new(again);
            }
        }
        Edit::Route(at, to) => {
            let built = to.map(|(created, hosts, tls, rules)| {
                let hosts: Vec<_> = hosts.into_iter().map(|host| format!("h{host}.example.com")).collect();
                // Most of those that pass TLS on may do so.
                let (most, kinds) = if matches!(tls, 4 | 5) { (1, 4) } else { (usize::MAX, 12) };
                let rules: Vec<_> = rules.into_iter().take(most).map(|choice| rule(choice % kinds)).collect();
                route(
                    &at.to_string(),
                    created.checked_sub(1),
                    &json!({"hosts": hosts, "tls": self::tls(tls), "rules": rules}),
                )
            });
            put(&mut resources.routes, key(at), built);
        }
        Edit::Upstream(at, to) => {
            let built = to.map(|(created, choice, falls)| {
                let mut spec = match choice {
                    0 => json!({"targetRefs": [{"kind": "Service", "name": "s0"}, {"kind": "Service", "name": "s1"}]}),
                    1 => json!({"targetRefs": [{"kind": "Service", "name": "s0"}], "protocol": "Http2"}),
                    2 => json!({"hostname": "a.example.net:80"}),
                    3 => json!({"endpoints": [{"address": format!("10.0.0.{created}:80")}]}),
                    4 => {
                        json!({"targetRefs": [{"kind": "Service", "name": "s1"}], "connections": {"idleTimeout": "x"}})
                    }
                    _ => json!({}),
                };
                if let Some(fallback) = fallback(falls) {
                    spec["fallback"] = fallback;
                }
                upstream(created, &spec)
            });
            put(&mut resources.upstreams, key(format_args!("u{at}")), built);
        }
        Edit::Policy(at, to) => {
            let built = to.map(|(created, choice)| {
                let target = |kind: &str, name: &str| json!([{"kind": kind, "name": name}]);
                let spec = match choice {
                    0 => json!({"ipAccess": {"allow": ["10.0.0.0/8"]}}),
                    1 => json!({"ipAccess": {"allow": ["10.0.0.1/8"]}}),
                    2 => json!({"targetRefs": target("ProxyRoute", "0"), "ipAccess": {"deny": ["10.0.0.1"]}}),
                    3 => json!({"targetRefs": target("ProxyUpstream", "u0"), "ipAccess": {"deny": ["::1"]}}),
                    4 => json!({"targetRefs": target("ProxyUpstream", "u1"), "ipAccess": {"deny": ["x"]}}),
                    5 => json!({"errorPages": [{"statuses": ["5xx"], "configMapName": "m", "html": "e"}]}),
                    6 => json!({
                        "targetRefs": target("ProxyRoute", "0"), "mirror": {"service": {"name": "s0", "port": 80}},
                    }),
                    7 => json!({"externalAuth": {"upstream": {"name": "u0"}}, "mirror": {"upstream": {"name": "u1"}}}),
                    8 => json!({"externalAuth": {"service": {"name": "s1", "port": 80}}}),
                    9 => json!({"targetRefs": target("ProxyRoute", "1"), "ipAccess": {"allow": ["::/0"]}}),
                    choice => {
                        let jwks = json!({"url": format!("http://id.test/{}", choice % 2), "insecureHttp": true});
                        json!({"jwt": {"issuers": [{"issuer": "joe", "jwks": jwks}]}})
                    }
                };
                policy(created, &spec)
            });
            put(&mut resources.policies, key(format_args!("p{at}")), built);
        }
        Edit::Secret(at, to) => {
            let key = key(format_args!("c{at}"));
            match to {
                Some(choice) => resources.put_secret(key, Arc::clone(&SECRETS[usize::from(choice)])),
                None => drop(resources.remove_secret(&key)),
            }
        }
        Edit::ConfigMap(to) => {
            let read = |choice| ConfigMapData::read(json!({"data": {"e": format!("page {choice}")}})).unwrap();
            put(&mut resources.config_maps, key("m"), to.map(|choice: u8| Arc::new(read(choice))));
        }
        Edit::Service(at, to) => {
            let built = to.map(|choice| match choice {
                0 => Arc::new(Service {
                    kind: ServiceKind::External("b.example.net".into()),
                    ports: Box::default(),
                    addresses: Box::default(),
                }),
                choice => service(79 + u16::from(choice)),
            });
            put(&mut resources.services, key(format_args!("s{at}")), built);
        }
        Edit::Slice(at, name, to) => {
            let (service, name) = (key(format_args!("s{at}")), name.to_string());
            match to {
                Some((last, ready)) => resources.put_slice(service, name.into(), slice(last, ready)),
                None => drop(resources.remove_slice(&service, &name)),
            }
        }
        Edit::Resolved(at, to) => {
            let addresses = to.map(|count| (0..count).map(|last| [10, 1, 0, last].into()).collect());
            let name = ["a.example.net", "b.example.net"][usize::from(at)].to_owned();
            match addresses {
                Some(addresses) => drop(resources.resolved.insert(name, addresses)),
                None => drop(resources.resolved.remove(&name)),
            }
        }
        Edit::Fetched(at, to) => {
            let name = format!("http://id.test/{at} insecure");
            match to {
                Some((fetched, trouble)) => {
                    let keys = resources.key_sets.get(&name).map(|known| Arc::clone(&known.keys));
                    let keys = keys.unwrap_or_else(|| FetchedKeys::new(Arc::default()));
                    let trouble = trouble.then(|| "status 500".into());
                    drop(resources.key_sets.insert(name, KeySet { keys, fetched, trouble }));
                }
                None => drop(resources.key_sets.remove(&name)),
            }
        }
    }
}

proptest! {
    #[test]
    fn the_result_never_depends_on_the_memory(
        bursts in proptest::collection::vec(proptest::collection::vec(edit(), 1..5), 1..12),
    ) {
        let mut resources = Resources::default();
        let mut old = translator();
        for burst in bursts {
            burst.into_iter().for_each(|edit| apply(&mut resources, edit));
            prop_assert_eq!(old.translate(&resources), translator().translate(&resources));
        }
    }
}
