//! Who is picked, and the laws of spreading.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{KeptOut, Outcome, Registry};
use super::*;
use crate::snapshot::{Cluster, Endpoint, HashKey, Hashing, Locality, Map, SlowStart};

fn address(member: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (member >> 8) as u8, member as u8], 80))
}

fn hashing(bounded_percent: Option<u32>) -> Hashing {
    Hashing { keys: [HashKey::ClientAddress].into(), bounded_percent }
}

fn ring(bounded_percent: Option<u32>) -> Algorithm {
    Algorithm::RingHash { hashing: hashing(bounded_percent), points: 100 }
}

fn maglev() -> Algorithm {
    Algorithm::Maglev { hashing: hashing(None), table_size: 16_381 }
}

const LEAST: Algorithm = Algorithm::LeastRequest { choices: 2 };

fn all_algorithms() -> Vec<Algorithm> {
    use Algorithm::*;
    vec![LEAST, LeastRequest { choices: 5 }, RoundRobin, WeightedRoundRobin, Random, PeakEwma, ring(None), maglev()]
}

fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
    let endpoint = |(member, weight): (usize, &u32)| Endpoint { weight: *weight, ..Endpoint::new(address(member)) };
    weights.iter().enumerate().map(endpoint).collect()
}

fn cluster(balancing: Balancing, endpoints: Vec<Endpoint>) -> Cluster {
    Cluster {
        endpoints: endpoints.into(),
        resilience: Arc::new(Resilience { balancing, ..Resilience::default() }),
        ..Cluster::plain()
    }
}

/// A balancer at a time of the test's choosing.
struct Bench {
    balancer: Balancer,
    states: Vec<Arc<EndpointState>>,
    now: Cell<Moment>,
}

impl Bench {
    fn of(registry: &Registry, cluster: &Cluster) -> Bench {
        let states = registry.of(cluster, Moment::default());
        let member = |(state, endpoint): (&Arc<EndpointState>, &Endpoint)| Member {
            state: Arc::clone(state),
            weight: endpoint.weight,
            local: endpoint.local,
        };
        let members = states.iter().zip(&*cluster.endpoints).map(member).collect();
        let shared = registry.cluster(&cluster.name);
        let table = shared.tables(cluster).and_then(|tables| tables.all());
        let balancer = Balancer::new(shared, Arc::clone(&cluster.resilience), members, table, 7);
        Bench { balancer, states, now: Cell::new(Moment::from_nanos(1_000_000_000)) }
    }

    fn new(algorithm: Algorithm, weights: &[u32]) -> Bench {
        let balancing = Balancing { algorithm, ..Balancing::default() };
        Bench::of(&Registry::default(), &cluster(balancing, endpoints(weights)))
    }

    fn pick(&self) -> usize {
        self.pick_at(None)
    }

    fn pick_at(&self, place: Option<u64>) -> usize {
        self.balancer.pick(&[], place, || self.now.get()).unwrap()
    }

    fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }

    /// How often each is picked.
    fn shares(&self, rounds: u64) -> Vec<f64> {
        let mut counts = vec![0; self.states.len()];
        // Places as far from each other as hashes are.
        (0..rounds).for_each(|round| counts[self.pick_at(Some(hash(&round.to_ne_bytes())))] += 1);
        counts.into_iter().map(|count: u64| count as f64 / rounds as f64).collect()
    }
}

/// nginx `least_conn.t`: ten requests go five to each; with two hanging at the first, ten go to the second.
#[test]
fn nginx_least_conn() {
    let bench = Bench::new(LEAST, &[1, 1]);
    let first: Vec<_> = (0..10).map(|_| bench.pick()).collect();
    assert_eq!(first.iter().filter(|member| **member == 0).count(), 5, "{first:?}");
    (0..2).for_each(|_| bench.states[0].enter());
    assert!((0..10).all(|_| bench.pick() == 1));
}

#[test]
fn every_algorithm_uses_everybody_by_weight() {
    let weights = [1, 1, 2, 4, 8];
    for algorithm in all_algorithms() {
        let bench = Bench::new(algorithm.clone(), &weights);
        let even = algorithm == Algorithm::RoundRobin;
        for (member, share) in bench.shares(64_000).into_iter().enumerate() {
            let fair = if even { 0.2 } else { f64::from(weights[member]) / 16.0 };
            // Points of a ring are as even as chance has them.
            let tolerance = if matches!(algorithm, Algorithm::RingHash { .. }) { 0.35 } else { 0.1 };
            assert!((share / fair - 1.0).abs() < tolerance, "{algorithm:?}: {member} has {share}, not {fair}");
        }
    }
}

#[test]
fn whoever_was_tried_is_passed_over_by_every_algorithm() {
    for algorithm in all_algorithms() {
        for count in [1, 2, 3, 20] {
            let bench = Bench::new(algorithm.clone(), &vec![1; count]);
            let mut tried = Vec::new();
            for left in (0..count).rev() {
                let place = Some(hash(b"somebody"));
                let picked = bench.balancer.pick(&tried, place, Moment::default).unwrap();
                assert!(!tried.contains(&address(picked)), "{algorithm:?} of {count}");
                tried.push(address(picked));
                assert_eq!(bench.balancer.has_another(&tried, Moment::default), left > 0);
            }
            assert_eq!(bench.balancer.pick(&tried, None, Moment::default), None, "{algorithm:?}");
        }
        let nobody = Bench::new(algorithm, &[]);
        assert_eq!(nobody.balancer.pick(&[], None, Moment::default), None);
    }
}

#[test]
fn whoever_is_kept_out_gets_nothing_until_too_few_are_left() {
    for algorithm in all_algorithms() {
        let bench = Bench::new(algorithm.clone(), &[1; 10]);
        let out = |member: usize, out| {
            bench.states[member].keep_out(KeptOut::Ejected, out);
        };
        (0..5).for_each(|member| out(member, true));
        let shares = bench.shares(2_000);
        assert!(shares[..5].iter().all(|share| *share == 0.0), "{algorithm:?}: {shares:?}");
        assert!(shares[5..].iter().all(|share| *share > 0.02), "{algorithm:?}: {shares:?}");
        // Four of ten are fewer than half: all are used.
        out(5, true);
        let shares = bench.shares(2_000);
        assert!(shares.iter().all(|share| *share > 0.02), "{algorithm:?}: {shares:?}");
        (0..6).for_each(|member| out(member, false));
        assert!(bench.shares(2_000).iter().all(|share| *share > 0.02));
    }
}

#[test]
fn without_a_panic_threshold_nobody_who_is_kept_out_is_used() {
    let balancing = Balancing { panic_percent: 0, ..Balancing::default() };
    let bench = Bench::of(&Registry::default(), &cluster(balancing, endpoints(&[1, 1])));
    for state in &bench.states {
        state.keep_out(KeptOut::Unhealthy, true);
    }
    assert_eq!(bench.balancer.pick(&[], None, Moment::default), None);
    assert!(!bench.balancer.has_another(&[], Moment::default));
}

#[test]
fn the_faster_endpoint_is_preferred_and_the_slow_one_asked_again_some_time() {
    let bench = Bench::new(Algorithm::PeakEwma, &[1, 1]);
    let answer = |member: usize, millis| {
        let first_byte = Duration::from_millis(millis);
        bench.states[member].report(Outcome::Answered { status: 200, first_byte }, bench.now.get());
    };
    answer(0, 200);
    assert_eq!(bench.pick(), 1, "nothing is known of it");
    answer(1, 10);
    assert!((0..50).all(|_| bench.pick() == 1));
    // Ten in flight at 10 ms each are as good as one of 100 ms.
    (0..25).for_each(|_| bench.states[1].enter());
    assert!((0..50).all(|_| bench.pick() == 0));
    (0..25).for_each(|_| bench.states[1].leave());
    // What was slow is forgotten while the fast one is heard of again.
    bench.pass(Duration::from_secs(60));
    answer(1, 10);
    assert_eq!(bench.pick(), 0);
}

#[test]
fn bounded_load_passes_on_what_is_too_much() {
    let bench = Bench::new(ring(Some(150)), &[1; 4]);
    let place = Some(hash(b"everybody's favourite"));
    for in_flight in 1..=40u64 {
        bench.states[bench.pick_at(place)].enter();
        let most = bench.states.iter().map(|state| state.in_flight()).max().unwrap();
        assert!(most <= (in_flight as f64 * 1.5 / 4.0).ceil() as u64, "{most} of {in_flight}");
    }
    let free = Bench::new(ring(None), &[1; 4]);
    (0..40).for_each(|_| free.states[free.pick_at(place)].enter());
    assert!(free.states.iter().any(|state| state.in_flight() == 40), "without a bound all go to one");
}

fn slow_start() -> Balancing {
    let settings = SlowStart { window: Duration::from_secs(60), min_percent: 10, aggression_percent: 100 };
    Balancing { slow_start: Some(settings), ..Balancing::default() }
}

#[test]
fn endpoints_that_come_to_others_or_come_back_are_eased_in() {
    use Algorithm::*;
    for algorithm in [LEAST, LeastRequest { choices: 8 }, RoundRobin, WeightedRoundRobin, Random] {
        let balancing = Balancing { algorithm: algorithm.clone(), ..slow_start() };
        let registry = Registry::default();
        let few = Bench::of(&registry, &cluster(balancing.clone(), endpoints(&[1; 3])));
        let last = |bench: &Bench| bench.shares(20_000).pop().unwrap();
        let close = |share: f64, expected: f64| (share / expected - 1.0).abs() < 0.25;
        assert!(close(last(&few), 1.0 / 3.0), "{algorithm:?}: those that were there first have their whole weight");
        let more = Bench::of(&registry, &cluster(balancing, endpoints(&[1; 4])));
        assert!(close(last(&more), 0.1 / 3.1), "{algorithm:?}: {} at first", last(&more));
        more.pass(Duration::from_secs(30));
        assert!(close(last(&more), 0.5 / 3.5), "{algorithm:?}: {} after half of the time", last(&more));
        more.pass(Duration::from_secs(31));
        assert!(close(last(&more), 0.25), "{algorithm:?}: {} in the end", last(&more));
        // Coming back is like coming.
        more.states[3].keep_out(KeptOut::Unhealthy, true);
        assert_eq!(last(&more), 0.0);
        more.states[3].keep_out(KeptOut::Unhealthy, false);
        assert!(close(last(&more), 0.1 / 3.1), "{algorithm:?}: {} when it comes back", last(&more));
    }
}

#[test]
fn the_own_zone_is_preferred_while_enough_of_it_is_there() {
    let locality = Some(Locality { min_available_percent: 50, min_endpoints: 2 });
    for algorithm in all_algorithms() {
        let mut all = endpoints(&[1; 8]);
        all[..4].iter_mut().for_each(|endpoint| endpoint.local = true);
        let balancing = Balancing { algorithm: algorithm.clone(), locality, ..Balancing::default() };
        let bench = Bench::of(&Registry::default(), &cluster(balancing, all));
        let used = |bench: &Bench| bench.shares(2_000).iter().map(|share| *share > 0.0).collect::<Vec<_>>();
        let (yes, no) = (true, false);
        assert_eq!(used(&bench), [yes, yes, yes, yes, no, no, no, no], "{algorithm:?}");
        // A retry may leave the zone, when the zone has nobody left.
        let tried: Vec<_> = (0..4).map(address).collect();
        assert!(bench.balancer.pick(&tried, Some(1), Moment::default).unwrap() >= 4);
        for state in &bench.states[..2] {
            state.keep_out(KeptOut::Ejected, true);
        }
        assert_eq!(used(&bench), [no, no, yes, yes, no, no, no, no], "{algorithm:?}");
        bench.states[2].keep_out(KeptOut::Ejected, true);
        assert_eq!(used(&bench), [no, no, no, yes, yes, yes, yes, yes], "{algorithm:?}");
    }
}

#[test]
fn tables_are_made_once_for_all_workers() {
    let registry = Registry::default();
    for algorithm in [ring(None), maglev()] {
        let cluster = cluster(Balancing { algorithm, ..Balancing::default() }, endpoints(&[1; 5]));
        let state = registry.cluster(&cluster.name);
        let first = state.tables(&cluster).unwrap();
        assert!(Arc::ptr_eq(&first, &state.tables(&cluster.clone()).unwrap()));
    }
    let plain = cluster(Balancing::default(), endpoints(&[1; 5]));
    assert!(registry.cluster(&plain.name).tables(&plain).is_none());
}

/// Memory per endpoint is at most 2 KiB, tables and what one worker keeps included; the worker's connections are apart.
#[test]
fn an_endpoint_takes_little_memory() {
    for algorithm in all_algorithms() {
        for count in [10, 1_000] {
            let bench = Bench::new(algorithm.clone(), &(1..=count).collect::<Vec<_>>());
            bench.pick();
            let table = bench.balancer.table.as_ref().map_or(0, Table::bytes);
            let shared = size_of::<EndpointState>() + size_of::<(SocketAddr, Arc<EndpointState>)>() * 2;
            let each = shared + (table + bench.balancer.bytes()) / count as usize;
            assert!(each <= 2048, "{algorithm:?}: {each} bytes per endpoint of {count}");
        }
    }
}

/// Names of members that stay the same when another goes.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|member| address(member).to_string()).collect()
}

fn weighted(names: &[String]) -> impl ExactSizeIterator<Item = (&str, u32)> + Clone {
    names.iter().map(|name| (name.as_str(), 1))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Removing an endpoint moves only its keys, and adding one takes keys for itself only.
    #[test]
    fn a_ring_moves_only_the_keys_of_who_goes(count in 2usize..60, gone in 0usize..60, places in proptest::collection::vec(any::<u64>(), 200)) {
        let (before, gone) = (names(count), gone % count);
        let mut after = before.clone();
        after.remove(gone);
        let (all, fewer) = (Ring::build(weighted(&before), 100), Ring::build(weighted(&after), 100));
        for place in places {
            let was = all.from(place).next().unwrap();
            let is = fewer.from(place).next().unwrap();
            prop_assert!(was == gone || before[was] == after[is]);
            // And whoever is kept out gives its keys to the same that would have them if it were gone.
            let next = all.from(place).find(|member| *member != gone).unwrap();
            prop_assert_eq!(&before[next], &after[is]);
        }
    }

    /// Maglev (section 5.3 of the paper): few keys of others move.
    #[test]
    fn a_maglev_table_moves_few_other_keys(count in 2usize..100, gone in 0usize..100) {
        let (before, gone) = (names(count), gone % count);
        let mut after = before.clone();
        after.remove(gone);
        let all: Vec<_> = Maglev::build(weighted(&before), 16_381).unwrap().from(0).collect();
        let fewer: Vec<_> = Maglev::build(weighted(&after), 16_381).unwrap().from(0).collect();
        let moved = all.iter().zip(&fewer).filter(|(was, is)| **was != gone && before[**was] != after[**is]).count();
        prop_assert!(moved * 100 <= 6 * 16_381, "{} of 16381 slots", moved);
        let mut shares = vec![0usize; count];
        all.iter().for_each(|member| shares[*member] += 1);
        prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
    }

    /// Whatever the weights, over a whole round each has exactly its turns.
    #[test]
    fn turns_are_exact(weights in proptest::collection::vec(1u32..20, 1..12)) {
        let total: u32 = weights.iter().sum();
        let mut turns = SmoothTurns::new(weights.iter().copied().enumerate());
        let mut plain = vec![0i64; weights.len()];
        let mut counts = vec![0; weights.len()];
        for _ in 0..total * 2 {
            // As nginx writes it.
            plain.iter_mut().zip(&weights).for_each(|(gained, weight)| *gained += i64::from(*weight));
            let most = *plain.iter().max().unwrap();
            let expected = plain.iter().position(|gained| *gained == most).unwrap();
            plain[expected] -= i64::from(total);
            prop_assert_eq!(turns.turn(), Some(expected));
            counts[expected] += 1;
        }
        prop_assert!(counts.iter().zip(&weights).all(|(count, weight)| *count == weight * 2));
    }

    /// Draws follow weights: exactly, up to the parts of a slot.
    #[test]
    fn draws_are_fair(weights in proptest::collection::vec(1u32..1000, 1..20)) {
        let numbered: Vec<_> = weights.iter().enumerate().map(|(member, weight)| (member as u32, *weight)).collect();
        let draws = Draws::new(&numbered);
        let mut counts: Map<usize, u32> = Map::default();
        let rounds = 40_000;
        let mut random = fastrand::Rng::with_seed(3);
        (0..rounds).for_each(|_| *counts.entry(draws.draw(random.u64(..))).or_default() += 1);
        let total: u32 = weights.iter().sum();
        for (member, weight) in weights.iter().enumerate() {
            let (share, fair) = (f64::from(counts.get(&member).copied().unwrap_or(0)) / f64::from(rounds), f64::from(*weight) / f64::from(total));
            prop_assert!((share - fair).abs() < 0.02, "{member} has {share}, not {fair}");
        }
    }
}
