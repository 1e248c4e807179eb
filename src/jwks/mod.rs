//! Keys of issuers: fetched by the process, once for all policies that name the same place, and fetched again before they are
//! old. From where they come, translation says; how they are fetched, `fetch`; what is wrong with them, [`Resources`] tells back. New
//! keys need no new table: tables hold the place where the newest ones are. Runs on the control thread.
//!
//! Keys that cannot be fetched anew go on to count, for as long as each policy allows.
//!
//! [`Resources`]: crate::translate::Resources

mod discovery;
mod failure;
mod fetch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use self::failure::{Failure, OUTCOMES};
use self::fetch::Answer;
use crate::ready::BlockReady;
use crate::snapshot::{FetchedKeys, KeySource};
use crate::source::Store;
use crate::source::dns::Resolve;
use crate::telemetry::Metrics;
use crate::translate::{KeySet, KeySources};

/// How often keys are fetched at most and at least, whatever their issuer says, and when he says nothing.
const VALID: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(60 * 60));
const USUALLY: Duration = Duration::from_secs(10 * 60);
/// By how much earlier some are fetched, so that not all replicas come at once.
const SPREAD_PERCENT: u32 = 10;
/// First and last wait after failures; doubled in between.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often an unknown key may cause a fetch: whoever makes keys up causes no more than that.
const EARLY: Duration = Duration::from_secs(30);
/// Time for one fetch with all that belongs to it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Failures in a row until owners of policies are told that their keys are old.
const TOLD_AFTER: u32 = 3;
/// Fetches at a time.
const AT_A_TIME: usize = 16;

/// Fetches the keys that are wanted, until `wanted` is closed. `first` is held until all that are wanted at the beginning were
/// fetched once, or could not be.
pub async fn run(
    store: Store,
    mut wanted: watch::Receiver<KeySources>,
    resolver: impl Resolve + Sync,
    metrics: Metrics,
    first: BlockReady,
) {
    let bell = Arc::new(Notify::new());
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let mut sets: BTreeMap<Arc<str>, Set> = BTreeMap::new();
    let mut fetches: JoinSet<Fetch> = JoinSet::new();
    let mut first = Some(first);
    wanted.mark_changed();
    loop {
        let due = sets.values().filter_map(|set| set.due).min();
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let wanted = wanted.borrow_and_update().clone();
                follow(&mut sets, wanted, &bell, &store, &metrics);
            }
            () = bell.notified() => sets.values_mut().filter(|set| set.keys.was_missed()).for_each(Set::hasten),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let now = Instant::now();
                for (name, set) in sets.iter_mut().filter(|(_, set)| set.due.is_some_and(|due| due <= now)) {
                    set.due = None;
                    let (name, source) = (Arc::clone(name), Arc::clone(&set.source));
                    let (resolver, turns) = (resolver.clone(), Arc::clone(&turns));
                    fetches.spawn(async move {
                        let _turn = turns.acquire().await;
                        let fetched = timeout(PATIENCE, fetch::fetch(&source, &resolver)).await;
                        (name, source, fetched.unwrap_or(Err(Failure::Timeout)))
                    });
                }
            }
            Some(Ok((name, source, fetched))) = fetches.join_next(), if !fetches.is_empty() => {
                // Nobody may want it any more, or somebody may want it otherwise.
                if let Some(set) = sets.get_mut(&name) {
                    if Arc::ptr_eq(&set.source, &source) {
                        set.learn(&name, fetched, &store, &metrics);
                    } else {
                        set.due = Some(Instant::now());
                    }
                }
            }
        }
        if sets.values().all(|set| set.tried) {
            drop(first.take());
        }
    }
}

/// A fetch that is over: of what, and how it went.
type Fetch = (Arc<str>, Arc<KeySource>, Result<Answer, Failure>);

/// The keys of a source.
struct Set {
    source: Arc<KeySource>,
    keys: Arc<FetchedKeys>,
    /// When to fetch them; `None` while that is done.
    due: Option<Instant>,
    /// When one was or is fetched last because somebody missed a key.
    hastened: Option<Instant>,
    /// Whether that was tried at least once, and whether it ever succeeded.
    tried: bool,
    fetched: bool,
    /// In a row.
    failures: u32,
}

/// Begins and ends fetching as is wanted.
fn follow(
    sets: &mut BTreeMap<Arc<str>, Set>,
    wanted: KeySources,
    bell: &Arc<Notify>,
    store: &Store,
    metrics: &Metrics,
) {
    sets.retain(|name, set| {
        let stays = wanted.contains_key(name);
        if !stays {
            metrics.forget_keys(name, &OUTCOMES);
            set.keys.settle();
        }
        stays
    });
    let mut begun = Vec::new();
    for (name, source) in wanted {
        let known = sets.get_mut(&name);
        if let Some(set) = known {
            // Other authorities, for example: the keys count until they were fetched under these.
            if set.source != source {
                set.source = source;
                set.due = set.due.map(|_| Instant::now());
            }
            continue;
        }
        if source.insecure {
            tracing::warn!(source = &*name, "INSECURE: jwks.insecureHttp lets whoever is on the way replace the keys");
        }
        let keys = FetchedKeys::new(Arc::clone(bell));
        begun.push((name.to_string(), KeySet { keys: Arc::clone(&keys), fetched: false, trouble: None }));
        let (due, hastened) = (Some(Instant::now()), None);
        sets.insert(name, Set { source, keys, due, hastened, tried: false, fetched: false, failures: 0 });
    }
    store.update(|resources| {
        let news = !begun.is_empty();
        // What nobody wants any more changes no translation, so it does not tick.
        resources.key_sets.retain(|name, _| sets.contains_key(&**name));
        resources.key_sets.extend(begun);
        news
    });
}

impl Set {
    /// Somebody showed a token of a key that is not there, and waits.
    fn hasten(&mut self) {
        // While they are being fetched, whoever waits hears of that anyway.
        let Some(due) = self.due else { return };
        let now = Instant::now();
        let early = self.hastened.map_or(now, |last| (last + EARLY).max(now));
        if early < due {
            (self.due, self.hastened) = (Some(early), Some(early));
        }
        // Nobody waits for longer than a fetch takes.
        if early.min(due) > now {
            self.keys.settle();
        }
    }

    fn learn(&mut self, name: &Arc<str>, fetched: Result<Answer, Failure>, store: &Store, metrics: &Metrics) {
        self.tried = true;
        let (wait, trouble) = match fetched {
            Ok(Answer { keys, valid }) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
                let count = keys.iter().count();
                if self.keys.put(keys, now) {
                    tracing::info!(source = &**name, count, "keys were fetched");
                }
                metrics.keys_fetched(name, failure::FETCHED, Some(now));
                (self.fetched, self.failures) = (true, 0);
                let valid = valid.unwrap_or(USUALLY).clamp(VALID.0, VALID.1);
                (valid.saturating_sub(valid * fastrand::u32(0..=SPREAD_PERCENT) / 100), None)
            }
            Err(failure) => {
                metrics.keys_fetched(name, failure.outcome(), None);
                let wait = RETRY.0.saturating_mul(1 << self.failures.min(6)).min(RETRY.1);
                self.failures = self.failures.saturating_add(1);
                let kept = if self.fetched { "the last good ones count" } else { "there are none" };
                tracing::warn!(source = &**name, error = %failure, retry = ?wait, kept, "keys cannot be fetched");
                // One failure among successes is nobody's concern.
                let told = !self.fetched || self.failures >= TOLD_AFTER;
                (wait, told.then(|| Arc::from(failure.to_string())))
            }
        };
        self.due = Some(Instant::now() + wait);
        self.keys.settle();
        let now = KeySet { keys: Arc::clone(&self.keys), fetched: self.fetched, trouble };
        store.update(|resources| {
            resources.key_sets.insert(name.to_string(), now.clone()).is_none_or(|before| before != now)
        });
    }
}

#[cfg(test)]
mod tests;
