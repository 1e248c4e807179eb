//! What changed of an endpoint or of a cluster, so that people can be told: one line in the log, one event, one count each.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Moment;
use crate::snapshot::ClusterName;

/// Changes that wait to be told; more are only counted.
const MAX_UNTOLD: usize = 1024;

/// A change of an endpoint, or of its cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Where.
    pub cluster: ClusterName,
    /// Of whom; `None` if of the cluster as a whole.
    pub endpoint: Option<SocketAddr>,
    /// What happened.
    pub change: Change,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub from: State,
    /// What it is now; of the same [`Subject`].
    pub to: State,
    /// Which rule says so.
    pub why: Why,
    /// The facts, for people: `5 failures in a row`. May be empty.
    pub detail: String,
    /// When.
    pub at: Moment,
    /// When it will change again if nothing happens until then; `None` if time alone changes nothing.
    pub until: Option<Moment>,
}

/// Who judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// Active health checks.
    Health,
    /// Passive health: what became of requests.
    Ejection,
    /// The circuit breaker.
    Breaker,
}

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The word for it in logs, metrics, events and `/upstreams`.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// What an endpoint or a cluster is to one of its judges.
    State {
        /// Health checks succeed.
        Healthy = "healthy",
        /// Health checks fail.
        Unhealthy = "unhealthy",
        /// It gets its share.
        Admitted = "admitted",
        /// It gets nothing for a while.
        Ejected = "ejected",
        /// The breaker lets everything through and counts.
        Closed = "closed",
        /// The breaker lets nothing through.
        Open = "open",
        /// The breaker lets a few through, to see.
        HalfOpen = "half_open",
        /// Somebody opened the breaker for good.
        ForcedOpen = "forced_open",
        /// The breaker is off.
        Disabled = "disabled",
        /// The breaker only counts.
        MetricsOnly = "metrics_only",
    }
}

words! {
    /// Which rule changed it: a closed set, the label of metrics.
    Why {
        /// The connection was refused, or not accepted in time.
        Refused = "refused",
        /// Too many failures in a row.
        Failures = "failures",
        /// Too many failures in a row that a gateway would answer with 502, 503 or 504.
        GatewayFailures = "gateway_failures",
        /// Too many connections in a row could not be made.
        ConnectFailures = "connect_failures",
        /// Too many requests failed.
        FailureRate = "failure_rate",
        /// More of its requests failed than of others'.
        SuccessRate = "success_rate",
        /// It is much slower than others.
        Latency = "latency",
        /// Health checks say so.
        HealthCheck = "health_check",
        /// The time of the ejection, or of the open breaker, is over.
        TimeOver = "time_over",
        /// Too many calls were slow.
        SlowCallRate = "slow_call_rate",
        /// Enough of the calls that a half-open breaker let through were good.
        TrialPassed = "trial_passed",
        /// Too many of them were not.
        TrialFailed = "trial_failed",
        /// They did not come, or did not end, in time.
        TrialUnfinished = "trial_unfinished",
        /// The rule is not in force any more.
        Reconfigured = "reconfigured",
    }
}

impl State {
    /// Whose word it is.
    pub fn subject(self) -> Subject {
        match self {
            State::Healthy | State::Unhealthy => Subject::Health,
            State::Admitted | State::Ejected => Subject::Ejection,
            State::Closed
            | State::Open
            | State::HalfOpen
            | State::ForcedOpen
            | State::Disabled
            | State::MetricsOnly => Subject::Breaker,
        }
    }

    /// Whether it keeps requests away.
    pub fn is_bad(self) -> bool {
        matches!(self, State::Unhealthy | State::Ejected | State::Open | State::ForcedOpen)
    }
}

/// Changes that nobody was told of yet. Changes are rare, so that a lock does no harm. All clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal(Arc<Mutex<Untold>>);

/// What [`Registry::untold`](super::Registry::untold) takes.
#[derive(Debug, Default)]
pub struct Untold {
    /// In their order.
    pub transitions: VecDeque<Transition>,
    /// How many more there were than could be kept.
    pub lost: u64,
}

impl Journal {
    /// Notes a change.
    pub(super) fn note(&self, transition: Transition) {
        let mut untold = self.untold();
        if untold.transitions.len() < MAX_UNTOLD {
            untold.transitions.push_back(transition);
        } else {
            untold.lost += 1;
        }
    }

    /// Takes what is there.
    pub(super) fn take(&self) -> Untold {
        std::mem::take(&mut *self.untold())
    }

    fn untold(&self) -> MutexGuard<'_, Untold> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_changes_takes_bounded_room() {
        let journal = Journal::default();
        let transition = Transition {
            cluster: ClusterName::new("shop/llm:80"),
            endpoint: None,
            change: Change {
                from: State::Closed,
                to: State::Open,
                why: Why::Refused,
                detail: String::new(),
                at: Moment::default(),
                until: None,
            },
        };
        for _ in 0..MAX_UNTOLD + 3 {
            journal.note(transition.clone());
        }
        let untold = journal.take();
        assert_eq!((untold.transitions.len(), untold.lost), (MAX_UNTOLD, 3));
        assert!(journal.take().transitions.is_empty());
    }

    #[test]
    fn words_are_distinct() {
        let words: std::collections::BTreeSet<_> = State::ALL.iter().map(|state| state.word()).collect();
        assert_eq!(words.len(), State::ALL.len());
        let words: std::collections::BTreeSet<_> = Why::ALL.iter().map(|why| why.word()).collect();
        assert_eq!(words.len(), Why::ALL.len());
    }
}
