#![allow(clippy::unwrap_used)]
use http::{HeaderMap, HeaderName, Method, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::snapshot::{Action, Pattern, Respond, RouteName, TextMatch};

fn route(name: &str, matches: Vec<RouteMatch>) -> Arc<Route> {
    let (object, rule) = name.split_once('/').unwrap_or((name, "0"));
    Arc::new(Route {
        name: RouteName { object: object.into(), rule: rule.into() },
        matches,
        request_headers: None,
        response_headers: None,
        transport: None,
        policy: None,
        action: Action::Respond(Respond { status: StatusCode::OK, content_type: None, body: Default::default() }),
    })
}

/// `GET =/exact ?q #h`: method, then `=` exact, `~` regex or a prefix, then query parameters and fields to be present.
fn one(text: &str) -> RouteMatch {
    let mut one = RouteMatch::any();
    for word in text.split_whitespace() {
        match word.split_at(1) {
            ("=", path) => one.path = PathMatch::Exact(path.into()),
            ("~", pattern) => one.path = PathMatch::Regex(Pattern::new(pattern).unwrap()),
            ("/", _) => one.path = PathMatch::prefix(word),
            ("?", name) => one.query.push((name.into(), TextMatch::Present)),
            ("#", name) => one.headers.push((name.parse().unwrap(), TextMatch::Present)),
            _ => one.method = Some(word.parse().unwrap()),
        }
    }
    one
}

fn virtual_host(routes: &[(&str, &str)]) -> Arc<VirtualHost> {
    let routes: Vec<_> = routes.iter().map(|(name, text)| route(name, text.split(',').map(one).collect())).collect();
    Arc::new(VirtualHost::build(routes))
}

fn find<'a>(router: &'a Router, host: &str, target: &str) -> Option<&'a str> {
    let (method, target) = target.split_once(' ').unwrap_or(("GET", target));
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    headers.insert("h", "1".parse().unwrap());
    let method = method.parse().unwrap();
    let found = router.find(RequestView { host, path, query, method: &method, headers: &headers });
    found.map(|found| &*found.route.name.object)
}

#[test]
fn exact_host_before_longest_wildcard_before_any() {
    let host = |name| virtual_host(&[(name, "/")]);
    let router = Router::build([
        (HostPattern::parse("a.example.com").unwrap(), host("exact")),
        (HostPattern::parse("*.example.com").unwrap(), host("short")),
        (HostPattern::parse("*.b.example.com").unwrap(), host("long")),
        (HostPattern::Any, host("any")),
    ]);
    for (name, expected) in [
        ("a.example.com", "exact"),
        ("b.example.com", "short"),
        ("a.b.example.com", "long"),
        ("x.y.b.example.com", "long"),
        ("x.a.example.com", "short"),
        ("example.com", "any"),
        (".example.com", "any"),
        ("", "any"),
        ("127.0.0.1", "any"),
    ] {
        assert_eq!(find(&router, name, "/"), Some(expected), "{name}");
    }
    assert_eq!(find(&router, &"a.".repeat(10_000), "/"), Some("any"));
}

#[test]
fn a_host_that_does_not_take_the_request_leaves_it_to_the_next() {
    let router = Router::build([
        (HostPattern::parse("a.b.com").unwrap(), virtual_host(&[("exact", "=/exact")])),
        (HostPattern::parse("*.b.com").unwrap(), virtual_host(&[("wildcard", "/wild")])),
        (HostPattern::Any, virtual_host(&[("any", "/any")])),
    ]);
    assert_eq!(find(&router, "a.b.com", "/exact"), Some("exact"));
    assert_eq!(find(&router, "a.b.com", "/wild"), Some("wildcard"));
    assert_eq!(find(&router, "a.b.com", "/any"), Some("any"));
    assert_eq!(find(&router, "a.b.com", "/none"), None);
}

#[test]
fn within_a_host_the_gateway_api_decides() {
    let few = [("prefix", "/v1"), ("exact", "=/v1"), ("regex", "~/v[12]")];
    let many = [
        ("root", "/"),
        ("v1", "/v1"),
        ("v1-get", "GET /v1"),
        ("v1-header", "/v1 #h"),
        ("v1-x", "/v1/x"),
        ("exact", "=/v1"),
        ("long", "~/v[12]/re.*"),
        ("short", "~/v1/.+"),
        ("slash", "=/v1/"),
        ("query", "/q ?a"),
        ("queries", "/q ?a ?b"),
        ("head", "HEAD /q"),
        ("old", "/tie"),
        ("young", "/tie"),
    ];
    for (routes, target, expected) in [
        (&few[..], "/v1", "exact"),
        (&few, "/v2", "regex"),
        (&few, "/v1/x", "prefix"),
        (&many, "/v1", "exact"),
        (&many, "/v1/", "slash"),
        (&many, "/v1/real", "long"),
        (&many, "/v1/x", "short"),
        (&many, "POST /v1//x", "short"),
        (&many, "/v1x", "root"),
        (&many, "/q?b=&a", "queries"),
        (&many, "HEAD /q?b=&a", "head"),
        (&many, "/q?a", "query"),
        (&many, "/q?b", "root"),
        (&many, "/tie/a", "old"),
        (&many, "OPTIONS *", "root"),
    ] {
        let router = Router::build([(HostPattern::Any, virtual_host(routes))]);
        assert_eq!(find(&router, "h", target), Some(expected), "{target}");
    }
    let without_regex: Vec<_> = many.into_iter().filter(|(_, text)| !text.starts_with('~')).collect();
    let router = Router::build([(HostPattern::Any, virtual_host(&without_regex))]);
    assert_eq!(find(&router, "h", "/v1/a"), Some("v1-get"));
    assert_eq!(find(&router, "h", "POST /v1/a"), Some("v1-header"));
    assert_eq!(find(&router, "h", "/v1/x/y"), Some("v1-x"));
    assert_eq!(find(&router, "h", "/v1//x"), Some("v1-get"), "// is not /");
    assert_eq!(find(&router, "h", &"/x".repeat(100_000)), Some("root"));
}

#[test]
fn a_prefix_match_is_told() {
    let router = Router::build([(HostPattern::Any, virtual_host(&[("a", "=/x,/y")]))]);
    let headers = HeaderMap::new();
    let found = router
        .find(RequestView { host: "h", path: "/y/z", query: None, method: &Method::GET, headers: &headers })
        .unwrap();
    assert_eq!(found.path, &PathMatch::prefix("/y"));
}

/// The specification, word by word and without an index: of all matches that fit, the one that comes first.
fn brute_force(routes: &[Arc<Route>], request: &RequestView<'_>) -> Option<Arc<Route>> {
    let fitting = routes.iter().enumerate().flat_map(|(age, route)| {
        route.matches.iter().enumerate().filter(|(_, one)| one.accepts(request)).map(move |(position, one)| {
            let path = match &one.path {
                PathMatch::Exact(_) => (0, 0),
                PathMatch::Regex(pattern) => (1, -(pattern.as_str().len() as i64)),
                PathMatch::Prefix(prefix) => (2, -(prefix.len() as i64)),
            };
            let counts = (-(one.headers.len() as i64), -(one.query.len() as i64));
            ((path, one.method.is_none(), counts, age, position), route)
        })
    });
    fitting.min_by_key(|(rank, _)| *rank).map(|(_, route)| Arc::clone(route))
}

fn any_match() -> impl Strategy<Value = RouteMatch> {
    let path = prop_oneof![
        "(/[ab]){0,3}/?".prop_map(|path| PathMatch::Exact(if path.is_empty() { "/".into() } else { path.into() })),
        "(/[ab]){0,3}".prop_map(|path| PathMatch::Prefix(path.into())),
        "(/[ab]|/\\.\\*|/\\[ab\\]){1,2}".prop_map(|pattern| PathMatch::Regex(Pattern::new(&pattern).unwrap())),
    ];
    let method = prop_oneof![Just(None), Just(Some(Method::GET)), Just(Some(Method::POST))];
    let headers = proptest::collection::vec("[xy]", 0..2);
    let query = proptest::collection::vec("[pq]", 0..2);
    (path, method, headers, query).prop_map(|(path, method, headers, query)| RouteMatch {
        path,
        method,
        headers: headers.iter().map(|name| (name.parse::<HeaderName>().unwrap(), TextMatch::Present)).collect(),
        query: query.into_iter().map(|name| (name.into(), TextMatch::Present)).collect(),
    })
}

proptest! {
    #[test]
    fn the_router_equals_brute_force(
        routes in proptest::collection::vec(proptest::collection::vec(any_match(), 1..3), 0..24),
        path in "(/[abc]?){1,5}",
        query in proptest::option::of("[pq](=1)?(&[pq])?"),
        post in any::<bool>(),
        header in proptest::option::of("[xy]"),
    ) {
        let routes: Vec<_> = (0..).zip(routes).map(|(age, matches)| route(&format!("r{age}/0"), matches)).collect();
        let mut headers = HeaderMap::new();
        if let Some(name) = header {
            headers.insert(name.parse::<HeaderName>().unwrap(), "1".parse().unwrap());
        }
        let method = if post { Method::POST } else { Method::GET };
        let request = RequestView { host: "h", path: &path, query: query.as_deref(), method: &method, headers: &headers };
        let expected = brute_force(&routes, &request);
        let router = Router::build([(HostPattern::Any, Arc::new(VirtualHost::build(routes)))]);
        let found = router.find(request).map(|found| Arc::clone(found.route));
        prop_assert_eq!(found.map(|found| found.name.clone()), expected.map(|expected| expected.name.clone()));
    }
}
