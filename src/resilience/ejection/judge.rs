//! Acting on what is found: endpoints are taken out and let in again, and people are told.

use std::sync::Arc;
use std::time::Duration;

use super::term::Term;
use super::{Out, REFUSED, REFUSED_LONGEST, Record, Verdict, compare};
use crate::resilience::{Change, ClusterState, EndpointState, KeptOut, Moment, Outcome, State, Why};
use crate::snapshot::Ejection;

/// What passive health knows of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    record: Record,
    ejected: Term,
    refused: Term,
}

impl EndpointState {
    /// Why it is ejected, and until when; the longer one, if it is out for two reasons.
    pub fn ejected(&self) -> Option<Out> {
        let terms = [(KeptOut::Ejected, &self.judged.ejected), (KeptOut::Refused, &self.judged.refused)];
        let out = terms.into_iter().filter(|(why, _)| self.is_kept_out(*why)).filter_map(|(_, term)| term.runs());
        out.max_by_key(|out| out.until)
    }

    /// Draws conclusions from the outcome of an attempt.
    pub(crate) fn judge(&self, outcome: Outcome, now: Moment) {
        let Judged { record, refused, .. } = &self.judged;
        match outcome {
            Outcome::Unreachable => self.leave_alone(now),
            Outcome::Answered { .. } | Outcome::Failed => refused.forgive(),
            Outcome::Cut | Outcome::Unknown => {}
        }
        let settings = self.cluster().settings();
        // What is reported while it is ejected began before, and does not count (Envoy).
        if let Some(rules) = &settings.ejection
            && !self.is_kept_out(KeptOut::Ejected)
            && let Some(verdict) = record.learn(outcome, rules)
        {
            self.eject(verdict, rules, now);
        }
    }

    /// It refused a connection.
    fn leave_alone(&self, now: Moment) {
        if self.standing.set_unless_last(KeptOut::Refused, &self.cluster().counts) {
            let until = self.judged.refused.begin(Why::Refused, now, REFUSED, REFUSED_LONGEST, Duration::ZERO);
            let verdict = Verdict { why: Why::Refused, detail: String::new() };
            self.taken_out(verdict, self.is_kept_out(KeptOut::Ejected), now, until);
        }
    }

    fn eject(&self, verdict: Verdict, rules: &Ejection, now: Moment) {
        let counts = &self.cluster().counts;
        if !counts.reserve_ejection(rules.max_percent) {
            return;
        }
        if self.standing.set_unless_last(KeptOut::Ejected, counts) {
            let jitter = rules.jitter.mul_f64(fastrand::f64());
            let until = self.judged.ejected.begin(verdict.why, now, rules.base, rules.longest, jitter);
            self.taken_out(verdict, self.is_kept_out(KeptOut::Refused), now, until);
        } else {
            counts.release_ejection();
        }
    }

    fn taken_out(&self, verdict: Verdict, before: bool, at: Moment, until: Moment) {
        let Verdict { why, detail } = verdict;
        let from = if before { State::Ejected } else { State::Admitted };
        self.tell(Change { from, to: State::Ejected, why, detail, at, until: Some(until) });
    }

    /// What time brings.
    fn let_in_when_over(&self, rules: Option<&Ejection>, now: Moment) {
        for (why, term) in [(KeptOut::Ejected, &self.judged.ejected), (KeptOut::Refused, &self.judged.refused)] {
            let Some(out) = term.runs() else { continue };
            let reason = match rules {
                None if why == KeptOut::Ejected => Why::Reconfigured,
                _ if now >= out.until => Why::TimeOver,
                _ => continue,
            };
            self.judged.record.forget();
            term.end(now);
            if self.keep_out(why, false) {
                if why == KeptOut::Ejected {
                    self.cluster().counts.release_ejection();
                }
                // Out for another reason of ours, it is not in yet.
                if self.ejected().is_none() {
                    let (from, to, detail) = (State::Ejected, State::Admitted, String::new());
                    self.tell(Change { from, to, why: reason, detail, at: now, until: None });
                }
            }
        }
    }

    /// It is an endpoint of its cluster.
    pub(crate) fn join(&self) {
        self.standing.join(&self.cluster().counts);
    }

    /// It is none any more. What its requests said of it is forgotten: who comes back under its address is another.
    pub(crate) fn part(&self) {
        if self.standing.part(&self.cluster().counts) {
            self.cluster().counts.release_ejection();
        }
        let Judged { record, ejected, refused } = &self.judged;
        record.forget();
        ejected.clear();
        refused.clear();
    }
}

/// Lets endpoints of a cluster in whose time is over and, once per interval, compares them with each other.
pub(crate) fn sweep<'a>(
    cluster: &ClusterState,
    endpoints: impl Iterator<Item = &'a Arc<EndpointState>> + Clone,
    compared: &mut Option<Moment>,
    now: Moment,
) {
    let settings = cluster.settings();
    let rules = settings.ejection.as_ref();
    if let Some(rules) = rules {
        let last = *compared.get_or_insert(now);
        if now - last >= rules.interval {
            *compared = Some(now);
            compare(endpoints.clone(), rules, now);
        }
    }
    for endpoint in endpoints {
        endpoint.let_in_when_over(rules, now);
    }
}

fn compare<'a>(endpoints: impl Iterator<Item = &'a Arc<EndpointState>>, rules: &Ejection, now: Moment) {
    let mut samples = Vec::new();
    let mut candidates = Vec::new();
    for endpoint in endpoints {
        endpoint.judged.ejected.decay(rules.interval, now);
        let sample = endpoint.judged.record.take();
        if endpoint.standing.is_member() && !endpoint.is_kept_out(KeptOut::Ejected) {
            samples.push(sample);
            candidates.push(endpoint);
        }
    }
    for (index, verdict) in compare::outliers(&samples, rules) {
        candidates[index].eject(verdict, rules, now);
    }
}
