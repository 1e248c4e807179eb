//! What others' tests say of ejection, each named by its source, and what is ours.
#![allow(clippy::unwrap_used, clippy::needless_update)]

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::resilience::{EndpointState, KeptOut, Moment, Registry, State};
use crate::snapshot::{Cluster, Endpoint, Resilience};

fn at(millis: u64) -> Moment {
    Moment::default() + Duration::from_millis(millis)
}

fn cluster(endpoints: u16, ejection: Option<Ejection>) -> Cluster {
    let endpoint = |port| Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port)));
    Cluster {
        endpoints: (1..=endpoints).map(endpoint).collect(),
        resilience: Arc::new(Resilience { ejection, ..Resilience::default() }),
        ..Cluster::plain()
    }
}

fn status(status: u16) -> Outcome {
    Outcome::Answered { status, first_byte: Duration::from_millis(1) }
}

fn report(endpoint: &EndpointState, outcomes: &[Outcome], now: Moment) {
    outcomes.iter().for_each(|outcome| endpoint.report(*outcome, now));
}

fn is_ejected(endpoint: &EndpointState) -> bool {
    endpoint.is_kept_out(KeptOut::Ejected)
}

/// What was told: of which port, to which state, why.
fn told(registry: &Registry) -> Vec<(u16, State, Why)> {
    let transitions = registry.untold().transitions.into_iter();
    transitions.map(|it| (it.endpoint.unwrap().port(), it.change.to, it.change.why)).collect()
}

/// Envoy, `OutlierDetectorImplTest`, `BasicFlow5xxViaHttpCodes` (and the same by connect failures).
#[test]
fn five_failures_in_a_row_eject() {
    let registry = Registry::default();
    let all = registry.of(&cluster(2, Some(Ejection::default())), at(0));
    report(&all[0], &[503, 200, 503, 503, 503, 503].map(status), at(0));
    assert!(!is_ejected(&all[0]), "a success between them begins anew");
    all[0].report(status(503), at(0));
    assert!(is_ejected(&all[0]) && !all[0].is_available());
    let out = all[0].ejected().unwrap();
    assert_eq!((out.why, out.until, out.times), (Why::Failures, at(30_000), 1));
    assert_eq!(told(&registry), [(1, State::Ejected, Why::Failures)]);
    let census = registry.census().remove(0);
    assert_eq!(census.endpoints, [("unhealthy", 0), ("ejected", 1), ("breaker_open", 0), ("available", 1)]);
    assert_eq!(census.changes, [(State::Ejected, Why::Failures, 1)]);
}

/// Envoy, `OutlierDetectorImplTest`, `BasicFlow5xxViaHttpCodes`: when they come back, and for how long they go again.
#[test]
fn each_ejection_is_longer_than_the_one_before() {
    let registry = Registry::default();
    let all = registry.of(&cluster(2, Some(Ejection::default())), at(0));
    let fail = |now| report(&all[0], &[status(503); 5], now);
    let out_after = |now| {
        registry.sweep(now);
        is_ejected(&all[0])
    };
    registry.sweep(at(0));
    fail(at(0));
    assert!(out_after(at(9_999)), "still out");
    assert!(!out_after(at(30_001)), "back");
    fail(at(30_001));
    assert!(out_after(at(40_000)), "out for the second time");
    assert!(out_after(at(90_000)), "for twice as long");
    assert!(!out_after(at(90_002)), "back");
    let (ejected, admitted) = ((1, State::Ejected, Why::Failures), (1, State::Admitted, Why::TimeOver));
    assert_eq!(told(&registry), [ejected, admitted, ejected, admitted]);
    // Each interval that it is in takes one off.
    for now in [95_000, 105_000, 115_000, 125_000] {
        registry.sweep(at(now));
    }
    fail(at(125_000));
    assert_eq!(all[0].ejected().unwrap().times, 1);
}

/// Envoy, `OutlierDetectorImplTest`, `EjectTimeBackoff` and `MaxEjectTime`.
#[test]
fn ejections_have_a_longest() {
    let rules = Ejection { base: Duration::from_secs(10), longest: Duration::from_secs(25), ..Ejection::default() };
    let registry = Registry::default();
    let all = registry.of(&cluster(2, Some(rules.clone())), at(0));
    let mut now = at(0);
    let mut lasted = Vec::new();
    for _ in 0..4 {
        report(&all[0], &[Outcome::Failed; 5], now);
        let until = all[0].ejected().unwrap().until;
        lasted.push((until - now).as_secs());
        now = until;
        registry.sweep(now);
    }
    assert_eq!(lasted, [10, 20, 25, 25]);

    let rules = Ejection { longest: Duration::ZERO, jitter: Duration::from_secs(5), ..rules };
    let all = Registry::default().of(&cluster(2, Some(rules)), at(0));
    report(&all[0], &[Outcome::Failed; 5], at(0));
    let until = all[0].ejected().unwrap().until;
    assert!(at(10_000) <= until && until <= at(15_000), "{until:?}");
}

/// Envoy, `OutlierDetectorImplTest`, `BasicFlowGatewayFailure` and `BasicFlowLocalOriginFailure`.
#[test]
fn kinds_of_failures_are_counted_by_themselves() {
    let rules = Ejection {
        consecutive_failures: 0,
        consecutive_gateway_failures: 3,
        consecutive_connect_failures: 2,
        ..Ejection::default()
    };
    use Outcome::{Cut, Failed, Unknown, Unreachable};
    let cases: &[(&[Outcome], Option<Why>)] = &[
        (&[status(500); 9], None),
        (&[status(502), status(503), status(504)], Some(Why::GatewayFailures)),
        (&[status(502), status(503), status(500), status(504)], None),
        (&[Failed, status(503), Failed], Some(Why::GatewayFailures)),
        (&[Unreachable, Unreachable], Some(Why::ConnectFailures)),
        (&[Unreachable, Failed, Unreachable], Some(Why::GatewayFailures)),
        (&[Unreachable, status(200), Unreachable], None),
        (&[Unreachable, Unknown, Unreachable], Some(Why::ConnectFailures)),
        (&[Cut, Cut, Cut], None),
        (&[Unknown; 9], None),
    ];
    for (outcomes, why) in cases {
        let all = Registry::default().of(&cluster(2, Some(rules.clone())), at(0));
        report(&all[0], outcomes, at(0));
        let found = all[0].is_kept_out(KeptOut::Ejected).then(|| all[0].ejected().unwrap().why);
        assert_eq!(found, *why, "{outcomes:?}");
    }
}

/// Envoy, `OutlierDetectorImplTest`, `Overflow` and `NotEnforcing…`: what is reported while it is out does not count.
#[test]
fn what_is_reported_while_it_is_out_does_not_count() {
    let registry = Registry::default();
    let all = registry.of(&cluster(2, Some(Ejection::default())), at(0));
    report(&all[0], &[status(500); 9], at(0));
    assert_eq!(all[0].ejected().unwrap().times, 1);
    registry.sweep(at(30_000));
    report(&all[0], &[status(500); 4], at(30_000));
    assert!(!is_ejected(&all[0]), "the four from before are forgotten");
}

/// Envoy, `OutlierDetectorImplTest`, `Overflow`: max_ejection_percent, and that one may always be ejected.
#[test]
fn no_more_than_a_percentage_is_ejected_and_never_the_last() {
    for (endpoints, max_percent, expected) in
        [(1, 100, 0), (2, 1, 1), (2, 100, 1), (10, 10, 1), (10, 25, 2), (4, 100, 3)]
    {
        let registry = Registry::default();
        let all = registry.of(&cluster(endpoints, Some(Ejection { max_percent, ..Ejection::default() })), at(0));
        all.iter().for_each(|endpoint| report(endpoint, &[status(500); 5], at(0)));
        let ejected = all.iter().filter(|endpoint| is_ejected(endpoint)).count();
        assert_eq!(ejected, expected, "{endpoints} endpoints, {max_percent} %");
        registry.sweep(at(30_000));
        report(&all[0], &[status(500); 5], at(30_000));
        assert_eq!(is_ejected(&all[0]), endpoints > 1, "who came back is counted no more");
    }
}

#[test]
fn the_endpoints_are_compared_once_per_interval() {
    let registry = Registry::default();
    let all = registry.of(&cluster(5, Some(Ejection { minimum_requests: 10, ..Ejection::default() })), at(0));
    registry.sweep(at(0));
    for endpoint in &all {
        report(endpoint, &[status(200); 10], at(1));
    }
    // An answer that began is a success, until it is cut.
    (0..8).for_each(|_| report(&all[4], &[status(200), Outcome::Cut], at(1)));
    registry.sweep(at(9_999));
    assert!(told(&registry).is_empty(), "not yet");
    registry.sweep(at(10_000));
    assert_eq!(told(&registry), [(5, State::Ejected, Why::SuccessRate)]);
    registry.sweep(at(20_000));
    assert!(told(&registry).is_empty(), "what was compared is forgotten");
}

#[test]
fn a_refused_connection_is_left_alone_for_a_moment_without_any_settings() {
    let registry = Registry::default();
    let all = registry.of(&cluster(3, None), at(0));
    let until = |endpoint: &EndpointState| endpoint.ejected().map(|out| out.until);
    report(&all[0], &[Outcome::Unreachable; 3], at(0));
    assert_eq!(until(&all[0]), Some(at(1_000)), "once, however many were on their way");
    registry.sweep(at(1_000));
    assert!(all[0].is_available());
    all[0].report(Outcome::Unreachable, at(1_000));
    assert_eq!(until(&all[0]), Some(at(3_000)), "longer each time");
    registry.sweep(at(3_000));
    report(&all[0], &[status(500), Outcome::Unreachable], at(3_000));
    assert_eq!(until(&all[0]), Some(at(4_000)), "it had been reached in between");
    let (ejected, admitted) = ((1, State::Ejected, Why::Refused), (1, State::Admitted, Why::TimeOver));
    assert_eq!(told(&registry), [ejected, admitted, ejected, admitted, ejected]);

    all[1].report(Outcome::Unreachable, at(3_000));
    all[2].report(Outcome::Unreachable, at(3_000));
    assert!(!all[1].is_available() && all[2].is_available(), "the last one stays");
    report(&all[2], &[Outcome::Failed; 99], at(3_000));
    assert!(all[2].is_available(), "nothing else ejects without settings");
}

#[test]
fn settings_change_under_what_is_known() {
    let registry = Registry::default();
    let all = registry.of(&cluster(2, Some(Ejection::default())), at(0));
    report(&all[0], &[Outcome::Failed; 5], at(0));
    let same = registry.of(&cluster(2, None), at(0));
    assert!(Arc::ptr_eq(&all[0], &same[0]) && is_ejected(&same[0]));
    registry.sweep(at(1));
    assert!(same[0].is_available());
    assert_eq!(told(&registry).last(), Some(&(1, State::Admitted, Why::Reconfigured)));
}

#[test]
fn who_leaves_and_comes_back_is_another() {
    let registry = Registry::default();
    let rules = Some(Ejection::default());
    let all = registry.of(&cluster(3, rules.clone()), at(0));
    report(&all[2], &[Outcome::Failed; 5], at(0));
    registry.of(&cluster(2, rules.clone()), at(0));
    report(&all[2], &[Outcome::Failed; 5], at(1));
    assert!(all[2].is_available(), "nobody asks");
    report(&all[0], &[Outcome::Failed; 5], at(1));
    assert!(is_ejected(&all[0]), "the one that left is not counted");
    let again = registry.of(&cluster(3, rules), at(0));
    assert!(again[2].is_available() && again[2].ejected().is_none());
}

#[test]
fn workers_that_agree_eject_once() {
    let registry = Registry::default();
    let all = registry.of(&cluster(8, Some(Ejection { max_percent: 50, ..Ejection::default() })), at(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    all.iter().for_each(|endpoint| endpoint.report(Outcome::Failed, at(0)));
                }
            });
        }
    });
    assert_eq!(all.iter().filter(|endpoint| is_ejected(endpoint)).count(), 4);
    assert_eq!(told(&registry).len(), 4);
    assert!(all.iter().filter_map(|endpoint| endpoint.ejected()).all(|out| out.times == 1));
}
