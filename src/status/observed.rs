//! What the API server holds of our objects' statuses, as the watches saw it: enough to tell whether a write is needed
//! and when a condition last changed, in few bytes per object.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, Hasher as _};
use std::num::NonZeroI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::api::Condition;
use crate::translate::Key;

/// Conditions of these types are ours to write; others on the same object belong to somebody else.
const OURS: [&str; 4] = ["Accepted", "ResolvedRefs", "Programmed", "Healthy"];

/// The kinds whose status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Route,
    Upstream,
    Policy,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Route => "ProxyRoute",
            Kind::Upstream => "ProxyUpstream",
            Kind::Policy => "ProxyPolicy",
        }
    }
}

/// An object whose status is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) kind: Kind,
    pub(super) key: Key,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.key)
    }
}

/// The statuses that the watches saw. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Observed(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    entries: Mutex<BTreeMap<Id, Entry>>,
    changed: Notify,
}

/// The status of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Identity of the object, which a new one of the same name does not share.
    pub(super) uid: Box<str>,
    /// Of the conditions that are ours, without times.
    pub(super) digest: u64,
    /// Of each of [`OURS`] its status, if the object has it.
    statuses: [Option<Status>; OURS.len()],
    /// And the second of its last transition; the API server keeps no less (`metav1.Time`).
    since: [Option<NonZeroI64>; OURS.len()],
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    True,
    False,
    Unknown,
}

impl From<&str> for Status {
    fn from(text: &str) -> Self {
        match text {
            "True" => Status::True,
            "False" => Status::False,
            _ => Status::Unknown,
        }
    }
}

impl Observed {
    /// A watch saw the status of an object (its uid and its conditions), or that the object is gone. Objects of other
    /// kinds than ours are ignored.
    pub fn seen(&self, kind: &str, key: &Key, status: Option<(&str, &[Condition])>) {
        let Some(kind) = [Kind::Route, Kind::Upstream, Kind::Policy].into_iter().find(|ours| ours.name() == kind)
        else {
            return;
        };
        let id = Id { kind, key: key.clone() };
        let changed = match status {
            Some((uid, conditions)) => {
                let entry = Entry::new(uid, conditions);
                let mut entries = self.entries();
                if entries.get(&id) == Some(&entry) {
                    false
                } else {
                    entries.insert(id, entry);
                    true
                }
            }
            None => self.entries().remove(&id).is_some(),
        };
        if changed {
            self.0.changed.notify_one();
        }
    }

    /// Waits for a change; any number since the last wait count as one. For one waiter.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Takes the conditions that a write left behind, before the watch brings them.
    pub(super) fn written(&self, id: &Id, entry: Entry) {
        if let Some(held) = self.entries().get_mut(id) {
            *held = entry;
        }
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, BTreeMap<Id, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(super) fn new(uid: &str, conditions: &[Condition]) -> Self {
        let held = OURS.map(|type_| conditions.iter().find(|condition| condition.type_ == type_));
        let second = |text: &str| NonZeroI64::new(text.parse::<Timestamp>().ok()?.as_second());
        Entry {
            uid: uid.into(),
            digest: digest(conditions),
            statuses: held.map(|held| held.map(|condition| Status::from(condition.status.as_str()))),
            since: held.map(|held| second(&held?.last_transition_time)),
        }
    }

    /// The status of a condition of ours, if the object has it.
    pub(super) fn status(&self, type_: &str) -> Option<Status> {
        self.held(type_).map(|(status, _)| status)
    }

    /// When the condition got the status that it is to have now: what is known if it has it already, else `now`.
    pub(super) fn since(&self, condition: &Condition, now: Timestamp) -> Timestamp {
        self.held(&condition.type_)
            .filter(|(status, _)| *status == Status::from(condition.status.as_str()))
            .and_then(|(_, since)| Timestamp::from_second(since?.get()).ok())
            .unwrap_or(now)
    }

    /// Its status, and the second since when.
    fn held(&self, type_: &str) -> Option<(Status, Option<NonZeroI64>)> {
        let at = OURS.iter().position(|ours| *ours == type_)?;
        Some((self.statuses[at]?, self.since[at]))
    }
}

/// A digest of those conditions that are ours, in any order, without their times.
pub(super) fn digest(conditions: &[Condition]) -> u64 {
    let mut hasher = foldhash::quality::FixedState::with_seed(0).build_hasher();
    for type_ in OURS {
        let Some(condition) = conditions.iter().find(|condition| condition.type_ == type_) else { continue };
        let Condition { type_, status, observed_generation, reason, message, last_transition_time: _ } = condition;
        (type_, status, observed_generation, reason, message).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(type_: &str, status: &str, time: &str) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            observed_generation: Some(1),
            reason: "Reason".to_owned(),
            message: String::new(),
            last_transition_time: time.to_owned(),
        }
    }

    #[test]
    fn times_order_and_other_peoples_conditions_do_not_count() {
        let ours = [condition("Accepted", "True", "2026-01-01T00:00:00Z"), condition("Programmed", "True", "")];
        let mut other = [ours[1].clone(), condition("Theirs", "False", ""), condition("Accepted", "True", "")];
        assert_eq!(digest(&ours), digest(&other));
        other[2].status = "False".to_owned();
        assert_ne!(digest(&ours), digest(&other));
    }

    #[test]
    fn a_transition_time_stays_while_the_status_does() {
        let entry = Entry::new("uid", &[condition("Accepted", "True", "2026-01-01T00:00:00Z")]);
        let now: Timestamp = "2026-02-02T00:00:00Z".parse().expect("a time");
        assert_eq!(entry.since(&condition("Accepted", "True", ""), now).to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(entry.since(&condition("Accepted", "False", ""), now), now);
        assert_eq!(entry.since(&condition("Programmed", "True", ""), now), now);
    }

    #[test]
    fn only_kinds_with_a_status_of_ours_are_kept() {
        let observed = Observed::default();
        observed.seen("Service", &Key::new("ns", "a"), Some(("uid", &[])));
        assert!(observed.entries().is_empty());
        observed.seen("ProxyRoute", &Key::new("ns", "a"), Some(("uid", &[])));
        assert_eq!(observed.entries().len(), 1);
        observed.seen("ProxyRoute", &Key::new("ns", "a"), None);
        assert!(observed.entries().is_empty());
    }
}
