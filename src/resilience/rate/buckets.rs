//! Token buckets, one for each key, by the generic cell rate algorithm: of a bucket one number is kept, when it will be full again.
//! Whoever takes a token moves that on by the time that a token takes to come back, and may do so as long as it does not get
//! farther away than it takes to fill the bucket.
//!
//! The buckets of a limit lie in sets of eight, where the hash of its key says: memory has a bound, and nothing ever grows or is moved.
//! For a key that is known, a token is taken by one compare-and-swap. A new one takes the lock of its set, and a place that is
//! free, or whose bucket is full, which is no loss. If there is none, the bucket goes that is the nearest to being full: a flood of new
//! keys, each with a token or two taken, drives out itself, and not whoever has used up what they had.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::resilience::Moment;

/// Buckets in a set.
const WAYS: usize = 8;
/// Sets that are made at once, when the first of them has a key.
const CHUNK: usize = 8;
/// There is room for more keys than there may be, so that hardly any set is full before all are.
const ROOM: usize = 2;

/// How fast tokens come, and how many fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The time that a token takes to come back, in nanoseconds; at least 1.
    pub(super) token: u64,
    /// The time that an empty bucket takes to fill.
    pub(super) depth: u64,
}

/// What is left to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Whole tokens.
    pub tokens: u64,
    /// When the bucket is full again.
    pub full_in: Duration,
}

impl Rate {
    /// So many requests in that time, and so many at once. Whatever the numbers, a bucket is full within two years.
    pub fn new(requests: u32, per: Duration, burst: u32) -> Self {
        // Rounded up: never more than asked for.
        let token = per.as_nanos().div_ceil(u128::from(requests.max(1))).clamp(1, u128::from(LONGEST)) as u64;
        Rate { token, depth: token.saturating_mul(u64::from(burst.max(1))).min(LONGEST) }
    }

    /// The time that a token takes to come back, and the time that an empty bucket takes to fill.
    pub fn times(self) -> (Duration, Duration) {
        (Duration::from_nanos(self.token), Duration::from_nanos(self.depth))
    }

    /// What is left in a bucket that is full in so long.
    pub fn left_of(self, full_in: Duration) -> Left {
        self.left(u64::try_from(full_in.as_nanos()).unwrap_or(u64::MAX), 0)
    }

    /// When a bucket is full from which one token more is taken.
    fn take(self, full: u64, now: u64) -> Result<u64, Duration> {
        let then = full.max(now).saturating_add(self.token);
        let after = then - now;
        if after > self.depth { Err(Duration::from_nanos(after - self.depth)) } else { Ok(then) }
    }

    pub(super) fn left(self, full: u64, now: u64) -> Left {
        let missing = full.saturating_sub(now);
        Left { tokens: self.depth.saturating_sub(missing) / self.token, full_in: Duration::from_nanos(missing) }
    }
}

/// Two years, so that times fit beside generations: 60 bits are 36 years.
const LONGEST: u64 = 2 * 365 * 24 * 3600 * 1_000_000_000;

/// When a bucket is full, and which use of its place it is, so that nobody takes one use for another.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    const GENERATIONS: u32 = 4;

    fn full(self) -> u64 {
        self.0 >> Word::GENERATIONS
    }

    fn with(self, full: u64) -> Word {
        let generation = self.0 & ((1 << Word::GENERATIONS) - 1);
        Word(full << Word::GENERATIONS | generation)
    }

    /// The same place for another key.
    fn next(self, full: u64) -> Word {
        let generation = self.0.wrapping_add(1) & ((1 << Word::GENERATIONS) - 1);
        Word(full << Word::GENERATIONS | generation)
    }
}

/// Buckets of keys whose hashes lead here. A key of 0 is a place that is free, or between two keys.
#[derive(Debug, Default)]
struct Set {
    keys: [AtomicU64; WAYS],
    words: [AtomicU64; WAYS],
    /// Held by whoever changes keys.
    changing: Mutex<()>,
}

type Chunk = Box<[Set; CHUNK]>;

/// The buckets of all keys of a limit.
#[derive(Debug)]
pub(super) struct Buckets {
    chunks: Box<[OnceLock<Chunk>]>,
}

impl Buckets {
    /// Room for so many keys, at least.
    pub(super) fn new(keys: u32) -> Self {
        let chunks = (keys as usize * ROOM).div_ceil(WAYS * CHUNK).max(1);
        Buckets { chunks: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    fn set(&self, key: u64) -> &Set {
        let place = ((u128::from(key) * (self.chunks.len() * CHUNK) as u128) >> 64) as usize;
        &self.chunks[place / CHUNK].get_or_init(Chunk::default)[place % CHUNK]
    }

    /// Takes a token of a key.
    ///
    /// # Errors
    /// There is none: how long it takes until there is one.
    pub(super) fn take(&self, rate: &Rate, key: u64, now: Moment) -> Result<Left, Duration> {
        let (key, now) = (key.max(1), now.nanos());
        let set = self.set(key);
        if let Some(taken) = set.take(rate, key, now) {
            return taken;
        }
        let _changing = set.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster.
        if let Some(taken) = set.take(rate, key, now) {
            return taken;
        }
        let full = rate.take(0, now)?;
        set.replace(key, full);
        Ok(rate.left(full, now))
    }

    /// Gives a token back.
    pub(super) fn give_back(&self, rate: &Rate, key: u64) {
        let key = key.max(1);
        let _ = self.set(key).change(key, |full| Ok::<_, ()>(full.saturating_sub(rate.token)));
    }

    /// How many are not full.
    pub(super) fn in_use(&self, now: Moment) -> usize {
        let sets = self.chunks.iter().filter_map(OnceLock::get).flat_map(|chunk| chunk.iter());
        let words = sets.flat_map(|set| &set.words).map(|word| Word(word.load(Ordering::Relaxed)));
        words.filter(|word| word.full() > now.nanos()).count()
    }
}

impl Set {
    fn take(&self, rate: &Rate, key: u64, now: u64) -> Option<Result<Left, Duration>> {
        let taken = self.change(key, |full| rate.take(full, now))?;
        Some(taken.map(|full| rate.left(full, now)))
    }

    /// Changes when the bucket of a key is full, if it has one here. A key is looked at before and after its word, and goes before
    /// its word does: a word that is still the same is that of the key.
    fn change<E>(&self, key: u64, change: impl Fn(u64) -> Result<u64, E>) -> Option<Result<u64, E>> {
        let at = self.keys.iter().position(|kept| kept.load(Ordering::Acquire) == key)?;
        let (kept, word) = (&self.keys[at], &self.words[at]);
        loop {
            let before = Word(word.load(Ordering::Acquire));
            if kept.load(Ordering::Acquire) != key {
                return None;
            }
            let full = match change(before.full()) {
                Ok(full) => full,
                Err(error) => return Some(Err(error)),
            };
            let after = before.with(full);
            if word.compare_exchange_weak(before.0, after.0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(Ok(full));
            }
        }
    }

    /// Gives a key the place of another, or a free one. Only for who holds the lock.
    fn replace(&self, key: u64, full: u64) {
        // Free places come first: their buckets were never anything but full.
        let soonest = |(_, word): &(usize, &AtomicU64)| Word(word.load(Ordering::Relaxed)).full();
        let Some((at, word)) = self.words.iter().enumerate().min_by_key(soonest) else { return };
        self.keys[at].store(0, Ordering::Release);
        let next = |before| Some(Word(before).next(full).0);
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
        self.keys[at].store(key, Ordering::Release);
    }
}
