//! How much may come of each key: tokens for requests ([`Rate`], [`Buckets`]), and places for exchanges at once
//! ([`AtOnce`]). Shared by all workers, so that a limit is exact for the process. What a key is made of, and what is answered to
//! whom has no token left, is the data plane's to say.
//!
//! Limits are kept by identity, which has all that their counts depend on: they outlive snapshots as long as they say the same. One that
//! is at rest, with every bucket full and nobody inside, is as good as new, and is forgotten after an hour or two.

mod at_once;
mod buckets;
mod pace;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, DefaultHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Moment;
use crate::snapshot::{Map, RateLimit};
use at_once::AtOnce;
pub use at_once::Inside;
use buckets::Buckets;
pub use buckets::{Left, Rate};
pub use pace::Pace;

/// How often limits are looked at that may be at rest.
const SWEEP: Duration = Duration::from_secs(3600);

/// Every limit that had a request. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Limiters {
    all: Arc<ArcSwap<Map<Arc<str>, Arc<Limiter>>>>,
    /// When they were looked at last, in nanoseconds.
    swept: Arc<AtomicU64>,
}

/// What is known of a limit, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The policy that it is of.
    pub policy: Arc<str>,
    /// Its name.
    pub limit: Arc<str>,
    /// Requests that it refused.
    pub refused: u64,
    /// Keys whose bucket is not full, or that have exchanges.
    pub keys: u64,
}

impl Limiters {
    /// Uses what is kept of a limit.
    pub fn with<T>(&self, limit: &RateLimit, used: impl FnOnce(&Arc<Limiter>) -> T) -> T {
        let all = self.all.load();
        if let Some(limiter) = all.get(&limit.identity).filter(|limiter| limiter.ask()) {
            return used(limiter);
        }
        drop(all);
        used(&self.insert(limit))
    }

    fn insert(&self, limit: &RateLimit) -> Arc<Limiter> {
        let new = Arc::new(Limiter::new(limit));
        let mut kept = Arc::clone(&new);
        self.all.rcu(|all| {
            let mut all = Map::clone(all);
            let present = all.get(&limit.identity).filter(|present| present.ask());
            kept = Arc::clone(present.unwrap_or(&new));
            all.insert(Arc::clone(&limit.identity), Arc::clone(&kept));
            all
        });
        kept
    }

    /// Forgets limits that are at rest. To be called often.
    pub fn sweep(&self, now: Moment) {
        let swept = Moment::from_nanos(self.swept.load(Ordering::Relaxed));
        if now - swept < SWEEP {
            return;
        }
        self.swept.store(now.nanos(), Ordering::Relaxed);
        let all = self.all.load();
        if all.values().filter(|limiter| limiter.retire(now)).count() > 0 {
            self.all.rcu(|all| {
                let used = |(_, limiter): &(&Arc<str>, &Arc<Limiter>)| !limiter.is_retired();
                all.iter()
                    .filter(used)
                    .map(|(key, limiter)| (Arc::clone(key), Arc::clone(limiter)))
                    .collect::<Map<_, _>>()
            });
        }
    }

    /// All of them, for metrics. While a limit changes there are two of its name, which are told of as one.
    pub fn limited(&self, now: Moment) -> Vec<Limited> {
        let mut all: Vec<Limited> = self.all.load().values().map(|limiter| limiter.limited(now)).collect();
        all.sort_unstable_by(|a, b| (&a.policy, &a.limit).cmp(&(&b.policy, &b.limit)));
        all.dedup_by(|b, a| {
            let same = (&a.policy, &a.limit) == (&b.policy, &b.limit);
            if same {
                (a.refused, a.keys) = (a.refused + b.refused, a.keys + b.keys);
            }
            same
        });
        all
    }
}

/// Nobody asked since the last sweep.
const RESTING: u8 = 0;
/// Somebody did.
const ASKED: u8 = 1;
/// It is forgotten: whoever still has it asks for another.
const RETIRED: u8 = 2;

/// One limit.
#[derive(Debug)]
pub struct Limiter {
    policy: Arc<str>,
    name: Arc<str>,
    /// Keyed anew for each limit, so that no client can choose keys that meet.
    hashing: RandomState,
    tokens: Option<(Rate, Buckets)>,
    at_once: Option<AtOnce>,
    refused: AtomicU64,
    asked: AtomicU8,
}

impl Limiter {
    fn new(limit: &RateLimit) -> Self {
        let keys = if limit.keys.is_empty() { 1 } else { limit.max_keys };
        Limiter {
            policy: Arc::clone(&limit.policy),
            name: Arc::clone(&limit.name),
            hashing: RandomState::new(),
            tokens: limit.rate.map(|rate| (Rate::new(rate.requests, rate.per, rate.burst), Buckets::new(keys))),
            at_once: limit.at_once.map(AtOnce::new),
            refused: AtomicU64::new(0),
            asked: AtomicU8::new(ASKED),
        }
    }

    /// How fast tokens come, if it has any.
    pub fn rate(&self) -> Option<Rate> {
        self.tokens.as_ref().map(|(rate, _)| *rate)
    }

    /// What makes keys of whatever they are made of.
    pub fn hasher(&self) -> DefaultHasher {
        self.hashing.build_hasher()
    }

    /// Takes a token of a key, if the limit has any; tells what is left.
    ///
    /// # Errors
    /// There is none: how long it takes until there is one.
    pub fn take(&self, key: u64, now: Moment) -> Result<Option<Left>, Duration> {
        let Some((rate, buckets)) = &self.tokens else { return Ok(None) };
        buckets.take(rate, key, now).map(Some).inspect_err(|_| self.refuse())
    }

    /// Takes a token of a key if there is one: it is counted elsewhere, and may have to be counted here from one moment to the next.
    pub fn note(&self, key: u64, now: Moment) {
        if let Some((rate, buckets)) = &self.tokens {
            let _ = buckets.take(rate, key, now);
        }
    }

    /// Gives a token back that was taken for nothing.
    pub fn give_back(&self, key: u64) {
        if let Some((rate, buckets)) = &self.tokens {
            buckets.give_back(rate, key);
        }
    }

    /// Lets an exchange of a key in, until [`Inside`] is dropped. `Ok(None)` if nothing limits how many there are.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn enter(self: &Arc<Self>, key: u64) -> Result<Option<Inside>, Full> {
        match &self.at_once {
            None => Ok(None),
            Some(at_once) if at_once.enter(key) => Ok(Some(Inside::new(Arc::clone(self), key))),
            Some(_) => {
                self.refuse();
                Err(Full)
            }
        }
    }

    fn leave(&self, key: u64) {
        if let Some(at_once) = &self.at_once {
            at_once.leave(key);
        }
    }

    /// Counts a refusal.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn limited(&self, now: Moment) -> Limited {
        let buckets = self.tokens.as_ref().map_or(0, |(_, buckets)| buckets.in_use(now));
        let keys = buckets.max(self.at_once.as_ref().map_or(0, AtOnce::keys));
        let (policy, limit) = (Arc::clone(&self.policy), Arc::clone(&self.name));
        Limited { policy, limit, refused: self.refused.load(Ordering::Relaxed), keys: keys as u64 }
    }

    /// Notes that somebody wants to use it; `false` if it is too late for that.
    fn ask(&self) -> bool {
        match self.asked.load(Ordering::Relaxed) {
            ASKED => true,
            _ => self.asked.compare_exchange(RESTING, ASKED, Ordering::AcqRel, Ordering::Acquire) != Err(RETIRED),
        }
    }

    /// Takes it out of use if it is at rest, and was through a whole sweep, so that nobody has it in hand.
    fn retire(&self, now: Moment) -> bool {
        if self.asked.compare_exchange(ASKED, RESTING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return false;
        }
        self.limited(now).keys == 0
            && self.asked.compare_exchange(RESTING, RETIRED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn is_retired(&self) -> bool {
        self.asked.load(Ordering::Acquire) == RETIRED
    }
}

/// As many exchanges of a key as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
