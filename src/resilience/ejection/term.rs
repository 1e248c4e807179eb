//! How long an endpoint is out, and how often it was: each time longer.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::resilience::{Moment, Why};

/// The times that an endpoint is out.
#[derive(Debug, Default)]
pub(crate) struct Term {
    /// How many count: each makes the next longer.
    times: AtomicU32,
    why: AtomicU8,
    /// Zero while it is in, or not yet known.
    until: AtomicU64,
    /// When it last came in again.
    ended: AtomicU64,
}

/// A term that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// The rule that says so.
    pub why: Why,
    /// When it ends.
    pub until: Moment,
    /// How many times in short order it was out, this one included.
    pub times: u32,
}

impl Term {
    /// Begins: `base` times how often it did, no more than `longest`. For whoever has just taken the endpoint out.
    pub(crate) fn begin(&self, why: Why, now: Moment, base: Duration, longest: Duration, jitter: Duration) -> Moment {
        let times = self.times.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let until = now + base.saturating_mul(times).min(longest.max(base)) + jitter;
        self.why.store(why as u8, Ordering::Relaxed);
        self.until.store(until.nanos().max(1), Ordering::Release);
        until
    }

    /// The term, if it runs.
    pub(crate) fn runs(&self) -> Option<Out> {
        let until = self.until.load(Ordering::Acquire);
        let why = Why::ALL.get(usize::from(self.why.load(Ordering::Relaxed))).copied()?;
        let times = self.times.load(Ordering::Relaxed);
        (until > 0).then(|| Out { why, until: Moment::from_nanos(until), times })
    }

    /// Ends. For whoever is about to let the endpoint in.
    pub(crate) fn end(&self, now: Moment) {
        self.ended.store(now.nanos(), Ordering::Relaxed);
        self.until.store(0, Ordering::Release);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.times.store(0, Ordering::Relaxed);
        self.until.store(0, Ordering::Release);
    }

    /// One time counts no more if it has been in for so long.
    pub(crate) fn decay(&self, after: Duration, now: Moment) {
        let ended = Moment::from_nanos(self.ended.load(Ordering::Relaxed));
        if self.until.load(Ordering::Relaxed) == 0 && now - ended >= after {
            let _ = self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1));
        }
    }

    /// No time counts any more.
    pub(crate) fn forgive(&self) {
        // Nearly always it is zero, and then nothing is written.
        if self.times.load(Ordering::Relaxed) != 0 && self.until.load(Ordering::Relaxed) == 0 {
            self.times.store(0, Ordering::Relaxed);
        }
    }
}
