//! State that outlives snapshots, and who is picked.
#![allow(clippy::unwrap_used)]

use super::*;

fn cluster(ports: &[u16]) -> Arc<Cluster> {
    let endpoint = |port: &u16| Endpoint::new(SocketAddr::from(([127, 0, 0, 1], *port)));
    Arc::new(Cluster { endpoints: ports.iter().map(endpoint).collect(), ..Cluster::plain() })
}

fn port(host: &Host) -> u16 {
    host.endpoint.address.port()
}

#[test]
fn what_is_known_survives_a_change_of_endpoints_and_is_shared_by_workers() {
    let registry = Registry::default();
    let (one, two) = (Upstreams::new(registry.clone(), 65536), Upstreams::new(registry.clone(), 65536));
    let before = one.of(&cluster(&[1, 2]));
    let running = InFlight::new(&before.hosts[1]);
    let after = one.of(&cluster(&[2, 3]));
    let loads: Vec<_> = after.hosts.iter().map(|host| (port(host), host.state.in_flight())).collect();
    assert_eq!(loads, [(2, 1), (3, 0)]);
    assert_eq!(two.of(&cluster(&[2])).hosts[0].state.in_flight(), 1, "another worker sees it");
    drop(running);
    assert_eq!(after.hosts[0].state.in_flight(), 0);

    let state = Arc::downgrade(&after.hosts[0].state);
    drop((before, after));
    one.retain(&Snapshot::default());
    two.retain(&Snapshot::default());
    assert!(state.upgrade().is_none(), "what nobody knows is forgotten");
}

#[test]
fn the_less_loaded_endpoint_is_picked() {
    let upstreams = Upstreams::default();
    let upstream = upstreams.of(&cluster(&[1, 2]));
    let _running = InFlight::new(&upstream.hosts[0]);
    for _ in 0..20 {
        assert_eq!(port(upstream.pick(&[], &Wish::default()).unwrap()), 2);
    }
}

#[test]
fn all_idle_endpoints_get_their_share() {
    let upstreams = Upstreams::default();
    let upstream = upstreams.of(&cluster(&[1, 2, 3, 4]));
    let mut counts = Map::default();
    for _ in 0..4000 {
        *counts.entry(port(upstream.pick(&[], &Wish::default()).unwrap())).or_insert(0) += 1;
    }
    assert!(counts.len() == 4 && counts.values().all(|count| (700..1300).contains(count)), "{counts:?}");
}

#[test]
fn endpoints_that_were_tried_are_passed_over() {
    let upstreams = Upstreams::default();
    let upstream = upstreams.of(&cluster(&[1, 2, 3]));
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    for _ in 0..20 {
        assert_eq!(port(upstream.pick(&[address(1), address(3)], &Wish::default()).unwrap()), 2);
        assert!(upstream.pick(&[address(1), address(2), address(3)], &Wish::default()).is_none());
    }
    assert!(upstreams.of(&cluster(&[])).pick(&[], &Wish::default()).is_none());
}
