//! Readiness and liveness. Readiness: named reasons not to be ready, each held by a guard that lifts it when dropped.
//! Liveness: loops that beat; one that has not beaten for long is stuck.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

/// The reasons not to be ready. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<Mutex<BTreeMap<String, usize>>>);

/// Holds one reason not to be ready until dropped.
#[derive(Debug)]
pub struct BlockReady {
    ready: Ready,
    reason: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ready {
    /// Not ready before the guard is dropped; `reason` completes "waiting for …". Holding the same reason twice needs
    /// both guards dropped.
    pub fn block(&self, reason: impl Into<String>) -> BlockReady {
        let reason = reason.into();
        *lock(&self.0).entry(reason.clone()).or_default() += 1;
        BlockReady { ready: self.clone(), reason }
    }

    /// What the process waits for, sorted. Empty: ready.
    pub fn reasons(&self) -> Vec<String> {
        lock(&self.0).keys().cloned().collect()
    }
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        let mut reasons = lock(&self.ready.0);
        if let Some(count) = reasons.get_mut(&self.reason) {
            *count -= 1;
            if *count == 0 {
                reasons.remove(&self.reason);
            }
        }
    }
}

/// How often a loop beats.
const BEAT: Duration = Duration::from_secs(1);
/// Silence after which a loop counts as stuck. Longer than a starved container is paused for.
const STUCK: Duration = Duration::from_secs(15);

/// The loops that beat. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live {
    start: Instant,
    hearts: Arc<Mutex<Vec<Heart>>>,
}

#[derive(Debug)]
struct Heart {
    name: String,
    last: Weak<AtomicU64>,
}

/// One loop's heart. A loop that ends drops it, and is not missed.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    last: Arc<AtomicU64>,
}

impl Default for Live {
    fn default() -> Self {
        Live { start: Instant::now(), hearts: Arc::default() }
    }
}

impl Live {
    /// A pulse for the loop called `name`, which counts as alive now.
    pub fn pulse(&self, name: impl Into<String>) -> Pulse {
        let pulse = Pulse { start: self.start, last: Arc::default() };
        pulse.beat();
        lock(&self.hearts).push(Heart { name: name.into(), last: Arc::downgrade(&pulse.last) });
        pulse
    }

    /// The loops that have not beaten for long.
    pub fn stuck(&self) -> Vec<String> {
        let now = millis(self.start.elapsed());
        let mut hearts = lock(&self.hearts);
        hearts.retain(|heart| heart.last.strong_count() > 0);
        let silent = |last: Arc<AtomicU64>| now.saturating_sub(last.load(Relaxed)) > millis(STUCK);
        hearts.iter().filter(|heart| heart.last.upgrade().is_some_and(silent)).map(|heart| heart.name.clone()).collect()
    }
}

impl Pulse {
    /// Tells that the loop is alive.
    pub fn beat(&self) {
        self.last.store(millis(self.start.elapsed()), Relaxed);
    }

    /// Beats for as long as the runtime it is spawned on runs its tasks. Never ends; abort the task, or drop it with
    /// its runtime.
    pub async fn keep_beating(self) {
        loop {
            self.beat();
            tokio::time::sleep(BEAT).await;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_guard_is_dropped() {
        let ready = Ready::default();
        assert!(ready.reasons().is_empty());
        let routes = ready.block("first list of ProxyRoutes");
        let again = ready.clone().block("first list of ProxyRoutes");
        let bound = ready.block("a listener");
        assert_eq!(ready.reasons(), ["a listener", "first list of ProxyRoutes"]);
        drop(routes);
        drop(bound);
        assert_eq!(ready.reasons(), ["first list of ProxyRoutes"]);
        drop(again);
        assert!(ready.reasons().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stops_beating_is_stuck_until_it_beats_or_ends() {
        let live = Live::default();
        let beating = tokio::spawn(live.pulse("worker 0").keep_beating());
        let silent = live.pulse("worker 1");
        tokio::time::sleep(STUCK).await;
        assert!(live.stuck().is_empty());
        tokio::time::sleep(BEAT).await;
        assert_eq!(live.stuck(), ["worker 1"]);
        silent.beat();
        assert!(live.stuck().is_empty());
        tokio::time::sleep(STUCK * 2).await;
        assert_eq!(live.stuck(), ["worker 1"]);
        drop(silent);
        assert!(live.stuck().is_empty());
        beating.abort();
    }
}
