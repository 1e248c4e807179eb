//! How many exchanges a key has at once. Only keys that have any take memory, so it is bounded by the exchanges that there are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Limiter;
use crate::snapshot::Map;

/// Parts that are locked by themselves, so that workers seldom meet.
const SHARDS: usize = 16;

/// The exchanges of each key.
#[derive(Debug)]
pub(super) struct AtOnce {
    most: u32,
    /// Keys are hashes already.
    shards: [Mutex<Map<u64, u32>>; SHARDS],
}

impl AtOnce {
    pub(super) fn new(most: u32) -> Self {
        AtOnce { most, shards: Default::default() }
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Map<u64, u32>> {
        self.shards[key as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more, if there may be one.
    pub(super) fn enter(&self, key: u64) -> bool {
        let mut shard = self.shard(key);
        let count = shard.entry(key).or_insert(0);
        let fits = *count < self.most;
        *count += u32::from(fits);
        fits
    }

    /// Counts one less.
    pub(super) fn leave(&self, key: u64) {
        let mut shard = self.shard(key);
        match shard.get_mut(&key) {
            Some(count @ 2..) => *count -= 1,
            _ => drop(shard.remove(&key)),
        }
    }

    /// Keys that have any.
    pub(super) fn keys(&self) -> usize {
        (0..SHARDS as u64).map(|shard| self.shard(shard).len()).sum()
    }
}

/// The place of one exchange, until it is dropped.
#[derive(Debug)]
pub struct Inside {
    limiter: Arc<Limiter>,
    key: u64,
}

impl Inside {
    pub(super) fn new(limiter: Arc<Limiter>, key: u64) -> Self {
        Inside { limiter, key }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.limiter.leave(self.key);
    }
}
