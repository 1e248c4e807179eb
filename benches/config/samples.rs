//! Objects to measure with: routes with a host each, and a Service with endpoints behind each.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use floodway::api::{
    Backend, PathMatch, PathMatchType, ProxyRoute, ProxyRouteSpec, RouteMatch, Rule, ServicePort as Port, ServiceRef,
};
use floodway::translate::{
    AddressSlice, Key, Resources, Service, ServiceKind, ServicePort, SliceEndpoint, SlicePort, TargetPort,
};

/// Endpoints of each Service.
pub(crate) const ENDPOINTS: usize = 10;

/// `count` routes, Services and slices.
pub(crate) fn resources(count: usize) -> Resources {
    let mut resources = Resources::default();
    for index in 0..count {
        let key = Key::new("shop", format!("app-{index}"));
        resources.routes.insert(key.clone(), Arc::new(route(index).into()));
        resources.services.insert(key.clone(), Arc::new(service()));
        resources.put_slice(key, format!("app-{index}-x1").into(), Arc::new(slice(index, 0)));
    }
    resources
}

pub(crate) fn route(index: usize) -> ProxyRoute {
    let rule = Rule {
        name: Some("main".to_owned()),
        matches: vec![RouteMatch {
            path: Some(PathMatch { type_: PathMatchType::Prefix, value: "/v1".to_owned() }),
            ..RouteMatch::default()
        }],
        backends: vec![Backend {
            service: Some(ServiceRef { name: format!("app-{index}"), port: Port::Number(8080) }),
            upstream: None,
            weight: 1,
        }],
        ..Rule::default()
    };
    let hosts = vec![format!("app-{index}.example.com")];
    let spec = ProxyRouteSpec { class_name: None, hosts, tls: None, rules: vec![rule] };
    let mut route = ProxyRoute::new(&format!("app-{index}"), spec);
    route.metadata.namespace = Some("shop".to_owned());
    route.metadata.generation = Some(1);
    route
}

fn service() -> Service {
    let port = ServicePort { name: "http".into(), port: 8080, target: TargetPort::Number(8080), app_protocol: None };
    Service { kind: ServiceKind::Endpoints, ports: [port].into(), addresses: Box::default() }
}

/// The slice of the Service at `index`; another `generation` has another last address.
pub(crate) fn slice(index: usize, generation: u8) -> AddressSlice {
    let endpoint = |position: usize| {
        let last = if position + 1 == ENDPOINTS { 100 + generation } else { position as u8 };
        let address = IpAddr::V4(Ipv4Addr::new(10, (index / 256) as u8, (index % 256) as u8, last));
        SliceEndpoint { address, ready: true, serving: true, terminating: false, place: None }
    };
    let port = SlicePort { name: "http".into(), port: Some(8080), app_protocol: None };
    AddressSlice { ports: [port].into(), endpoints: (0..ENDPOINTS).map(endpoint).collect() }
}
