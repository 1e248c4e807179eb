//! A circuit breaker, as Resilience4j has it: closed, open, half-open, and by configuration forced open, disabled or only counting.
//! A state machine without clock and lock: whoever takes permits and reports outcomes says the time, and changes of state are
//! compare-exchanges of one word.
//!
//! A permit belongs to the state in which it was taken, and so does its outcome: what began before a breaker opened says nothing
//! of whether it may close.

mod window;
mod word;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::window::Window;
pub use self::window::{Call, Totals};
pub use self::word::State;
use self::word::{MOST_PERMITS, Trial, Word};
use super::Moment;
use crate::snapshot::{BreakerMode, BreakerWindow, CircuitBreaker};

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    settings: CircuitBreaker,
    /// What makes its jitter its own.
    seed: u64,
    word: AtomicU64,
    trial: Trial,
    /// The calls that it opened for, 21 bits each.
    tripped: AtomicU64,
    window: Arc<Window>,
    not_permitted: Arc<AtomicU64>,
}

/// Leave to call. Whoever has it says what came of it, once, or gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Permit {
    generation: u16,
    /// Whether it is one of the few of a half-open state.
    pub trial: bool,
}

/// No leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPermitted {
    /// When to come back, if that is known.
    pub retry_after: Option<Duration>,
}

/// What can be seen of a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// What it does with what it sees.
    pub mode: BreakerMode,
    /// Its state, if the mode is automatic.
    pub state: State,
    /// How long the state lasts at most.
    pub left: Option<Duration>,
    /// The calls it judges by: of an open one, those that it opened for.
    pub totals: Totals,
    /// Permits that a half-open one still has.
    pub permits: u32,
    /// Calls that got no permit.
    pub not_permitted: u64,
}

impl Breaker {
    /// A closed one. Two with the same seed have the same jitter.
    pub fn new(settings: CircuitBreaker, seed: u64) -> Self {
        Breaker {
            window: Arc::new(Window::new(settings.window)),
            settings,
            seed,
            word: AtomicU64::new(0),
            trial: Trial::default(),
            tripped: AtomicU64::new(0),
            not_permitted: Arc::default(),
        }
    }

    /// Counts the calls that it does not permit there.
    pub(super) fn counting_in(self, not_permitted: Arc<AtomicU64>) -> Self {
        Breaker { not_permitted, ..self }
    }

    /// One with other settings in the same state: an open one stays open until it would have been over; one that was finding
    /// out begins to anew; and what a closed one has seen counts on if its window is the same.
    pub fn reconfigured(&self, settings: CircuitBreaker) -> Self {
        let word = self.load();
        let automatic = settings.mode == BreakerMode::Automatic && self.settings.mode == BreakerMode::Automatic;
        let next = match word.state() {
            State::HalfOpen if automatic => {
                Word::new(State::HalfOpen, word.openings(), next_generation(word), word.ends().unwrap_or(0))
            }
            State::Open if automatic => word,
            State::Closed => word,
            State::Open | State::HalfOpen => closed(word),
        };
        let mut new = Breaker::new(settings, self.seed);
        if new.settings.window == self.settings.window {
            new.window = Arc::clone(&self.window);
        }
        new.word = AtomicU64::new(next.0);
        new.tripped = AtomicU64::new(self.tripped.load(Ordering::Relaxed));
        new.not_permitted = Arc::clone(&self.not_permitted);
        new
    }

    /// Its settings.
    pub fn settings(&self) -> &CircuitBreaker {
        &self.settings
    }

    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Asks for leave to call.
    ///
    /// # Errors
    /// It is open, or has no permit left.
    pub fn acquire(&self, now: Moment) -> Result<Permit, NotPermitted> {
        let retry_after = match self.settings.mode {
            BreakerMode::ForcedOpen => None,
            BreakerMode::Automatic | BreakerMode::MetricsOnly | BreakerMode::Disabled => match self.ask(now) {
                Ok(permit) => return Ok(permit),
                Err(left) => Some(left),
            },
        };
        self.not_permitted.fetch_add(1, Ordering::Relaxed);
        Err(NotPermitted { retry_after })
    }

    fn ask(&self, now: Moment) -> Result<Permit, Duration> {
        // Each further round is another's change of state.
        loop {
            let word = self.load();
            let generation = word.generation();
            match word.state() {
                State::Closed => return Ok(Permit { generation, trial: false }),
                State::Open if word.is_over(millis(now)) => self.change(word, half_open(&self.settings, word, now)),
                State::HalfOpen if word.is_over(millis(now)) => self.give_up(word, now),
                State::HalfOpen if self.trial.take(generation, self.permits()) => {
                    return Ok(Permit { generation, trial: true });
                }
                State::Open | State::HalfOpen => return Err(left(word, now).unwrap_or_default()),
            }
        }
    }

    /// Nothing is known of the call: it is as if there had been none.
    pub fn release(&self, permit: Permit) {
        if permit.trial {
            self.trial.give_back(permit.generation);
        }
    }

    /// Learns what became of a call.
    pub fn record(&self, permit: Permit, call: Call, now: Moment) {
        let word = self.load();
        if word.generation() != permit.generation || self.settings.mode == BreakerMode::Disabled {
            return;
        }
        match word.state() {
            State::Closed => self.count(word, call, now),
            State::HalfOpen => {
                let Some(totals) = self.trial.record(permit.generation, call) else { return };
                if totals.calls >= self.permits() {
                    let next = match self.is_exceeded(totals, 1) {
                        true => self.open(word, totals, now),
                        false => closed(word),
                    };
                    self.change(word, next);
                }
            }
            State::Open => {}
        }
    }

    /// Learns that an answer was cut that had begun well. That is one more call, which failed: its permit was for its beginning.
    /// While the breaker is finding out, it spoils what the call said of itself.
    pub fn cut(&self, permit: Permit, now: Moment) {
        let word = self.load();
        match word.state() {
            State::Closed if self.settings.mode != BreakerMode::Disabled => {
                self.count(word, Call { failed: true, slow: false }, now);
            }
            State::HalfOpen if word.generation() == permit.generation => self.trial.spoil(permit.generation),
            State::Closed | State::Open | State::HalfOpen => {}
        }
    }

    fn count(&self, word: Word, call: Call, now: Moment) {
        let Some(totals) = self.window.record(word.generation(), call, now) else { return };
        if self.settings.mode == BreakerMode::Automatic && self.is_exceeded(totals, self.minimum()) {
            self.change(word, self.open(word, totals, now));
        }
    }

    /// A state that lasts as long as it may ends, unless requests must come for that.
    pub fn look_after(&self, now: Moment) {
        let word = self.load();
        if word.state() == State::HalfOpen && word.is_over(millis(now)) {
            self.give_up(word, now);
        }
    }

    /// Whether it would refuse a call, without asking for a permit.
    pub fn refuses(&self, now: Moment) -> bool {
        let word = self.load();
        match (self.settings.mode, word.state()) {
            (BreakerMode::ForcedOpen, _) => true,
            (_, State::Closed) => false,
            (_, State::Open) => !word.is_over(millis(now)),
            (_, State::HalfOpen) => !word.is_over(millis(now)) && self.trial.taken(word.generation()) >= self.permits(),
        }
    }

    /// Its state, and a number that changes with every change of state.
    pub(super) fn state(&self) -> (State, u16) {
        let word = self.load();
        (word.state(), word.generation())
    }

    /// What can be seen of it.
    pub fn look(&self, now: Moment) -> Look {
        let word = self.load();
        let (state, generation) = (word.state(), word.generation());
        let totals = match state {
            State::Closed => self.window.totals(generation, now),
            State::HalfOpen => self.trial.totals(generation),
            State::Open => unpack(self.tripped.load(Ordering::Acquire)),
        };
        let permits = match state {
            State::HalfOpen => self.permits().saturating_sub(self.trial.taken(generation)),
            State::Closed | State::Open => 0,
        };
        let not_permitted = self.not_permitted.load(Ordering::Relaxed);
        Look { mode: self.settings.mode, state, left: left(word, now), totals, permits, not_permitted }
    }

    fn permits(&self) -> u32 {
        self.settings.permitted_in_half_open.clamp(1, MOST_PERMITS)
    }

    /// How many calls it takes to judge; never more than there can be.
    fn minimum(&self) -> u32 {
        match self.settings.window {
            BreakerWindow::Calls(calls) => self.settings.minimum_calls.min(calls),
            BreakerWindow::Time(_) => self.settings.minimum_calls,
        }
    }

    /// Resilience4j: "If the failure rate is equal to or greater than the threshold, the CircuitBreaker transitions to open".
    fn is_exceeded(&self, totals: Totals, minimum: u32) -> bool {
        let share = |part: u32, percent: u8| u64::from(part) * 100 >= u64::from(percent) * u64::from(totals.calls);
        totals.calls >= minimum.max(1)
            && (share(totals.failed, self.settings.failure_rate_percent)
                || share(totals.slow, self.settings.slow_call_rate_percent))
    }

    /// It did not find out in time.
    fn give_up(&self, word: Word, now: Moment) {
        let totals = self.trial.totals(word.generation());
        let next = match self.settings.half_open_limit {
            Some(limit) if limit.then_closes => closed(word),
            _ => self.open(word, totals, now),
        };
        self.change(word, next);
    }

    /// The open state that comes after another. It lasts longer each time that calls have failed.
    fn open(&self, word: Word, totals: Totals, now: Moment) -> Word {
        let again = word.state() == State::HalfOpen && (totals.failed > 0 || totals.slow > 0);
        let openings = word.openings().saturating_add(u8::from(again));
        let generation = next_generation(word);
        self.tripped.store(packed(totals), Ordering::Release);
        let wait = self.wait(openings, generation);
        Word::new(State::Open, openings, generation, (now + wait).nanos().div_ceil(MILLI).max(1))
    }

    fn wait(&self, openings: u8, generation: u16) -> Duration {
        let wait = self.settings.wait;
        let mut time = wait.first.as_nanos();
        let most = wait.most.max(wait.first).as_nanos();
        for _ in 0..openings {
            if time >= most {
                break;
            }
            time = time * u128::from(wait.growth_percent) / 100;
        }
        let time = time.min(most);
        // From so much less to so much more, evenly.
        let thousandths = u128::from(scatter(self.seed, generation) % 2001);
        let jitter = time * u128::from(wait.jitter_percent.min(100)) / 100;
        let time = (time - jitter) + jitter * thousandths / 1000;
        Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX))
    }

    /// One of those who try this at once does it.
    fn change(&self, from: Word, to: Word) {
        let changed = self.word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if changed
            && to.state() == State::Closed
            && let Window::Calls(ring) = &*self.window
        {
            ring.forget(to.generation());
        }
    }
}

impl Look {
    /// The share of failures in percent, unless there are too few calls to tell.
    pub fn failure_rate(&self, settings: &CircuitBreaker) -> Option<f64> {
        self.rate(self.totals.failed, settings)
    }

    /// The share of slow calls in percent, unless there are too few calls to tell.
    pub fn slow_call_rate(&self, settings: &CircuitBreaker) -> Option<f64> {
        self.rate(self.totals.slow, settings)
    }

    fn rate(&self, part: u32, settings: &CircuitBreaker) -> Option<f64> {
        let minimum = match (self.state, settings.window) {
            (State::Closed, BreakerWindow::Calls(calls)) => settings.minimum_calls.min(calls),
            (State::Closed, BreakerWindow::Time(_)) => settings.minimum_calls,
            (State::HalfOpen, _) => settings.permitted_in_half_open,
            (State::Open, _) => 1,
        };
        let calls = self.totals.calls;
        (calls >= minimum.max(1)).then(|| f64::from(part) * 100.0 / f64::from(calls))
    }
}

fn next_generation(word: Word) -> u16 {
    word.generation().wrapping_add(1)
}

fn closed(word: Word) -> Word {
    Word::new(State::Closed, 0, next_generation(word), 0)
}

fn half_open(settings: &CircuitBreaker, word: Word, now: Moment) -> Word {
    let ends = settings.half_open_limit.map_or(0, |limit| (now + limit.time).nanos().div_ceil(MILLI).max(1));
    Word::new(State::HalfOpen, word.openings(), next_generation(word), ends)
}

const MILLI: u64 = 1_000_000;

fn millis(now: Moment) -> u64 {
    now.nanos() / MILLI
}

fn left(word: Word, now: Moment) -> Option<Duration> {
    word.ends().map(|ends| Moment::from_nanos(ends.saturating_mul(MILLI)) - now)
}

const TOTAL: u32 = (1 << 21) - 1;

fn packed(Totals { calls, failed, slow }: Totals) -> u64 {
    [calls, failed, slow].iter().fold(0, |word, count| word << 21 | u64::from(*count.min(&TOTAL)))
}

fn unpack(word: u64) -> Totals {
    let count = |shift: u32| (word >> shift) as u32 & TOTAL;
    Totals { calls: count(42), failed: count(21), slow: count(0) }
}

/// A number that looks random (Vigna, splitmix64).
fn scatter(seed: u64, generation: u16) -> u64 {
    let mut mixed = seed.wrapping_add(u64::from(generation).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod laws_tests;
#[cfg(test)]
mod tests;
