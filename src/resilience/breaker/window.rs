//! The calls that a breaker judges by: the last so many, or those of the last so long. No lock: whoever records a call gets the
//! totals that it is part of.
//!
//! Every entry names the generation of the state that it belongs to, so that a new state begins with nothing and a call of an
//! old one that comes late is not counted.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::resilience::Moment;
use crate::snapshot::BreakerWindow;

/// What a call was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// It failed.
    pub failed: bool,
    /// Its first byte took too long.
    pub slow: bool,
}

/// Calls added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All of them.
    pub calls: u32,
    /// Those that failed.
    pub failed: u32,
    /// Those that were slow.
    pub slow: u32,
}

#[derive(Debug)]
pub(super) enum Window {
    Calls(Ring),
    Time(Buckets),
}

impl Window {
    pub(super) fn new(size: BreakerWindow) -> Self {
        match size {
            BreakerWindow::Calls(calls) => Window::Calls(Ring::new(calls)),
            BreakerWindow::Time(time) => Window::Time(Buckets::new(time)),
        }
    }

    /// Counts a call. Says what the window has then, or nothing if that is nothing but good.
    pub(super) fn record(&self, generation: u16, call: Call, now: Moment) -> Option<Totals> {
        match self {
            Window::Calls(ring) => Some(ring.record(generation, call)),
            Window::Time(buckets) => buckets.record(generation, call, now),
        }
    }

    pub(super) fn totals(&self, generation: u16, now: Moment) -> Totals {
        match self {
            Window::Calls(ring) => ring.totals(generation),
            Window::Time(buckets) => buckets.totals(generation, now),
        }
    }
}

/// The last so many calls. A slot is 14 bits of the generation, of which zero is none, and what the call was.
#[derive(Debug)]
pub(super) struct Ring {
    next: AtomicU64,
    slots: Box<[AtomicU16]>,
    /// Generation, calls, failed and slow, 16 bits each.
    totals: AtomicU64,
}

const FAILED: u16 = 1;
const SLOW: u16 = 2;
const TAG: u16 = !(FAILED | SLOW);
/// So many generations have tags of their own.
const TAGS: u16 = 0x3fff;

/// What a generation is in a slot.
fn tag(generation: u16) -> u16 {
    (generation % TAGS + 1) << 2
}

/// Whether a slot is a later state's.
fn is_later_tag(one: u16, than: u16) -> bool {
    one != 0 && (1..TAGS / 2).contains(&(((one >> 2) + TAGS - (than >> 2)) % TAGS))
}

impl Ring {
    fn new(calls: u32) -> Self {
        // Totals have 15 bits, because a sum may be below zero while others are being written.
        let slots = (0..calls.clamp(1, 1 << 14)).map(|_| AtomicU16::new(0)).collect();
        Ring { next: AtomicU64::new(0), slots, totals: AtomicU64::new(0) }
    }

    fn record(&self, generation: u16, call: Call) -> Totals {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = &self.slots[(next % self.slots.len() as u64) as usize];
        let tag = tag(generation);
        let new = tag | if call.failed { FAILED } else { 0 } | if call.slow { SLOW } else { 0 };
        let keep = |old: u16| (!is_later_tag(old & TAG, tag)).then_some(new);
        let Ok(old) = slot.fetch_update(Ordering::AcqRel, Ordering::Acquire, keep) else { return Totals::default() };
        let gone = old & TAG == tag;
        let after = |word: u64| {
            // What an older state counted does not count any more.
            let [_, calls, failed, slow] = if fields(word)[0] == generation { fields(word) } else { [0; 4] };
            let less = |count: u16, bit: u16| count.wrapping_sub(u16::from(gone && old & bit != 0));
            pack([
                generation,
                calls.wrapping_add(1).wrapping_sub(u16::from(gone)),
                less(failed, FAILED).wrapping_add(call.failed.into()),
                less(slow, SLOW).wrapping_add(call.slow.into()),
            ])
        };
        let update = |word| (!is_later(fields(word)[0], generation)).then(|| after(word));
        match self.totals.fetch_update(Ordering::AcqRel, Ordering::Acquire, update) {
            Ok(before) => sum(after(before)),
            Err(_) => Totals::default(),
        }
    }

    fn totals(&self, generation: u16) -> Totals {
        let word = self.totals.load(Ordering::Acquire);
        if fields(word)[0] == generation { sum(word) } else { Totals::default() }
    }

    /// Makes room for generations that will have the same tags as old ones.
    pub(super) fn forget(&self, generation: u16) {
        let tag = tag(generation);
        for slot in &self.slots {
            let old = slot.load(Ordering::Relaxed);
            if old & TAG != tag {
                // Whoever was faster wrote something newer.
                let _ = slot.compare_exchange(old, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}

/// Whether one generation comes after another. They come round after 65,536 changes of state.
fn is_later(one: u16, than: u16) -> bool {
    (one.wrapping_sub(than) as i16) > 0
}

fn pack([first, second, third, fourth]: [u16; 4]) -> u64 {
    u64::from(first) << 48 | u64::from(second) << 32 | u64::from(third) << 16 | u64::from(fourth)
}

fn fields(word: u64) -> [u16; 4] {
    [(word >> 48) as u16, (word >> 32) as u16, (word >> 16) as u16, word as u16]
}

fn sum(word: u64) -> Totals {
    let [_, calls, failed, slow] = fields(word);
    let count = |count: u16| u32::try_from(count as i16).unwrap_or(0);
    Totals { calls: count(calls), failed: count(failed), slow: count(slow) }
}

/// Buckets of a time window at most; a longer one than so many seconds has longer buckets.
const MOST_BUCKETS: u64 = 40;
const SECOND: u64 = 1_000_000_000;

/// The calls of the last so long, in buckets of a second, as Resilience4j has them: the current one and those before it.
#[derive(Debug)]
pub(super) struct Buckets {
    buckets: Box<[Bucket]>,
    /// How long a bucket is, in nanoseconds.
    length: u64,
    /// When something bad was last seen, as the number of its bucket and one.
    bad: AtomicU32,
}

/// Three counts, each beside the stamp of what it counts.
#[derive(Debug, Default)]
struct Bucket {
    calls: Stamped,
    failed: Stamped,
    slow: Stamped,
}

/// A count in the lower half; in the upper one 8 bits of the generation and 24 of the number of the bucket since the origin.
#[derive(Debug, Default)]
struct Stamped(AtomicU64);

const TICKS: u32 = 0x00ff_ffff;
/// By how many buckets somebody may be late.
const LATE: u32 = 1024;

impl Stamped {
    fn add(&self, stamp: u32) {
        // A stamp that is later than ours belongs to those who come after: ours is too old to be counted.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let held = (word >> 32) as u32;
            if held == stamp {
                return Some(if word as u32 == u32::MAX { word } else { word + 1 });
            }
            let ahead = held.wrapping_sub(stamp) & TICKS;
            let generation = (held >> 24).wrapping_sub(stamp >> 24) as u8;
            // Nobody is late by more; what seems further ahead is from long ago.
            let later = word != 0 && ((1..LATE).contains(&ahead) || ahead == 0 && (generation as i8) > 0);
            (!later).then_some(u64::from(stamp) << 32 | 1)
        });
    }

    /// The count, if it is of this generation and at most so many buckets old.
    fn value(&self, stamp: u32, buckets: u32) -> u32 {
        let word = self.0.load(Ordering::Acquire);
        let held = (word >> 32) as u32;
        let age = stamp.wrapping_sub(held) & TICKS;
        if held >> 24 == stamp >> 24 && age < buckets { word as u32 } else { 0 }
    }
}

impl Buckets {
    fn new(time: std::time::Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(SECOND);
        let buckets = nanos.div_ceil(SECOND).min(MOST_BUCKETS);
        Buckets {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            length: nanos.div_ceil(buckets),
            bad: AtomicU32::new(0),
        }
    }

    fn tick(&self, now: Moment) -> u64 {
        now.nanos() / self.length
    }

    fn stamp(generation: u16, tick: u64) -> u32 {
        u32::from(generation as u8) << 24 | (tick as u32 & TICKS)
    }

    fn record(&self, generation: u16, call: Call, now: Moment) -> Option<Totals> {
        let tick = self.tick(now);
        let stamp = Self::stamp(generation, tick);
        let bucket = &self.buckets[(tick % self.buckets.len() as u64) as usize];
        if call.failed {
            bucket.failed.add(stamp);
        }
        if call.slow {
            bucket.slow.add(stamp);
        }
        bucket.calls.add(stamp);
        let number = u32::try_from(tick).unwrap_or(u32::MAX - 1) + 1;
        if call.failed || call.slow {
            self.bad.fetch_max(number, Ordering::AcqRel);
        } else {
            // While all is well, which is nearly always, nobody adds up anything.
            let bad = self.bad.load(Ordering::Acquire);
            if bad == 0 || number.saturating_sub(bad) as usize >= self.buckets.len() {
                return None;
            }
        }
        Some(self.totals(generation, now))
    }

    fn totals(&self, generation: u16, now: Moment) -> Totals {
        let stamp = Self::stamp(generation, self.tick(now));
        let most = self.buckets.len() as u32;
        self.buckets.iter().fold(Totals::default(), |all, bucket| Totals {
            calls: all.calls.saturating_add(bucket.calls.value(stamp, most)),
            failed: all.failed.saturating_add(bucket.failed.value(stamp, most)),
            slow: all.slow.saturating_add(bucket.slow.value(stamp, most)),
        })
    }
}
