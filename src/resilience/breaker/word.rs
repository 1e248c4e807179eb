//! The two words of a breaker: its state, and the calls that are let through while it is half-open.

use std::sync::atomic::{AtomicU64, Ordering};

use super::window::{Call, Totals};

/// What a breaker does just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Lets everything through.
    Closed,
    /// Lets nothing through.
    Open,
    /// Lets a few through, to find out whether it may close.
    HalfOpen,
}

/// State (2 bits), openings since it was last closed (8), generation (16), and when the state ends, in milliseconds (38, enough
/// for eight years); zero does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

const DEADLINE: u64 = (1 << 38) - 1;

impl Word {
    pub(super) fn new(state: State, openings: u8, generation: u16, ends: u64) -> Self {
        Word((state as u64) << 62 | u64::from(openings) << 54 | u64::from(generation) << 38 | ends.min(DEADLINE))
    }

    pub(super) fn state(self) -> State {
        match self.0 >> 62 {
            0 => State::Closed,
            1 => State::Open,
            _ => State::HalfOpen,
        }
    }

    pub(super) fn openings(self) -> u8 {
        (self.0 >> 54) as u8
    }

    pub(super) fn generation(self) -> u16 {
        (self.0 >> 38) as u16
    }

    /// When it ends, in milliseconds.
    pub(super) fn ends(self) -> Option<u64> {
        Some(self.0 & DEADLINE).filter(|ends| *ends > 0)
    }

    pub(super) fn is_over(self, now: u64) -> bool {
        self.ends().is_some_and(|ends| ends <= now)
    }
}

/// The calls of a half-open state: generation (16 bits); permits taken, outcomes, failures and slow calls (12 each).
#[derive(Debug, Default)]
pub(super) struct Trial(AtomicU64);

/// The most permits that a half-open state can have.
pub(super) const MOST_PERMITS: u32 = 1000;

const PART: u64 = 0xfff;
const TAKEN: u64 = 1 << 36;
const CALLS: u64 = 1 << 24;
const FAILED: u64 = 1 << 12;
const SLOW: u64 = 1;

fn part(word: u64, unit: u64) -> u32 {
    ((word / unit) & PART) as u32
}

/// The word as this generation sees it: what an older one left is nothing. `None` to those who come too late.
fn current(word: u64, generation: u16) -> Option<u64> {
    match ((word >> 48) as u16).wrapping_sub(generation) as i16 {
        0 => Some(word),
        ahead if ahead > 0 => None,
        _ => Some(u64::from(generation) << 48),
    }
}

impl Trial {
    fn update(&self, generation: u16, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let change = |word| current(word, generation).and_then(&change);
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).ok()?;
        change(before)
    }

    fn load(&self, generation: u16) -> u64 {
        current(self.0.load(Ordering::Acquire), generation).unwrap_or(u64::from(generation) << 48)
    }

    /// Takes one of so many permits.
    pub(super) fn take(&self, generation: u16, permits: u32) -> bool {
        self.update(generation, |word| (part(word, TAKEN) < permits).then_some(word + TAKEN)).is_some()
    }

    /// Gives a permit back that came to nothing.
    pub(super) fn give_back(&self, generation: u16) {
        let _ = self.update(generation, |word| (part(word, TAKEN) > 0).then(|| word - TAKEN));
    }

    /// A call is over that had a permit.
    pub(super) fn record(&self, generation: u16, call: Call) -> Option<Totals> {
        let more = CALLS + if call.failed { FAILED } else { 0 } + if call.slow { SLOW } else { 0 };
        self.update(generation, |word| (part(word, CALLS) < MOST_PERMITS).then_some(word + more)).map(totals)
    }

    /// A call that had begun well did not end well.
    pub(super) fn spoil(&self, generation: u16) {
        let _ = self.update(generation, |word| (part(word, FAILED) < part(word, CALLS)).then_some(word + FAILED));
    }

    pub(super) fn totals(&self, generation: u16) -> Totals {
        totals(self.load(generation))
    }

    /// Permits that were taken.
    pub(super) fn taken(&self, generation: u16) -> u32 {
        part(self.load(generation), TAKEN)
    }
}

fn totals(word: u64) -> Totals {
    Totals { calls: part(word, CALLS), failed: part(word, FAILED), slow: part(word, SLOW) }
}
