//! What Resilience4j's own tests fix (`CircuitBreakerStateMachineTest` and `CircuitBreakerMetricsTest`), by their numbers in the
//! list of this project, and what streams add.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::resilience::{Registry, State as Told};
use crate::snapshot::{BreakerWait, Cluster, Failures, HalfOpenLimit, Resilience};

/// "failure rate 50 %, slow-call rate 50 %, slow call 4 s, time window 20 s, minimum calls 5, wait in open 5 s, 4 permits in
/// half-open, at most 1 s in half-open".
pub(super) fn settings() -> CircuitBreaker {
    CircuitBreaker {
        mode: BreakerMode::Automatic,
        window: BreakerWindow::Time(Duration::from_secs(20)),
        minimum_calls: 5,
        failure_rate_percent: 50,
        slow_call_rate_percent: 50,
        slow_call_duration: Duration::from_secs(4),
        wait: BreakerWait {
            first: Duration::from_secs(5),
            growth_percent: 100,
            most: Duration::from_secs(5),
            jitter_percent: 0,
        },
        permitted_in_half_open: 4,
        half_open_limit: Some(HalfOpenLimit { time: Duration::from_secs(1), then_closes: false }),
        failures: Failures { statuses: vec![(500, 599)], cut: true },
    }
}

/// A breaker and its time.
struct Stage {
    breaker: Breaker,
    now: Moment,
}

impl Stage {
    fn new(settings: CircuitBreaker) -> Stage {
        Stage { breaker: Breaker::new(settings, 0), now: Moment::default() }
    }

    fn at(&mut self, millis: u64) {
        self.now = Moment::default() + Duration::from_millis(millis);
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    fn permit(&self) -> bool {
        self.breaker.acquire(self.now).is_ok()
    }

    /// Calls of a second each: `S` succeeds, `F` fails.
    fn calls(&self, calls: &str) {
        calls.chars().for_each(|call| self.call(1_000, call));
    }

    /// A call that took so long.
    fn call(&self, millis: u64, call: char) {
        let permit = self.breaker.acquire(self.now).unwrap();
        let slow = Duration::from_millis(millis) > self.breaker.settings().slow_call_duration;
        self.breaker.record(permit, Call { failed: call == 'F', slow }, self.now);
    }

    fn state(&self) -> State {
        self.breaker.look(self.now).state
    }

    /// Failure rate, -1 if there is none; calls; failures.
    fn metrics(&self) -> (f64, u32, u32) {
        let look = self.breaker.look(self.now);
        (look.failure_rate(self.breaker.settings()).unwrap_or(-1.0), look.totals.calls, look.totals.failed)
    }

    fn slow_rate(&self) -> f64 {
        self.breaker.look(self.now).slow_call_rate(self.breaker.settings()).unwrap_or(-1.0)
    }

    fn open(&self) {
        while self.state() != State::Open {
            self.calls("F");
        }
    }

    /// Opens it and lets the wait pass, so that the next to ask finds it half-open.
    fn half_open(&mut self) {
        self.open();
        self.pass(5_000);
    }
}

#[test]
fn resilience4j_1_open_rejects_and_forced_open_for_ever() {
    let stage = Stage::new(settings());
    stage.open();
    assert!(!stage.permit() && !stage.permit());
    assert_eq!(stage.breaker.look(stage.now).not_permitted, 2);
    assert_eq!(stage.breaker.acquire(stage.now), Err(NotPermitted { retry_after: Some(Duration::from_secs(5)) }));

    let mut forced = Stage::new(CircuitBreaker { mode: BreakerMode::ForcedOpen, ..settings() });
    assert!(!forced.permit());
    forced.pass(6_000);
    assert_eq!(forced.breaker.acquire(forced.now), Err(NotPermitted { retry_after: None }));
}

#[test]
fn resilience4j_2_half_open_permits_a_few() {
    let mut stage = Stage::new(settings());
    stage.half_open();
    let mut permits: Vec<_> = (0..6).map(|_| stage.breaker.acquire(stage.now).ok()).collect();
    assert_eq!(permits.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, true, true, false, false]);
    stage.breaker.release(permits.pop().flatten().or(permits[0]).unwrap());
    assert!(stage.permit() && !stage.permit(), "a released permit is another's");

    for permit in permits.into_iter().flatten() {
        stage.breaker.record(permit, Call { failed: true, slow: false }, stage.now);
    }
    assert_eq!(stage.state(), State::Open);
    stage.pass(5_000);
    assert_eq!((0..6).filter(|_| stage.permit()).count(), 4, "four new ones");
}

#[test]
fn resilience4j_3_the_threshold_itself_opens() {
    let mut stage = Stage::new(settings());
    for (second, call) in "SSSFF".chars().enumerate() {
        stage.at(second as u64 * 1_000);
        stage.call(1_000, call);
    }
    assert_eq!((stage.state(), stage.metrics().0), (State::Closed, 40.0));
    stage.at(5_000);
    stage.calls("F");
    assert_eq!((stage.state(), stage.metrics()), (State::Open, (50.0, 6, 3)));
}

#[test]
fn resilience4j_4_a_success_can_trip_it() {
    let stage = Stage::new(settings());
    for call in ["F", "F", "F", "S"] {
        stage.calls(call);
        assert_eq!((stage.state(), stage.metrics().0), (State::Closed, -1.0));
    }
    stage.calls("S");
    assert_eq!((stage.state(), stage.metrics()), (State::Open, (60.0, 5, 3)));
}

#[test]
fn resilience4j_5_slow_calls_open() {
    let stage = Stage::new(settings());
    for (millis, call) in [(5_000, 'F'), (5_000, 'S'), (100, 'F'), (100, 'S'), (5_000, 'S')] {
        assert_eq!(stage.state(), State::Closed);
        stage.call(millis, call);
    }
    assert_eq!((stage.state(), stage.slow_rate()), (State::Open, 60.0));
    assert_eq!(stage.breaker.look(stage.now).totals.slow, 3);
}

#[test]
fn resilience4j_6_the_wait_leads_to_half_open() {
    let mut stage = Stage::new(settings());
    stage.open();
    assert!(!stage.permit());
    stage.pass(3_000);
    assert!(!stage.permit());
    stage.pass(3_000);
    assert!(stage.permit());
    assert_eq!((stage.state(), stage.metrics()), (State::HalfOpen, (-1.0, 0, 0)));
}

#[test]
fn resilience4j_7_half_open_opens_again() {
    let mut stage = Stage::new(settings());
    stage.half_open();
    stage.calls("FFSF");
    assert_eq!((stage.state(), stage.metrics().0), (State::Open, 75.0));

    let mut slow = Stage::new(settings());
    slow.half_open();
    for millis in [5_000, 5_000, 5_000, 1_000] {
        slow.call(millis, 'S');
    }
    assert_eq!((slow.state(), slow.slow_rate(), slow.metrics().0), (State::Open, 75.0, 0.0));
}

#[test]
fn resilience4j_8_half_open_closes_and_begins_anew() {
    let mut stage = Stage::new(settings());
    stage.half_open();
    stage.calls("FSSS");
    assert_eq!(stage.state(), State::Closed);
    stage.calls("S");
    assert_eq!(stage.metrics(), (-1.0, 1, 0));
}

#[test]
fn resilience4j_9_an_outcome_that_is_ignored_gives_its_permit_back() {
    let mut stage = Stage::new(settings());
    stage.half_open();
    stage.calls("SSS");
    let ignored = stage.breaker.acquire(stage.now).unwrap();
    let before = stage.breaker.look(stage.now).totals;
    stage.breaker.release(ignored);
    assert_eq!((stage.state(), stage.breaker.look(stage.now).totals), (State::HalfOpen, before));
    stage.calls("F");
    assert_eq!(stage.state(), State::Closed);
}

#[test]
fn resilience4j_10_half_open_lasts_only_so_long() {
    for (then_closes, expected) in [(false, State::Open), (true, State::Closed)] {
        let half_open_limit = Some(HalfOpenLimit { time: Duration::from_secs(1), then_closes });
        let mut stage = Stage::new(CircuitBreaker { half_open_limit, ..settings() });
        stage.half_open();
        assert!(stage.permit());
        stage.pass(999);
        stage.breaker.look_after(stage.now);
        assert_eq!(stage.state(), State::HalfOpen);
        stage.pass(2);
        stage.breaker.look_after(stage.now);
        assert_eq!(stage.state(), expected);
    }
}

#[test]
fn resilience4j_11_the_wait_grows() {
    let wait = BreakerWait {
        first: Duration::from_secs(5),
        growth_percent: 150,
        most: Duration::from_secs(3600),
        jitter_percent: 0,
    };
    let mut stage = Stage::new(CircuitBreaker { wait, ..settings() });
    stage.open();
    stage.pass(6_000);
    stage.calls("FFFF");
    assert_eq!(stage.state(), State::Open);
    stage.pass(6_000);
    assert!(!stage.permit());
    stage.pass(5_000);
    assert!(stage.permit());
    assert_eq!(stage.state(), State::HalfOpen);
}

#[test]
fn resilience4j_12_a_window_of_calls() {
    let window = BreakerWindow::Calls(10);
    let slow_call_rate_percent = 100;
    let calm = CircuitBreaker { window, minimum_calls: 10, slow_call_rate_percent, ..settings() };
    let stage = Stage::new(CircuitBreaker { mode: BreakerMode::MetricsOnly, ..calm });
    stage.calls("SSFF");
    assert_eq!(stage.metrics(), (-1.0, 4, 2));
    stage.calls("FFFFSSSS");
    assert_eq!(stage.metrics(), (60.0, 10, 6));
    stage.calls("SSS");
    assert_eq!(stage.metrics().0, 30.0);
    assert_eq!(stage.state(), State::Closed, "it only counts");
}

#[test]
fn resilience4j_13_windows_forget() {
    let counting = |window| CircuitBreaker { mode: BreakerMode::MetricsOnly, window, minimum_calls: 1, ..settings() };
    let stage = Stage::new(counting(BreakerWindow::Calls(4)));
    for (call, rate) in [("F", 100.0), ("S", 50.0), ("S", 100.0 / 3.0), ("S", 25.0), ("S", 0.0)] {
        stage.calls(call);
        assert_eq!(stage.metrics().0, rate);
    }

    let mut stage = Stage::new(counting(BreakerWindow::Time(Duration::from_secs(5))));
    for (at, call) in [(0, "F"), (100, "S"), (200, "S"), (1_200, "S"), (2_200, "S"), (3_200, "F")] {
        stage.at(at);
        stage.calls(call);
    }
    assert_eq!(stage.metrics(), (100.0 / 3.0, 6, 2));
    for (at, calls, failed) in [(4_200, 7, 2), (5_200, 5, 1), (6_200, 5, 1), (11_200, 1, 0)] {
        stage.at(at);
        stage.calls("S");
        let (_, have, have_failed) = stage.metrics();
        assert_eq!((have, have_failed), (calls, failed), "at {at}");
    }
}

#[test]
fn disabled_lets_through_and_counts_nothing() {
    let stage = Stage::new(CircuitBreaker { mode: BreakerMode::Disabled, ..settings() });
    stage.calls("FFFFFFFFFF");
    assert_eq!((stage.state(), stage.metrics().1), (State::Closed, 0));
}

#[test]
fn what_began_in_another_state_says_nothing_of_this_one() {
    let mut stage = Stage::new(settings());
    let early: Vec<_> = (0..4).map(|_| stage.breaker.acquire(stage.now).unwrap()).collect();
    stage.half_open();
    let _trial = stage.breaker.acquire(stage.now).unwrap();
    for permit in early {
        stage.breaker.record(permit, Call::default(), stage.now);
    }
    assert_eq!((stage.state(), stage.metrics().1), (State::HalfOpen, 0));
}

/// A stream that has begun well has had its say, and holds no permit; that it is cut is another outcome.
#[test]
fn streams_are_judged_by_their_beginning_and_again_when_they_are_cut() {
    let stage = Stage::new(settings());
    let stream = stage.breaker.acquire(stage.now).unwrap();
    stage.breaker.record(stream, Call::default(), stage.now);
    stage.breaker.cut(stream, stage.now);
    assert_eq!(stage.metrics(), (-1.0, 2, 1));

    let mut trial = Stage::new(settings());
    trial.half_open();
    let streams: Vec<_> = (0..3).map(|_| trial.breaker.acquire(trial.now).unwrap()).collect();
    for &stream in &streams {
        trial.breaker.record(stream, Call::default(), trial.now);
    }
    trial.breaker.cut(streams[0], trial.now);
    trial.breaker.cut(streams[1], trial.now);
    assert_eq!(trial.metrics(), (-1.0, 3, 2), "what began well did not end well");
    trial.calls("S");
    assert_eq!(trial.state(), State::Open);
}

#[test]
fn a_silent_trial_does_not_make_the_wait_longer() {
    let wait = BreakerWait { growth_percent: 200, most: Duration::from_secs(3600), ..settings().wait };
    let mut stage = Stage::new(CircuitBreaker { wait, ..settings() });
    stage.half_open();
    for _ in 0..5 {
        assert!(stage.permit());
        stage.pass(1_000);
        stage.breaker.look_after(stage.now);
        let look = stage.breaker.look(stage.now);
        assert_eq!((look.state, look.left), (State::Open, Some(Duration::from_secs(5))));
        stage.pass(5_000);
    }
}

#[test]
fn the_wait_is_bounded_and_scattered() {
    let wait = BreakerWait {
        first: Duration::from_secs(10),
        growth_percent: 1000,
        most: Duration::from_secs(60),
        jitter_percent: 20,
    };
    let mut waits = Vec::new();
    for seed in 0..100 {
        let breaker = Breaker::new(CircuitBreaker { wait, ..settings() }, seed);
        waits.push(breaker.wait(0, 1));
        assert!((48_000..=72_000).contains(&breaker.wait(255, 7).as_millis()));
    }
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*least >= Duration::from_secs(8) && *least < Duration::from_secs(9), "{least:?}");
    assert!(*most <= Duration::from_secs(12) && *most > Duration::from_secs(11), "{most:?}");
}

#[test]
fn other_settings_keep_the_state() {
    let mut stage = Stage::new(settings());
    stage.calls("FFS");
    let stricter = CircuitBreaker { failure_rate_percent: 60, ..settings() };
    stage.breaker = stage.breaker.reconfigured(stricter.clone());
    assert_eq!(stage.metrics().1, 3, "the window is the same");
    stage.open();
    stage.pass(2_000);
    let longer = CircuitBreaker { window: BreakerWindow::Calls(10), ..stricter };
    stage.breaker = stage.breaker.reconfigured(longer.clone());
    assert!(!stage.permit());
    stage.pass(3_000);
    assert!(stage.permit(), "the wait goes on as it was");
    stage.breaker = stage.breaker.reconfigured(CircuitBreaker { permitted_in_half_open: 2, ..longer });
    assert_eq!((0..6).filter(|_| stage.permit()).count(), 2, "finding out begins anew");
    assert_eq!(stage.breaker.look(stage.now).not_permitted, 5);
    stage.breaker = stage.breaker.reconfigured(CircuitBreaker { mode: BreakerMode::Disabled, ..settings() });
    assert!(stage.permit());
}

/// Although nobody has swept for an hour.
#[test]
fn a_breaker_that_comes_or_goes_is_told_with_the_time_of_that() {
    let registry = Registry::default();
    let at = |seconds| Moment::default() + Duration::from_secs(seconds);
    let forced = CircuitBreaker { mode: BreakerMode::ForcedOpen, ..settings() };
    for (circuit_breaker, now) in [(Some(forced), 1), (None, 3600)] {
        let resilience = Arc::new(Resilience { circuit_breaker, ..Resilience::default() });
        registry.of(&Cluster { resilience, ..Cluster::plain() }, at(now));
    }
    let told: Vec<_> = registry.untold().transitions.iter().map(|told| (told.change.to, told.change.at)).collect();
    assert_eq!(told, [(Told::ForcedOpen, at(1)), (Told::Closed, at(3600))]);
}
