//! Which statuses differ from what the API server holds, and writing them: by server-side apply, a few at a time, and
//! each again after a growing pause if it failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::events::Events;
use super::observed::{Entry, Id, Kind, Observed, digest};
use crate::api::{Condition, ProxyRoute, ProxyUpstream};
use crate::telemetry::Metrics;
use crate::translate::Statuses;

/// Writes between two looks at what is due; with [`PACE`] this bounds the rate to 100 a second.
const BATCH: usize = 50;
/// Time a batch takes at least.
const PACE: Duration = Duration::from_millis(500);
/// Writes at the same time.
const CONCURRENT: usize = 8;
/// Changes that come together are looked at together.
const COALESCE: Duration = Duration::from_millis(50);
/// So long after a write an older status from a watch that lags behind is not taken for somebody else's change.
const SETTLE: Duration = Duration::from_secs(10);

/// Keeps the statuses of the API server equal to those that translation gives, while `leads`.
pub(super) struct StatusWriter {
    client: Client,
    events: Events,
    observed: Observed,
    metrics: Metrics,
    /// What was tried lately.
    tried: HashMap<Id, Tried>,
    /// Objects that were ours to write, and the digest of what we said of them.
    ours: HashMap<Id, u64>,
    /// Objects that no longer are, whose conditions are still as we wrote them.
    leaving: HashMap<Id, u64>,
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
struct Write {
    id: Id,
    before: Entry,
    /// Empty: our conditions are taken away.
    conditions: Vec<Condition>,
}

impl StatusWriter {
    pub(super) fn new(client: Client, identity: &str, observed: Observed, metrics: Metrics) -> Self {
        let events = Events::new(client.clone(), identity);
        let (tried, ours, leaving) = Default::default();
        StatusWriter { client, events, observed, metrics, tried, ours, leaving }
    }

    /// Writes until dropped.
    pub(super) async fn run(mut self, mut statuses: watch::Receiver<Arc<Statuses>>, mut leads: watch::Receiver<bool>) {
        let observed = self.observed.clone();
        let mut retry = None;
        loop {
            tokio::select! {
                changed = statuses.changed() => if changed.is_err() { return },
                changed = leads.changed() => if changed.is_err() { return },
                () = observed.changed() => {}
                () = sleep_until(retry) => {}
            }
            tokio::time::sleep(COALESCE).await;
            let wanted = Arc::clone(&statuses.borrow_and_update());
            self.departures(&wanted);
            retry = None;
            if !*leads.borrow_and_update() {
                self.leaving.clear();
                self.tried.clear();
                continue;
            }
            let (due, next) = self.due(&wanted, Instant::now());
            retry = next;
            if !due.is_empty() {
                retry = Some(Instant::now() + PACE);
                self.write(due, &leads).await;
            }
        }
    }

    /// Notes which objects are no longer ours to write.
    fn departures(&mut self, wanted: &Statuses) {
        let now: HashMap<Id, u64> = each(wanted).map(|(id, conditions)| (id, digest(conditions))).collect();
        let before = std::mem::replace(&mut self.ours, now);
        self.leaving.retain(|id, _| !self.ours.contains_key(id));
        self.leaving.extend(before.into_iter().filter(|(id, _)| !self.ours.contains_key(id)));
    }

    /// The writes that are due, at most a batch, and when to look again if something has to wait.
    fn due(&mut self, wanted: &Statuses, now: Instant) -> (Vec<Write>, Option<Instant>) {
        let entries = self.observed.entries();
        self.tried.retain(|id, tried| entries.contains_key(id) && (tried.until > now || tried.failures > 0));
        // Gone, or changed by whoever serves it now.
        self.leaving.retain(|id, said| entries.get(id).is_some_and(|entry| entry.digest == *said));
        let empty: &[Condition] = &[];
        let taken_away = self.leaving.keys().map(|id| (id.clone(), empty, digest(empty)));
        let kept = each(wanted).map(|(id, conditions)| {
            let digest = self.ours.get(&id).copied().unwrap_or_else(|| digest(conditions));
            (id, conditions, digest)
        });
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        for (id, conditions, digest) in kept.chain(taken_away) {
            let Some(entry) = entries.get(&id).filter(|entry| entry.digest != digest) else { continue };
            if let Some(tried) = self.tried.get(&id).filter(|tried| tried.digest == digest && tried.until > now) {
                next = Some(next.map_or(tried.until, |next| next.min(tried.until)));
                continue;
            }
            due.push(Write { id, before: entry.clone(), conditions: conditions.to_vec() });
            if due.len() == BATCH {
                break;
            }
        }
        (due, next)
    }

    async fn write(&mut self, due: Vec<Write>, leads: &watch::Receiver<bool>) {
        let this = &*self;
        let done: Vec<(Id, u64, bool)> = futures_util::stream::iter(due)
            .map(|write| async move {
                // Leadership may end while a batch is under way.
                let succeeded = *leads.borrow() && this.apply(&write).await;
                (write.id, digest(&write.conditions), succeeded)
            })
            .buffer_unordered(CONCURRENT)
            .collect()
            .await;
        for (id, digest, succeeded) in done {
            let before = self.tried.get(&id).filter(|tried| tried.digest == digest);
            let failures = if succeeded { 0 } else { before.map_or(0, |tried| tried.failures).saturating_add(1) };
            let wait = if succeeded { SETTLE } else { pause(failures) };
            if succeeded {
                self.leaving.remove(&id);
            }
            self.tried.insert(id, Tried { digest, failures, until: Instant::now() + wait });
        }
    }

    /// Writes one status; returns whether nothing is left to be done.
    async fn apply(&self, Write { id, before, conditions }: &Write) -> bool {
        let now = Timestamp::now();
        let conditions: Vec<Condition> = conditions
            .iter()
            .map(|condition| Condition {
                last_transition_time: time(before.since(condition, now)),
                ..condition.clone()
            })
            .collect();
        let kind = id.kind.name();
        let patch = json!({
            "apiVersion": super::API_VERSION,
            "kind": kind,
            // The uid makes the API server refuse the write if another object has taken the name.
            "metadata": {"name": &*id.key.name, "namespace": &*id.key.namespace, "uid": &*before.uid},
            "status": {"conditions": conditions},
        });
        let resource = match id.kind {
            Kind::Route => ApiResource::erase::<ProxyRoute>(&()),
            Kind::Upstream => ApiResource::erase::<ProxyUpstream>(&()),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &id.key.namespace, &resource);
        let params = PatchParams::apply(super::FIELD_MANAGER).force();
        match api.patch_status(&id.key.name, &params, &Patch::Apply(patch)).await {
            Ok(object) => {
                self.metrics.status_write(kind, true);
                let held = object.data.pointer("/status/conditions").cloned().unwrap_or_default();
                let held: Vec<Condition> = serde_json::from_value(held).unwrap_or_default();
                self.observed.written(id, Entry::new(&before.uid, &held));
                self.events.tell(id, before, &conditions).await;
                true
            }
            // Deleted or replaced meanwhile: the watch will tell.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                tracing::debug!(object = %id, "status not written: {}", status.message);
                false
            }
            Err(error) => {
                self.metrics.status_write(kind, false);
                tracing::warn!(object = %id, "cannot write the status, and will try again: {error}");
                false
            }
        }
    }
}

/// All objects that have conditions of ours.
fn each(statuses: &Statuses) -> impl Iterator<Item = (Id, &[Condition])> {
    let routes = statuses.routes.iter().map(|object| (Kind::Route, object));
    let upstreams = statuses.upstreams.iter().map(|object| (Kind::Upstream, object));
    routes.chain(upstreams).map(|(kind, (key, conditions))| (Id { kind, key: key.clone() }, &**conditions))
}

/// A time as conditions carry it: whole seconds.
fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// The pause after so many failures in a row: one second to one minute.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.clamp(1, 7) >> 1).min(Duration::from_secs(60))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
