//! What is to be said of which object, and when it is due. Decides only; `writer` does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::observed::{Entry, Id, Kind, digest};
use crate::api::Condition;
use crate::translate::Statuses;

/// Writes between two looks at what is due.
pub(super) const BATCH: usize = 50;
/// So long after a write an older status from a watch that lags behind is not taken for somebody else's change.
const SETTLE: Duration = Duration::from_secs(10);

/// What is to be said of which object.
#[derive(Default)]
pub(super) struct Ledger {
    /// As they were taken last.
    statuses: Statuses,
    /// What is to be said of the objects that are ours to write.
    ours: BTreeMap<Id, Wanted>,
    /// Objects that no longer are, and the digest of what we said of them.
    leaving: HashMap<Id, u64>,
    /// What was tried lately.
    tried: HashMap<Id, Tried>,
}

/// What is to be said of an object.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) conditions: Arc<[Condition]>,
    pub(super) digest: u64,
}

/// What became of the last write of an object.
#[derive(Clone, Copy, Debug)]
struct Tried {
    digest: u64,
    failures: u32,
    /// Not again before, unless there is something else to say.
    until: Instant,
}

/// A write that is due.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) id: Id,
    pub(super) before: Entry,
    /// Without conditions: ours are taken away.
    pub(super) wanted: Wanted,
}

impl Ledger {
    /// Takes what is to be said now, and notes which objects are no longer ours.
    pub(super) fn want(&mut self, statuses: Statuses) {
        let before = std::mem::replace(&mut self.statuses, statuses);
        let statuses = &self.statuses;
        let kinds = [
            (Kind::Route, &before.routes, &statuses.routes),
            (Kind::Upstream, &before.upstreams, &statuses.upstreams),
            (Kind::Policy, &before.policies, &statuses.policies),
        ];
        for (kind, before, now) in kinds {
            for key in now.differing(before, Arc::ptr_eq) {
                let id = Id { kind, key: key.clone() };
                if let Some(conditions) = now.get(key) {
                    self.leaving.remove(&id);
                    self.ours.insert(id, Wanted::new(Arc::clone(conditions)));
                } else if let Some(said) = self.ours.remove(&id) {
                    self.leaving.insert(id, said.digest);
                }
            }
        }
    }

    /// The writes that are due, at most a batch, and when to look again if something has to wait.
    pub(super) fn due(&mut self, entries: &BTreeMap<Id, Entry>, now: Instant) -> (Vec<Write>, Option<Instant>) {
        self.tried.retain(|id, tried| entries.contains_key(id) && (tried.until > now || tried.failures > 0));
        // Gone, or changed by whoever serves it now.
        self.leaving.retain(|id, said| entries.get(id).is_some_and(|entry| entry.digest == *said));
        let nothing = Wanted::new(Arc::default());
        let all = self.ours.iter().chain(self.leaving.keys().map(|id| (id, &nothing)));
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        for (id, wanted) in all {
            let Some(entry) = entries.get(id).filter(|entry| entry.digest != wanted.digest) else { continue };
            if let Some(tried) = self.tried.get(id).filter(|tried| tried.digest == wanted.digest && tried.until > now) {
                next = Some(next.map_or(tried.until, |next| next.min(tried.until)));
                continue;
            }
            due.push(Write { id: id.clone(), before: entry.clone(), wanted: wanted.clone() });
            if due.len() == BATCH {
                break;
            }
        }
        (due, next)
    }

    /// A write was tried.
    pub(super) fn done(&mut self, id: Id, digest: u64, succeeded: bool, now: Instant) {
        let before = self.tried.get(&id).filter(|tried| tried.digest == digest);
        let failures = if succeeded { 0 } else { before.map_or(0, |tried| tried.failures).saturating_add(1) };
        let wait = if succeeded { SETTLE } else { pause(failures) };
        if succeeded {
            self.leaving.remove(&id);
        }
        self.tried.insert(id, Tried { digest, failures, until: now + wait });
    }

    /// Another process writes now: what we tried, and whom we owe a farewell, is no longer our business.
    pub(super) fn stand_down(&mut self) {
        self.leaving.clear();
        self.tried.clear();
    }
}

impl Wanted {
    fn new(conditions: Arc<[Condition]>) -> Self {
        let digest = digest(&conditions);
        Wanted { conditions, digest }
    }
}

/// The pause after so many failures in a row: one second to one minute.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.clamp(1, 7) >> 1).min(Duration::from_secs(60))
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
