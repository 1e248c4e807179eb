//! The breaker does what a simple one with a lock would do, and gives exactly as many permits as it may, whoever asks.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::tests::settings;
use super::*;

/// A breaker as one would write it down: a list of calls, and a state.
struct Model {
    settings: CircuitBreaker,
    state: State,
    ends: u64,
    epoch: u32,
    calls: VecDeque<(u64, Call)>,
    taken: u32,
}

impl Model {
    fn enter(&mut self, state: State, ends: u64) {
        (self.state, self.ends) = (state, ends);
        self.epoch += 1;
        self.calls.clear();
        self.taken = 0;
    }

    fn follow_clock(&mut self, now: u64, asked: bool) {
        match self.state {
            State::HalfOpen if now >= self.ends => self.enter(State::Open, now + 5_000),
            State::Open if asked && now >= self.ends => self.enter(State::HalfOpen, now + 1_000),
            _ => {}
        }
    }

    fn acquire(&mut self, now: u64) -> Option<u32> {
        self.follow_clock(now, true);
        match self.state {
            State::Open => return None,
            State::HalfOpen if self.taken >= 4 => return None,
            State::HalfOpen => self.taken += 1,
            State::Closed => {}
        }
        Some(self.epoch)
    }

    fn release(&mut self, epoch: u32) {
        if self.state == State::HalfOpen && epoch == self.epoch {
            self.taken -= 1;
        }
    }

    fn seen(&mut self, now: u64) -> Totals {
        if self.state == State::Closed {
            match self.settings.window {
                BreakerWindow::Calls(calls) => {
                    while self.calls.len() > calls as usize {
                        self.calls.pop_front();
                    }
                }
                BreakerWindow::Time(time) => {
                    let seconds = time.as_secs();
                    self.calls.retain(|(at, _)| at / 1_000 + seconds > now / 1_000);
                }
            }
        }
        self.calls.iter().fold(Totals::default(), |totals, (_, call)| Totals {
            calls: totals.calls + 1,
            failed: totals.failed + u32::from(call.failed),
            slow: totals.slow + u32::from(call.slow),
        })
    }

    fn record(&mut self, epoch: u32, call: Call, now: u64) {
        if epoch != self.epoch || self.state == State::Open {
            return;
        }
        self.calls.push_back((now, call));
        let totals = self.seen(now);
        let exceeded = totals.failed * 2 >= totals.calls || totals.slow * 2 >= totals.calls;
        match self.state {
            State::Closed if totals.calls >= 5 && exceeded => self.enter(State::Open, now + 5_000),
            State::HalfOpen if totals.calls >= 4 && exceeded => self.enter(State::Open, now + 5_000),
            State::HalfOpen if totals.calls >= 4 => self.enter(State::Closed, 0),
            _ => {}
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Acquire,
    Record(usize, Call),
    Release(usize),
    LookAfter,
}

fn step() -> impl Strategy<Value = Step> {
    let call = (0..3u8, 0..6u8).prop_map(|(failed, slow)| Call { failed: failed == 0, slow: slow == 0 });
    prop_oneof![
        2 => prop_oneof![4 => 0..1_500u64, 1 => 4_000..25_000u64].prop_map(Step::Pass),
        6 => Just(Step::Acquire),
        6 => (0..8usize, call).prop_map(|(which, call)| Step::Record(which, call)),
        1 => (0..8usize).prop_map(Step::Release),
        1 => Just(Step::LookAfter),
    ]
}

proptest! {
    #[test]
    fn it_is_what_a_simple_one_is(by_calls: bool, steps in proptest::collection::vec(step(), 1..400)) {
        let window = if by_calls { BreakerWindow::Calls(7) } else { BreakerWindow::Time(Duration::from_secs(6)) };
        let settings = CircuitBreaker { window, ..settings() };
        let breaker = Breaker::new(settings.clone(), 0);
        let mut model = Model { settings, state: State::Closed, ends: 0, epoch: 0, calls: VecDeque::new(), taken: 0 };
        let (mut now, mut out) = (0, Vec::new());
        let moment = |millis| Moment::default() + Duration::from_millis(millis);
        for step in steps {
            match step {
                Step::Pass(millis) => now += millis,
                Step::Acquire => {
                    let (permit, modelled) = (breaker.acquire(moment(now)).ok(), model.acquire(now));
                    prop_assert_eq!(permit.is_some(), modelled.is_some());
                    out.extend(permit.zip(modelled));
                }
                Step::Record(which, call) if which < out.len() => {
                    let (permit, modelled) = out.remove(which);
                    breaker.record(permit, call, moment(now));
                    model.record(modelled, call, now);
                }
                Step::Release(which) if which < out.len() => {
                    let (permit, modelled) = out.remove(which);
                    breaker.release(permit);
                    model.release(modelled);
                }
                Step::Record(..) | Step::Release(_) => {}
                Step::LookAfter => {
                    breaker.look_after(moment(now));
                    model.follow_clock(now, false);
                }
            }
            let look = breaker.look(moment(now));
            prop_assert_eq!(look.state, model.state);
            if look.state != State::Open {
                prop_assert_eq!(look.totals, model.seen(now));
            }
        }
    }
}

/// Threads that all ask at once get as many permits as there are, in each half-open state; and one of them opens it again.
#[test]
fn permits_are_exact_whoever_asks() {
    let settings = CircuitBreaker { permitted_in_half_open: 100, half_open_limit: None, ..settings() };
    let breaker = Breaker::new(settings, 0);
    let mut now = Moment::default();
    for _ in 0..5 {
        let permit = breaker.acquire(now).unwrap();
        breaker.record(permit, Call { failed: true, slow: false }, now);
    }
    for round in 0..50 {
        now = now + Duration::from_secs(5);
        let generation = breaker.state().1;
        let (taken, returned) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..60 {
                        let Ok(permit) = breaker.acquire(now) else { continue };
                        taken.fetch_add(1, Ordering::Relaxed);
                        if turn % 5 == 0 {
                            breaker.release(permit);
                            returned.fetch_add(1, Ordering::Relaxed);
                        } else {
                            breaker.record(permit, Call { failed: true, slow: false }, now);
                        }
                    }
                });
            }
        });
        // What is left is taken here, one after the other.
        while let Ok(permit) = breaker.acquire(now) {
            taken.fetch_add(1, Ordering::Relaxed);
            breaker.record(permit, Call { failed: true, slow: false }, now);
        }
        let (taken, returned) = (taken.load(Ordering::Relaxed), returned.load(Ordering::Relaxed));
        assert_eq!(taken - returned, 100, "round {round}");
        assert_eq!(breaker.state().1, generation.wrapping_add(2), "half-open, and open again");
        assert_eq!(breaker.look(now).state, State::Open);
    }
}

/// Calls that several threads count are all counted.
#[test]
fn windows_lose_no_call() {
    for window in [BreakerWindow::Calls(1000), BreakerWindow::Time(Duration::from_secs(10))] {
        let breaker = Breaker::new(CircuitBreaker { mode: BreakerMode::MetricsOnly, window, ..settings() }, 0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let breaker = &breaker;
                scope.spawn(move || {
                    for call in 0..5_000u64 {
                        let now = Moment::default() + Duration::from_millis(call);
                        let permit = breaker.acquire(now).unwrap();
                        breaker.record(permit, Call { failed: thread == 0, slow: call % 2 == 0 }, now);
                    }
                });
            }
        });
        let totals = breaker.look(Moment::default() + Duration::from_secs(5)).totals;
        match window {
            BreakerWindow::Calls(calls) => assert_eq!(totals.calls, calls),
            BreakerWindow::Time(_) => assert_eq!(totals, Totals { calls: 20_000, failed: 5_000, slow: 10_000 }),
        }
    }
}
