//! Writing what is due: by server-side apply, a few at a time and at a bounded rate, while leading. What is due is
//! `ledger`'s to say.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::events::Events;
use super::ledger::{Ledger, Write};
use super::observed::{Entry, Id, Kind, Observed};
use crate::api::{Condition, ProxyPolicy, ProxyRoute, ProxyUpstream};
use crate::telemetry::Metrics;
use crate::translate::Statuses;

/// Time a batch takes at least; with the size of a batch this bounds the rate to 100 a second.
const PACE: Duration = Duration::from_millis(500);
/// Writes at the same time.
const CONCURRENT: usize = 8;
/// Changes that come together are looked at together.
const COALESCE: Duration = Duration::from_millis(50);
/// Keeps the statuses of the API server equal to those that translation gives, while `leads`.
pub(super) struct StatusWriter {
    client: Client,
    events: Events,
    observed: Observed,
    metrics: Metrics,
    ledger: Ledger,
}

impl StatusWriter {
    pub(super) fn new(client: Client, identity: &str, observed: Observed, metrics: Metrics) -> Self {
        let events = Events::new(client.clone(), identity);
        StatusWriter { client, events, observed, metrics, ledger: Ledger::default() }
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
            self.ledger.want(statuses);
            retry = None;
            if !*leads.borrow_and_update() {
                self.ledger.stand_down();
                continue;
            }
            let (due, next) = self.ledger.due(&observed.entries(), Instant::now());
            retry = next;
            if !due.is_empty() {
                retry = Some(Instant::now() + PACE);
                self.write(due, &leads).await;
            }
        }
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
            self.ledger.done(id, digest, succeeded, Instant::now());
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
            Kind::Policy => ApiResource::erase::<ProxyPolicy>(&()),
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

/// A time as conditions carry it: whole seconds.
fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
