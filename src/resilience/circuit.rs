//! Breakers in their places: the one of a cluster, and those of its endpoints. What a breaker does is told, and an endpoint whose
//! breaker lets nothing through is kept out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::breaker::{self, Breaker, Call, Look, NotPermitted, Permit};
use super::{Change, ClusterState, EndpointState, KeptOut, Moment, Outcome, State, Why};
use crate::snapshot::{BreakerMode, CircuitBreaker, ClusterName};

/// Where a breaker is.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// Before all endpoints of a cluster.
    Cluster(&'a ClusterState),
    /// Before one endpoint.
    Endpoint(&'a EndpointState),
}

/// A breaker that tells what it does.
#[derive(Debug)]
pub struct Circuit {
    breaker: Breaker,
    /// The state that was told last (8 bits) and its generation (16).
    told: AtomicU32,
}

impl Circuit {
    /// Asks for leave to call.
    ///
    /// # Errors
    /// It is open, or has no permit left.
    pub fn acquire(&self, place: Place<'_>, now: Moment) -> Result<Permit, NotPermitted> {
        let asked = self.breaker.acquire(now);
        self.follow(place, asked.is_ok_and(|permit| permit.trial), now);
        asked
    }

    /// Gives leave back that was not used, or nothing is known of how.
    pub fn release(&self, place: Place<'_>, permit: Permit, now: Moment) {
        self.breaker.release(permit);
        self.follow(place, permit.trial, now);
    }

    /// Learns what came of a call that took so long until its outcome was known.
    pub fn record(&self, place: Place<'_>, permit: Permit, outcome: Outcome, took: Duration, now: Moment) {
        let settings = self.breaker.settings();
        let (failed, took) = match outcome {
            Outcome::Unknown => return self.release(place, permit, now),
            Outcome::Cut => {
                if settings.failures.cut {
                    self.breaker.cut(permit, now);
                }
                return self.follow(place, permit.trial, now);
            }
            Outcome::Unreachable | Outcome::Failed => (true, took),
            Outcome::Answered { status, first_byte } => (settings.failures.has(status), first_byte),
        };
        self.breaker.record(permit, Call { failed, slow: took > settings.slow_call_duration }, now);
        self.follow(place, permit.trial, now);
    }

    /// Ends what is over, and lets an endpoint in again that may be asked.
    pub fn look_after(&self, place: Place<'_>, now: Moment) {
        self.breaker.look_after(now);
        self.tell(place, now);
    }

    /// What can be seen of it.
    pub fn look(&self, now: Moment) -> Look {
        self.breaker.look(now)
    }

    /// Its settings.
    pub fn settings(&self) -> &CircuitBreaker {
        self.breaker.settings()
    }

    fn follow(&self, place: Place<'_>, trial: bool, now: Moment) {
        // Taking a permit of a half-open breaker may have taken the last one.
        if trial || self.told.load(Ordering::Relaxed) & 0xffff != u32::from(self.breaker.state().1) {
            self.tell(place, now);
        }
    }

    #[cold]
    fn tell(&self, place: Place<'_>, now: Moment) {
        let (state, generation) = self.breaker.state();
        let newer = |old: u32| ((generation.wrapping_sub(old as u16) as i16) > 0).then_some(told((state, generation)));
        if let Ok(before) = self.told.fetch_update(Ordering::AcqRel, Ordering::Relaxed, newer) {
            let from = match before >> 16 {
                0 => breaker::State::Closed,
                1 => breaker::State::Open,
                _ => breaker::State::HalfOpen,
            };
            if from != state {
                place.tell(self.change(from, state, now));
            }
        }
        if let Place::Endpoint(endpoint) = place {
            keep_out(endpoint, now);
        }
    }

    fn change(&self, from: breaker::State, to: breaker::State, now: Moment) -> Change {
        use breaker::State::{Closed, HalfOpen, Open};
        let look = self.breaker.look(now);
        let settings = self.breaker.settings();
        let (calls, failed) = (look.totals.calls, look.totals.failed);
        let too_many_failed = failed * 100 >= u32::from(settings.failure_rate_percent) * calls;
        let finished = calls >= settings.permitted_in_half_open;
        let why = match (from, to) {
            (HalfOpen, Open) if finished => Why::TrialFailed,
            (HalfOpen, Open) => Why::TrialUnfinished,
            (_, Open) if too_many_failed => Why::FailureRate,
            (_, Open) => Why::SlowCallRate,
            (_, HalfOpen) => Why::TimeOver,
            (_, Closed) => Why::TrialPassed,
        };
        let detail = match to {
            Open => format!("{failed} of {calls} calls failed, {} were slow", look.totals.slow),
            HalfOpen | Closed => String::new(),
        };
        Change { from: from.into(), to: to.into(), why, detail, at: now, until: look.left.map(|left| now + left) }
    }
}

/// Breakers of a cluster, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breakers {
    /// The cluster.
    pub cluster: ClusterName,
    /// Whether they are those of its endpoints, or the one before them.
    pub of_endpoints: bool,
    /// How many are in which state.
    pub states: BTreeMap<State, u64>,
    /// Calls that they did not permit.
    pub not_permitted: u64,
}

impl Breakers {
    /// Counts those of a cluster, and those of its endpoints, if there are any.
    pub(super) fn count<'a>(
        cluster: &ClusterState,
        endpoints: impl Iterator<Item = &'a Arc<EndpointState>>,
        now: Moment,
    ) -> impl Iterator<Item = Breakers> {
        let of_endpoints = endpoints.filter_map(|endpoint| endpoint.breaker().circuit());
        let (one, others) = (cluster.breaker().circuit(), of_endpoints.collect::<Vec<_>>());
        let groups = [(false, one.into_iter().collect()), (true, others)].into_iter();
        let counted = groups.filter(|(_, circuits): &(bool, Vec<_>)| !circuits.is_empty());
        counted.map(move |(of_endpoints, circuits)| {
            let mut states = BTreeMap::from([State::Closed, State::Open, State::HalfOpen].map(|state| (state, 0)));
            let mut not_permitted = 0;
            for circuit in circuits {
                let look = circuit.look(now);
                *states.entry(look.word()).or_default() += 1;
                // Those of endpoints count together.
                not_permitted = look.not_permitted;
            }
            Breakers { cluster: cluster.name().clone(), of_endpoints, states, not_permitted }
        })
    }
}

/// Ends what time alone ends, so that what is seen of breakers is true although nobody asks them.
pub(super) fn sweep<'a>(cluster: &ClusterState, endpoints: impl Iterator<Item = &'a Arc<EndpointState>>, now: Moment) {
    if let Some(circuit) = cluster.breaker().circuit() {
        circuit.look_after(Place::Cluster(cluster), now);
    }
    for endpoint in endpoints {
        if let Some(circuit) = endpoint.breaker().circuit() {
            circuit.look_after(Place::Endpoint(endpoint), now);
        }
    }
}

/// Keeps an endpoint out while its breaker would refuse whoever asks. Whoever finds that another state, or another breaker, has
/// come meanwhile acts again, so that the last one counts.
pub(super) fn keep_out(endpoint: &EndpointState, now: Moment) {
    loop {
        let circuit = endpoint.breaker().circuit();
        let refuses = || circuit.as_ref().is_some_and(|circuit| circuit.breaker.refuses(now));
        let out = refuses();
        endpoint.keep_out(KeptOut::BreakerOpen, out);
        if out && let Some(left) = circuit.as_ref().and_then(|circuit| circuit.breaker.look(now).left) {
            endpoint.cluster().look_again(now + left);
        }
        if out == refuses() && endpoint.breaker().has(circuit.as_ref()) {
            return;
        }
    }
}

impl Place<'_> {
    /// Where calls are counted that are not permitted: endpoints come and go, but what is counted must not go with them.
    fn not_permitted(self) -> Arc<AtomicU64> {
        Arc::clone(match self {
            Place::Cluster(cluster) => &cluster.not_permitted.0,
            Place::Endpoint(endpoint) => &endpoint.cluster().not_permitted.1,
        })
    }

    fn tell(self, change: Change) {
        match self {
            Place::Cluster(cluster) => cluster.tell(change),
            Place::Endpoint(endpoint) => endpoint.tell(change),
        }
    }
}

impl From<breaker::State> for State {
    fn from(state: breaker::State) -> State {
        match state {
            breaker::State::Closed => State::Closed,
            breaker::State::Open => State::Open,
            breaker::State::HalfOpen => State::HalfOpen,
        }
    }
}

impl Look {
    /// The word for what it does.
    pub fn word(&self) -> State {
        match self.mode {
            BreakerMode::Automatic => self.state.into(),
            BreakerMode::MetricsOnly => State::MetricsOnly,
            BreakerMode::ForcedOpen => State::ForcedOpen,
            BreakerMode::Disabled => State::Disabled,
        }
    }
}

/// The breaker that a cluster or an endpoint has at the moment. It changes only with the configuration.
#[derive(Debug, Default)]
pub struct Socket(ArcSwapOption<Circuit>);

impl Socket {
    /// What is there.
    pub fn circuit(&self) -> Option<Arc<Circuit>> {
        self.0.load_full()
    }

    /// Has what these settings say, with the state of what was there before. Only one at a time may say so.
    pub(super) fn configure(&self, settings: Option<&CircuitBreaker>, place: Place<'_>, now: Moment) {
        let held = self.circuit();
        if held.as_ref().map(|circuit| circuit.settings()) == settings {
            return;
        }
        let before = held.as_ref().map_or(State::Closed, |circuit| circuit.look(now).word());
        let breaker = match (&held, settings) {
            (_, None) => None,
            (None, Some(settings)) => {
                Some(Breaker::new(settings.clone(), fastrand::u64(..)).counting_in(place.not_permitted()))
            }
            (Some(circuit), Some(settings)) => Some(circuit.breaker.reconfigured(settings.clone())),
        };
        let circuit = breaker.map(|breaker| {
            let told = AtomicU32::new(told(breaker.state()));
            Arc::new(Circuit { breaker, told })
        });
        let after = circuit.as_ref().map(|circuit| circuit.look(now));
        self.0.store(circuit);
        let to = after.map_or(State::Closed, |look| look.word());
        if before != to {
            let until = after.and_then(|look| look.left).map(|left| now + left);
            place.tell(Change { from: before, to, why: Why::Reconfigured, detail: String::new(), at: now, until });
        }
        if let Place::Endpoint(endpoint) = place {
            keep_out(endpoint, now);
        }
    }

    fn has(&self, circuit: Option<&Arc<Circuit>>) -> bool {
        self.circuit().as_ref().map(Arc::as_ptr) == circuit.map(Arc::as_ptr)
    }
}

fn told((state, generation): (breaker::State, u16)) -> u32 {
    (state as u32) << 16 | u32::from(generation)
}
