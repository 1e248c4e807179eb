//! Lookups in a table of ten thousand routes: one host each, and all behind one host.

use std::sync::Arc;

use floodway::snapshot::{
    Action, HostPattern, PathMatch, RequestView, Respond, Route, RouteMatch, RouteName, Router, VirtualHost,
};
use http::{HeaderMap, Method, StatusCode};

use crate::measure::{Report, shown, time};

const ROUTES: usize = 10_000;

fn route(index: usize, path: PathMatch) -> Arc<Route> {
    Arc::new(Route {
        name: RouteName { object: format!("shop/app-{index}").into(), rule: "main".into() },
        matches: vec![RouteMatch { path, ..RouteMatch::any() }],
        request_headers: None,
        response_headers: None,
        transport: None,
        policy: None,
        action: Action::Respond(Respond { status: StatusCode::OK, content_type: None, body: Default::default() }),
    })
}

pub(crate) fn run(report: &mut Report) {
    report.table(&format!("Router, {ROUTES} routes"), &["Table", "One lookup", "Lookups per second and core"]);
    let host = |index| format!("app-{index}.example.com");
    let many = Router::build((0..ROUTES).map(|index| {
        let pattern = HostPattern::parse(&host(index)).unwrap();
        (pattern, Arc::new(VirtualHost::build(vec![route(index, PathMatch::prefix("/v1"))])))
    }));
    let wild = Router::build((0..ROUTES).map(|index| {
        let pattern = HostPattern::parse(&format!("*.{}", host(index))).unwrap();
        (pattern, Arc::new(VirtualHost::build(vec![route(index, PathMatch::prefix("/v1"))])))
    }));
    let prefix = |index: usize| PathMatch::prefix(&format!("/team-{}/app-{index}", index % 100));
    let routes: Vec<_> = (0..ROUTES).map(|index| route(index, prefix(index))).collect();
    let one = Router::build([(HostPattern::Any, Arc::new(VirtualHost::build(routes)))]);

    let path = |index: usize| format!("/team-{}/app-{index}/v1/chat/completions", index % 100);
    let plain = |_: usize| "/v1/chat/completions".to_owned();
    let below = |index: usize| format!("eu.{}", host(index));
    for (name, router, hosts, paths, hit) in [
        ("a host each", &many, &host as &dyn Fn(usize) -> String, &plain as &dyn Fn(usize) -> String, true),
        ("a wildcard each", &wild, &below, &plain, true),
        ("one host, prefixes of two segments", &one, &host, &path, true),
        ("one host, no route fits", &one, &host, &plain, false),
    ] {
        let requests: Vec<_> = (0..ROUTES).map(|i| i * 7919 % ROUTES).map(|i| (hosts(i), paths(i))).collect();
        let headers = HeaderMap::new();
        let mut next = 0;
        let took = time(|| {
            next = (next + 1) % ROUTES;
            let (host, path) = &requests[next];
            let request = RequestView { host, path, query: None, method: &Method::GET, headers: &headers };
            assert_eq!(router.find(request).is_some(), hit);
        });
        report.row(&[name, &shown(took), &format!("{:.1} million", 1e3 / took.as_nanos() as f64)]);
    }
}
