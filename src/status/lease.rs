//! Leader election by a Lease: who holds it writes statuses. Losing it stops writing and nothing else.
//!
//! As in client-go, no clock of another machine is trusted: a holder counts as gone when its Lease did not change for
//! the lease's duration by the local, monotonic clock. Every write carries the resourceVersion that was read, so that of
//! two candidates one is refused.

use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

/// The name of the Lease.
pub const NAME: &str = "floodway-leader";
/// A holder that was silent for so long is gone.
const DURATION: Duration = Duration::from_secs(15);
/// The holder renews so often.
const RENEW: Duration = Duration::from_secs(5);
/// A holder that could not renew for so long no longer counts itself as one; well before others take over.
const DEADLINE: Duration = Duration::from_secs(10);
/// Candidates, and holders that failed to renew, try so often.
const RETRY: Duration = Duration::from_secs(2);

/// Takes and keeps the Lease until `until`, then releases it. `leads` tells whether this process holds it.
pub(super) async fn run(
    client: Client,
    namespace: &str,
    identity: &str,
    leads: watch::Sender<bool>,
    until: impl Future<Output = ()>,
) {
    let mut candidate = Candidate::new(Api::namespaced(client, namespace), identity);
    let mut until = pin!(until);
    let mut renewed: Option<Instant> = None;
    let mut last_error = String::new();
    loop {
        let began = Instant::now();
        let patience = renewed.map_or(RENEW, |at| (at + DEADLINE).saturating_duration_since(began).min(RENEW));
        let attempt = tokio::select! {
            () = &mut until => break,
            attempt = tokio::time::timeout(patience, candidate.attempt(began)) => attempt,
        };
        let attempt = attempt.map_err(|_| "no answer in time".to_owned()).and_then(|a| a.map_err(|e| explain(&e)));
        match attempt {
            Ok(holds) => {
                renewed = holds.then_some(began);
                last_error.clear();
            }
            Err(error) => {
                renewed = renewed.filter(|at| at.elapsed() < DEADLINE);
                if error != last_error {
                    tracing::warn!(lease = %format_args!("{namespace}/{NAME}"), "cannot take or renew the lease: {error}");
                    last_error = error;
                }
            }
        }
        let holds = renewed.is_some();
        if leads.send_replace(holds) != holds {
            tracing::info!(identity, holds, "leadership changed; only the leader writes statuses");
        }
        let pause = if holds && last_error.is_empty() { RENEW } else { RETRY };
        let pause = pause.mul_f64(0.9 + fastrand::f64() * 0.1);
        // A holder whose renewals fail stops at the deadline, not at the attempt after it.
        let wake = renewed.map_or(Instant::now() + pause, |at| (Instant::now() + pause).min(at + DEADLINE));
        tokio::select! {
            () = &mut until => break,
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    if leads.send_replace(false) {
        let released = tokio::time::timeout(RETRY, candidate.release()).await;
        tracing::info!(identity, released = matches!(released, Ok(Ok(()))), "gave the lease back");
    }
}

fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            format!(
                "{}; the Role of the Helm chart allows get, create and update of leases in the pod's namespace",
                status.message
            )
        }
        other => other.to_string(),
    }
}

/// One who wants the Lease.
struct Candidate {
    api: Api<Lease>,
    claim: Claim,
}

impl Candidate {
    fn new(api: Api<Lease>, identity: &str) -> Self {
        Candidate { api, claim: Claim { identity: identity.to_owned(), seen: None } }
    }

    /// Tries to take or renew the Lease; returns whether it is held now.
    async fn attempt(&mut self, now: Instant) -> kube::Result<bool> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let spec = self.claim.next(LeaseSpec::default(), Timestamp::now());
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let created = self.api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await;
            return won(created);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if !self.claim.may_take(lease.metadata.resource_version.as_deref(), &spec, now) {
            return Ok(false);
        }
        lease.spec = Some(self.claim.next(spec, Timestamp::now()));
        won(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// Gives the Lease back, so that another need not wait for its end.
    async fn release(&mut self) -> kube::Result<()> {
        let mut lease = self.api.get(NAME).await?;
        let ours = Some(&self.claim.identity);
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == ours) else {
            return Ok(());
        };
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.api.replace(NAME, &PostParams::default(), &lease).await.map(|_| ())
    }
}

/// When the Lease may be taken, and how it is written then.
struct Claim {
    identity: String,
    /// The version of the Lease that was seen last, and since when.
    seen: Option<(String, Instant)>,
}

impl Claim {
    /// Whether the Lease is ours already, nobody's, or that of somebody who has gone silent.
    fn may_take(&mut self, version: Option<&str>, spec: &LeaseSpec, now: Instant) -> bool {
        let version = version.unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if seen == version => *since,
            _ => {
                self.seen = Some((version.to_owned(), now));
                now
            }
        };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = duration.map_or(DURATION, Duration::from_secs);
        holder.is_empty() || holder == self.identity || now.saturating_duration_since(since) >= duration
    }

    /// The Lease as we write it.
    fn next(&self, before: LeaseSpec, now: Timestamp) -> LeaseSpec {
        let renewal = before.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| renewal).or(Some(MicroTime(now))),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(i32::from(!renewal))),
            renew_time: Some(MicroTime(now)),
            ..before
        }
    }
}

/// Whether a write won: a conflict means that another was faster.
fn won(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn claim(identity: &str) -> Claim {
        Claim { identity: identity.to_owned(), seen: None }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_holder_is_gone_when_its_lease_did_not_change_for_its_duration_here() {
        let now = Instant::now();
        // Its clock is a year ahead, or behind: that does not matter.
        for year in ["2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"] {
            let theirs = claim("them").next(LeaseSpec::default(), time(year));
            let mut ours = claim("us");
            let seconds = |n| now + Duration::from_secs(n);
            assert!(!ours.may_take(Some("1"), &theirs, now));
            assert!(!ours.may_take(Some("1"), &theirs, seconds(14)));
            assert!(!ours.may_take(Some("2"), &theirs, seconds(15)), "it was renewed");
            assert!(!ours.may_take(Some("2"), &theirs, seconds(29)));
            assert!(ours.may_take(Some("2"), &theirs, seconds(30)));
        }
    }

    #[test]
    fn nobodys_lease_and_our_own_are_taken_at_once() {
        let now = Instant::now();
        assert!(claim("us").may_take(Some("1"), &LeaseSpec::default(), now));
        let ours = claim("us").next(LeaseSpec::default(), Timestamp::now());
        assert!(claim("us").may_take(Some("1"), &ours, now));
        assert!(!claim("them").may_take(Some("1"), &ours, now));
    }

    #[test]
    fn a_renewal_keeps_the_time_of_taking_and_a_transition_is_counted() {
        let (first, second) = (time("2026-01-01T00:00:00Z"), time("2026-01-01T00:00:05Z"));
        let taken = claim("us").next(LeaseSpec::default(), first);
        let renewed = claim("us").next(taken.clone(), second);
        assert_eq!((renewed.acquire_time, renewed.lease_transitions), (Some(MicroTime(first)), Some(1)));
        assert_eq!(renewed.renew_time, Some(MicroTime(second)));
        let lost = claim("them").next(taken, second);
        assert_eq!((lost.acquire_time, lost.lease_transitions), (Some(MicroTime(second)), Some(2)));
    }
}
