//! Passive health: endpoints are judged by what becomes of their requests, and get nothing for a while if that is bad. The
//! rules are those of Envoy's outlier detection, and one on latency. Beside them, and always: an endpoint that refuses a
//! connection is left alone for a moment, which bridges the time until the EndpointSlices know of a dead pod.
//!
//! Here are the counts and who is told by them; `EndpointState` acts on it.

mod compare;
mod judge;
mod term;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use compare::Sample;
pub(super) use judge::{Judged, sweep};
pub use term::Out;

use super::{Outcome, Why};
use crate::snapshot::Ejection;

/// How long an endpoint that refused a connection is left alone, times how often it did so in a row.
const REFUSED: Duration = Duration::from_secs(1);
/// The longest of these times: short, because finding out costs a client only the time to be refused.
const REFUSED_LONGEST: Duration = Duration::from_secs(10);

/// A reason to eject an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    why: Why,
    detail: String,
}

/// What became of an endpoint's requests lately.
#[derive(Debug, Default)]
struct Record {
    /// In a row, as the next two.
    failures: AtomicU32,
    gateway_failures: AtomicU32,
    connect_failures: AtomicU32,
    /// Since the last comparison, as the rest.
    requests: AtomicU32,
    failed: AtomicU32,
    answers: AtomicU32,
    micros: AtomicU64,
}

impl Record {
    /// Learns of a request; returns a verdict if that was one failure in a row too many.
    fn learn(&self, outcome: Outcome, rules: &Ejection) -> Option<Verdict> {
        match outcome {
            Outcome::Unknown => return None,
            // It was counted when it began.
            Outcome::Cut => {}
            Outcome::Answered { first_byte, .. } => {
                self.requests.fetch_add(1, Relaxed);
                self.answers.fetch_add(1, Relaxed);
                let micros = u64::try_from(first_byte.as_micros()).unwrap_or(u64::MAX);
                self.micros.fetch_add(micros.min(1 << 40), Relaxed);
            }
            Outcome::Failed | Outcome::Unreachable => drop(self.requests.fetch_add(1, Relaxed)),
        }
        let failed = outcome.is_failure();
        if failed {
            self.failed.fetch_add(1, Relaxed);
        }
        let gateway = match outcome {
            Outcome::Answered { status, .. } => (502..=504).contains(&status),
            other => failed && other != Outcome::Cut,
        };
        let connect = outcome == Outcome::Unreachable;
        let one = in_a_row(&self.failures, failed, rules.consecutive_failures);
        let two = in_a_row(&self.gateway_failures, gateway, rules.consecutive_gateway_failures);
        let three = in_a_row(&self.connect_failures, connect, rules.consecutive_connect_failures);
        let (why, count) = if three {
            (Why::ConnectFailures, rules.consecutive_connect_failures)
        } else if two {
            (Why::GatewayFailures, rules.consecutive_gateway_failures)
        } else if one {
            (Why::Failures, rules.consecutive_failures)
        } else {
            return None;
        };
        Some(Verdict { why, detail: format!("{count} in a row") })
    }

    /// Takes what was counted since it was last taken.
    fn take(&self) -> Sample {
        let [requests, failed, answers] =
            [&self.requests, &self.failed, &self.answers].map(|count| count.swap(0, Relaxed));
        let micros = self.micros.swap(0, Relaxed);
        // A request may be counted between the reads, and an answer cut in another interval than it began in.
        let mean = micros.checked_div(u64::from(answers)).map(Duration::from_micros);
        Sample { requests, failed: failed.min(requests), first_byte: mean }
    }

    /// Forgets what was in a row.
    fn forget(&self) {
        for count in [&self.failures, &self.gateway_failures, &self.connect_failures] {
            count.store(0, Relaxed);
        }
    }
}

/// Counts what `happened`, or begins anew; whether `most` are reached, after which it begins anew, too.
fn in_a_row(count: &AtomicU32, happened: bool, most: u32) -> bool {
    if !happened {
        // Nearly always it is zero, and then nothing is written.
        if count.load(Relaxed) != 0 {
            count.store(0, Relaxed);
        }
        return false;
    }
    let reached = count.fetch_add(1, Relaxed) + 1 >= most && most > 0;
    if reached {
        count.store(0, Relaxed);
    }
    reached
}

#[cfg(test)]
mod tests;
