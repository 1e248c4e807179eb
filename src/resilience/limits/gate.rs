//! A number of places, of which no more are taken than there are, whoever takes them.

use std::sync::atomic::{AtomicU32, Ordering};

/// Stands for no limit.
const UNLIMITED: u32 = u32::MAX;

/// Places, counted exactly across threads. Orderings are sequentially consistent, because whoever gives a place back looks
/// next whether anyone waits, and whoever begins to wait looks next whether there is a place: one of them sees the other.
#[derive(Debug)]
pub struct Gate {
    limit: AtomicU32,
    taken: AtomicU32,
}

impl Default for Gate {
    fn default() -> Self {
        Gate { limit: AtomicU32::new(UNLIMITED), taken: AtomicU32::new(0) }
    }
}

impl Gate {
    /// How many places there are; `None` without a limit.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Ordering::SeqCst)).filter(|limit| *limit != UNLIMITED)
    }

    /// How many places are taken. After a limit was lowered, that may be more than there are.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::SeqCst)
    }

    /// Whether a place is free.
    pub fn has_room(&self) -> bool {
        self.taken() < self.limit.load(Ordering::SeqCst)
    }

    /// Sets the number of places. Places that are taken stay so.
    pub(in crate::resilience) fn resize(&self, limit: Option<u32>) {
        self.limit.store(limit.unwrap_or(UNLIMITED), Ordering::SeqCst);
    }

    /// Takes a place, unless all are taken.
    pub(in crate::resilience) fn try_take(&self) -> bool {
        self.try_take_of(UNLIMITED)
    }

    /// Takes a place, unless all are taken, or `most`.
    pub(in crate::resilience) fn try_take_of(&self, most: u32) -> bool {
        let limit = self.limit.load(Ordering::SeqCst).min(most);
        let more = |taken: u32| (taken < limit).then(|| taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Gives a place back.
    pub(in crate::resilience) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
    }
}
