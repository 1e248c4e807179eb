//! Which statuses differ from what the API server holds, and writing them: by server-side apply, a few at a time, and
//! each again after a growing pause if it failed.

use std::collections::{BTreeMap, HashMap};
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
    /// As they were taken last.
    statuses: Statuses,
    /// What was tried lately.
    tried: HashMap<Id, Tried>,
    /// What is to be said of the objects that are ours to write.
    ours: BTreeMap<Id, Wanted>,
    /// Objects that no longer are, and the digest of what we said of them.
    leaving: HashMap<Id, u64>,
}

/// What is to be said of an object.
#[derive(Clone, Debug)]
struct Wanted {
    conditions: Arc<[Condition]>,
    digest: u64,
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
    /// Without conditions: ours are taken away.
    wanted: Wanted,
}

impl StatusWriter {
    pub(super) fn new(client: Client, identity: &str, observed: Observed, metrics: Metrics) -> Self {
        let events = Events::new(client.clone(), identity);
        let (statuses, tried, ours, leaving) = Default::default();
        StatusWriter { client, events, observed, metrics, statuses, tried, ours, leaving }
    }

    /// Writes until dropped.
    pub(super) async fn run(mut self, mut statuses: watch::Receiver<Statuses>, mut leads: watch::Receiver<bool>) {
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
            let statuses = statuses.borrow_and_update().clone();
            self.want(statuses);
            retry = None;
            if !*leads.borrow_and_update() {
                self.leaving.clear();
                self.tried.clear();
                continue;
            }
            let (due, next) = self.due(Instant::now());
            retry = next;
            if !due.is_empty() {
                retry = Some(Instant::now() + PACE);
                self.write(due, &leads).await;
            }
        }
    }

    /// Takes what is to be said now, and notes which objects are no longer ours.
    fn want(&mut self, statuses: Statuses) {
        let before = std::mem::replace(&mut self.statuses, statuses);
        let statuses = &self.statuses;
        if Arc::ptr_eq(&before.routes, &statuses.routes) && Arc::ptr_eq(&before.upstreams, &statuses.upstreams) {
            return;
        }
        let mut before = std::mem::take(&mut self.ours);
        let routes = statuses.routes.iter().map(|object| (Kind::Route, object));
        let upstreams = statuses.upstreams.iter().map(|object| (Kind::Upstream, object));
        for (kind, (key, conditions)) in routes.chain(upstreams) {
            let id = Id { kind, key: key.clone() };
            let same = before.remove(&id).filter(|wanted| Arc::ptr_eq(&wanted.conditions, conditions));
            self.leaving.remove(&id);
            self.ours.insert(id, same.unwrap_or_else(|| Wanted::new(Arc::clone(conditions))));
        }
        self.leaving.extend(before.into_iter().map(|(id, said)| (id, said.digest)));
    }

    /// The writes that are due, at most a batch, and when to look again if something has to wait.
    fn due(&mut self, now: Instant) -> (Vec<Write>, Option<Instant>) {
        let entries = self.observed.entries();
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

    async fn write(&mut self, due: Vec<Write>, leads: &watch::Receiver<bool>) {
        let this = &*self;
        let done: Vec<(Id, u64, bool)> = futures_util::stream::iter(due)
            .map(|write| async move {
                // Leadership may end while a batch is under way.
                let succeeded = *leads.borrow() && this.apply(&write).await;
                (write.id, write.wanted.digest, succeeded)
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
    async fn apply(&self, Write { id, before, wanted }: &Write) -> bool {
        let now = Timestamp::now();
        let conditions: Vec<Condition> = wanted
            .conditions
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

impl Wanted {
    fn new(conditions: Arc<[Condition]>) -> Self {
        let digest = digest(&conditions);
        Wanted { conditions, digest }
    }
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
