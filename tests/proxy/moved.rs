//! Streams whose endpoint or route is gone: they run on for as long as configured, end politely then, and stay if what they
//! need comes back before.

use std::net::SocketAddr;
use std::time::Duration;

use floodway::snapshot::{Action, Protocol, Route, Snapshot, Streaming};
use tokio::time::Instant;

use super::support::*;

const GRACE: Duration = Duration::from_millis(1500);
/// Until when a stream may still be undisturbed.
const BEFORE: Duration = Duration::from_millis(1125);

/// Everything under `/stream` goes to these endpoints.
fn endpoints(addresses: &[SocketAddr], move_after: Option<Duration>) -> Snapshot {
    let mut backend = cluster("backend", Protocol::Http1, addresses);
    backend.move_after = move_after;
    snapshot(vec![forward("/stream", "backend")], vec![backend])
}

/// A route of this name, and another.
fn routes(name: &str, address: SocketAddr, removal_grace: Option<Duration>) -> Snapshot {
    let mut route = forward("/stream", "backend");
    route.name.rule = name.into();
    let Action::Forward(forward) = &mut route.action else { unreachable!() };
    forward.streaming = Some(Streaming { removal_grace, ..Streaming::default() }.into());
    let other: Route = super::support::forward("/other", "backend");
    snapshot(vec![other, route], vec![cluster("backend", Protocol::Http1, &[address])])
}

/// Waits for the polite end of a stream that was asked to leave since `since`.
async fn leaves(plane: &Plane, client: &mut Raw, since: Instant, why: &str) {
    assert_eq!(client.until("0\r\n\r\n").await, "0\r\n\r\n");
    let after = since.elapsed();
    assert!(after >= BEFORE && after < GRACE + Duration::from_secs(5), "{after:?}");
    let line = plane.logged("/stream").await;
    assert_eq!((&line["end"], &line["reason"], &line["status"]), (&why.into(), &why.into(), &200.into()), "{line}");
}

#[tokio::test]
async fn streams_move_from_an_endpoint_that_is_gone() {
    let (old, mut arrivals) = played().await;
    let (new, mut others) = played().await;
    let plane = Plane::start(endpoints(&[old], Some(GRACE)));
    let (mut client, mut endpoint) = event_stream(&plane, &mut arrivals).await;
    let since = Instant::now();
    plane.publisher.publish(endpoints(&[new], Some(GRACE)));
    // It runs on, whatever else changes meanwhile; its successors go elsewhere.
    plane.publisher.publish(endpoints(&[new, SocketAddr::from(([127, 0, 0, 1], 1))], Some(GRACE)));
    plane.publisher.publish(endpoints(&[new], Some(GRACE)));
    let (mut next, mut elsewhere) = event_stream(&plane, &mut others).await;
    tell(&mut endpoint, &mut client).await;
    leaves(&plane, &mut client, since, "endpoint_gone").await;
    endpoint.closed().await;
    tell(&mut elsewhere, &mut next).await;
}

#[tokio::test]
async fn streams_move_with_their_cluster_and_before_their_head() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(endpoints(&[address], Some(GRACE)));
    let (mut client, endpoint) = event_stream(&plane, &mut arrivals).await;
    let since = Instant::now();
    // The whole cluster goes.
    plane.publisher.publish(snapshot(Vec::new(), Vec::new()));
    leaves(&plane, &mut client, since, "endpoint_gone").await;
    drop(endpoint);

    // The endpoint goes before it has answered.
    let plane = Plane::start(endpoints(&[address], Some(GRACE)));
    let mut client = plane.connect().await;
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    plane.publisher.publish(endpoints(&[SocketAddr::from(([127, 0, 0, 1], 1))], Some(GRACE)));
    // A request on the same snapshot tells that the workers have it.
    let since = Instant::now();
    endpoint.send(EVENTS).await;
    client.head().await;
    leaves(&plane, &mut client, since, "endpoint_gone").await;
}

#[tokio::test]
async fn streams_stay_where_nobody_moves_them() {
    let (old, mut arrivals) = played().await;
    let (new, _others) = played().await;
    // Kept; and back in time.
    for (move_after, back) in [(None, false), (Some(GRACE), true)] {
        let plane = Plane::start(endpoints(&[old], move_after));
        let (mut client, mut endpoint) = event_stream(&plane, &mut arrivals).await;
        plane.publisher.publish(endpoints(&[new], move_after));
        tell(&mut endpoint, &mut client).await;
        if back {
            tokio::time::sleep(BEFORE / 4).await;
            plane.publisher.publish(endpoints(&[new, old], move_after));
        }
        tokio::time::sleep(GRACE + BEFORE).await;
        tell(&mut endpoint, &mut client).await;
    }
}

#[tokio::test]
async fn streams_of_a_removed_route_run_on_for_a_while() {
    let (address, mut arrivals) = played().await;
    let plane = Plane::start(routes("one", address, Some(GRACE)));
    let (mut client, mut endpoint) = event_stream(&plane, &mut arrivals).await;
    let since = Instant::now();
    plane.publisher.publish(routes("two", address, Some(GRACE)));
    tell(&mut endpoint, &mut client).await;
    leaves(&plane, &mut client, since, "route_removed").await;
    endpoint.closed().await;
}

#[tokio::test]
async fn streams_of_routes_that_stay_or_have_no_bound_run_on() {
    let (address, mut arrivals) = played().await;
    let removed = |grace| routes("two", address, grace);
    let edited = || {
        let mut snapshot = routes("one", address, None);
        let host = snapshot.router.hosts().next().unwrap().1.routes().to_vec();
        let mut host: Vec<Route> = host.iter().map(|route| (**route).clone()).collect();
        host.reverse();
        snapshot.router = super::support::snapshot(host, Vec::new()).router;
        snapshot
    };
    // Removed without a bound; edited and reordered; removed and back in time.
    for (grace, changes) in [
        (None, vec![removed(None)]),
        (Some(GRACE), vec![edited()]),
        (Some(GRACE), vec![removed(Some(GRACE)), edited()]),
    ] {
        let plane = Plane::start(routes("one", address, grace));
        let (mut client, mut endpoint) = event_stream(&plane, &mut arrivals).await;
        for change in changes {
            plane.publisher.publish(change);
            tell(&mut endpoint, &mut client).await;
            tokio::time::sleep(BEFORE / 4).await;
        }
        tokio::time::sleep(GRACE + BEFORE).await;
        tell(&mut endpoint, &mut client).await;
    }
}
