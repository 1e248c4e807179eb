//! Behaviour that others' tests fix.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::super::Moment;
use super::*;
use crate::snapshot::SlowStart;

/// Envoy `test/extensions/load_balancing_policies/ring_hash/ring_hash_lb_test.cc`, the ring of six hosts with two points each.
#[test]
fn envoy_ring_hash() {
    let names: Vec<String> = (90..96).map(|port| format!("127.0.0.1:{port}")).collect();
    let ring = Ring::build(names.iter().map(|name| (name.as_str(), 1)), 2);
    let points: Vec<_> = ring.points().map(|(hash, member)| (hash, 90 + member)).collect();
    let expected = [
        (833_437_586_790_550_860, 94),
        (928_266_305_478_181_108, 92),
        (1_033_482_794_131_418_490, 90),
        (3_551_244_743_356_806_947, 95),
        (3_851_675_632_748_031_481, 93),
        (5_583_722_120_771_150_861, 91),
        (6_311_230_543_546_372_928, 91),
        (7_700_377_290_971_790_572, 93),
        (13_144_177_310_400_110_813, 95),
        (13_444_792_449_719_432_967, 92),
        (15_516_499_411_664_133_160, 94),
        (16_117_243_373_044_804_889, 90),
    ];
    assert_eq!(points, expected);
    // The same test: a place on a point is that point's, one above the last is the first's.
    for (place, port) in [
        (0, 94),
        (833_437_586_790_550_860, 94),
        (833_437_586_790_550_861, 92),
        (3_551_244_743_356_806_948, 93),
        (16_117_243_373_044_804_880, 90),
        (u64::MAX, 94),
    ] {
        assert_eq!(90 + ring.from(place).next().unwrap(), port, "{place}");
    }
}

/// Envoy `test/extensions/load_balancing_policies/maglev/maglev_lb_test.cc`, tables of seven slots.
#[test]
fn envoy_maglev() {
    for (prefix, expected) in [("127.0.0.1:", [2, 4, 0, 1, 5, 0, 3]), ("", [2, 5, 0, 3, 4, 1, 0])] {
        let names: Vec<String> = (90..96).map(|port| format!("{prefix}{port}")).collect();
        let table = Maglev::build(names.iter().map(|name| (name.as_str(), 1)), 7).unwrap();
        assert_eq!(table.from(0).collect::<Vec<_>>(), expected, "{prefix:?}");
        assert_eq!(table.from(7 * 5 + 3).next(), Some(expected[3]));
    }
    assert_eq!(Maglev::build([("a", 1)].into_iter(), 8).unwrap_err(), NotPrime(8));
}

/// nginx, the commit that brought smooth weighted round robin: "in case of { 5, 1, 1 } … this gives a, a, b, a, c, a, a".
#[test]
fn nginx_smooth_weighted_round_robin() {
    let mut turns = SmoothTurns::new([5, 1, 1].into_iter().enumerate());
    let order: Vec<_> = (0..14).map(|_| turns.turn().unwrap()).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
}

/// Envoy `slow_start_config`: weight x max(min percent, (time since start / window) ^ (1 / aggression)).
#[test]
fn envoy_slow_start() {
    let at = |seconds| Moment::from_nanos(0) + Duration::from_secs(seconds);
    for (aggression_percent, seconds, expected) in [
        (100, 0, 0.1),
        (100, 5, 0.1),
        (100, 15, 0.25),
        (100, 30, 0.5),
        (100, 60, 1.0),
        (100, 90, 1.0),
        (200, 15, 0.5),
        (50, 30, 0.25),
        (50, 15, 0.1),
    ] {
        let settings = SlowStart { window: Duration::from_secs(60), min_percent: 10, aggression_percent };
        let found = part(&settings, at(0), at(seconds));
        assert!((found - expected).abs() < 1e-9, "{aggression_percent} % after {seconds} s: {found}");
    }
}
