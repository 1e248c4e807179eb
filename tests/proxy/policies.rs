//! Who may pass by what policies say: by address, and nobody under a policy that cannot be applied.

use std::sync::Arc;

use floodway::snapshot::{Action, Forward, Invalid, IpAccess, Networks, Policy, Protocol, Respond, Route};

use super::endpoints::Witness;
use super::support::*;

fn addresses(allow: Option<&[&str]>, deny: &[&str]) -> Policy {
    let networks = |texts: &[&str]| Networks::new(texts.iter().map(|text| text.parse().unwrap()));
    let access = IpAccess { allow: allow.map(networks), deny: networks(deny) };
    Policy { ip_access: Some(Arc::new(access)), ..Policy::default() }
}

/// Whatever a route does with requests, they are under this policy.
pub fn under(policy: Policy, mut route: Route) -> Route {
    let policy = Some(Arc::new(policy));
    match &mut route.action {
        Action::Forward(Forward { backends, .. }) => backends.iter_mut().for_each(|one| one.policy = policy.clone()),
        _ => route.policy = policy,
    }
    route
}

pub fn responding(prefix: &str) -> Route {
    route(prefix, Action::Respond(Respond { status: http::StatusCode::OK, content_type: None, body: "ok".into() }))
}

/// The answer to a request that says it comes from an address.
async fn from(plane: &Plane, path: &str, address: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\nConnection: close\r\n\r\n");
    plane.exchange(&head).await
}

#[tokio::test]
async fn addresses_pass_or_do_not_whatever_the_rule_does() {
    let endpoint = Witness::start().await;
    let policy = addresses(Some(&["192.0.2.0/24"]), &["192.0.2.9/32"]);
    let routes = vec![
        under(policy.clone(), forward("/forward", "backend")),
        under(policy, responding("/respond")),
        responding("/"),
    ];
    let clusters = vec![cluster("backend", Protocol::Http1, &[endpoint.address])];
    let plane = Plane::with(snapshot(routes, clusters), |settings| {
        settings.forwarding.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    for path in ["/forward", "/respond"] {
        assert!(from(&plane, path, "192.0.2.1").await.starts_with("HTTP/1.1 200 "));
        for stranger in ["192.0.2.9", "192.0.3.1", "2001:db8::1"] {
            let refused = from(&plane, path, stranger).await;
            assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("address_denied"), "{refused}");
        }
    }
    assert!(from(&plane, "/", "192.0.2.9").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(endpoint.take().len(), 1, "who is refused reaches nobody");
}

#[tokio::test]
async fn nobody_passes_a_policy_that_cannot_be_applied() {
    let endpoint = Witness::start().await;
    let broken = || Policy { invalid: Some(Invalid("why".into())), ..Policy::default() };
    let routes = vec![under(broken(), forward("/forward", "backend")), under(broken(), responding("/respond"))];
    let plane = Plane::start(snapshot(routes, vec![cluster("backend", Protocol::Http1, &[endpoint.address])]));
    for path in ["/forward", "/respond"] {
        let refused = from(&plane, path, "192.0.2.1").await;
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("invalid_policy"), "{refused}");
        assert!(!refused.contains("why"), "nothing inner");
    }
    assert!(endpoint.take().is_empty());
}
