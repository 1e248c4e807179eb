//! Who gets the next request. A [`Balancer`] is one worker's choice among the endpoints of a cluster, or of a subset of it; the
//! algorithms that it uses are in files of their own, and know nothing of endpoints.
//!
//! Not here: the time and the request, which whoever asks brings; connections.

mod hash;
mod maglev;
mod ring;
mod slow_start;
mod table;
mod view;
mod weighted;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

pub use hash::hash;
pub use maglev::{Maglev, NotPrime};
pub use ring::Ring;
pub use slow_start::part;
pub use table::{Table, Tables};
pub use weighted::{Draws, SmoothTurns};

use self::view::View;
use super::{ClusterState, EndpointState, Moment};
use crate::snapshot::{Algorithm, Balancing, Resilience};

/// How often somebody else is drawn than who was drawn: an endpoint that is eased in, or the same again.
const DRAWS: usize = 8;
/// What an endpoint costs that is busy and has not answered yet, in microseconds: nobody knows how fast it is.
const UNKNOWN_MICROS: f64 = 1e6;

/// Somebody who can be chosen.
#[derive(Clone, Debug)]
pub struct Member {
    /// What the process knows of it.
    pub state: Arc<EndpointState>,
    /// Its weight; at least 1.
    pub weight: u32,
    /// Whether it is in Floodway's own zone.
    pub local: bool,
}

/// One worker's choice among the endpoints of a cluster, or of a subset of it.
#[derive(Debug)]
pub struct Balancer {
    cluster: Arc<ClusterState>,
    settings: Arc<Resilience>,
    members: Box<[Member]>,
    /// Of hashing algorithms: shared by all workers.
    table: Option<Table>,
    view: RefCell<View>,
}

impl Balancer {
    /// A choice among members. `seed` is where its random numbers begin.
    pub fn new(
        cluster: Arc<ClusterState>,
        settings: Arc<Resilience>,
        members: Box<[Member]>,
        table: Option<Table>,
        seed: u64,
    ) -> Self {
        Balancer { cluster, settings, members, table, view: RefCell::new(View::new(seed)) }
    }

    /// The index of the member for the next request: not one of those tried already, and the same as before for the same
    /// `place` if requests are hashed. `None` if nobody is left. `clock` is asked only where time matters.
    pub fn pick(&self, tried: &[SocketAddr], place: Option<u64>, clock: impl Fn() -> Moment) -> Option<usize> {
        let view = &mut *self.view.borrow_mut();
        view.refresh(&self.cluster, self.balancing(), &self.members, &clock);
        if let ([only], false) = (&view.usable[..], view.spares) {
            return Some(*only as usize).filter(|only| !self.was_tried(*only, tried));
        }
        let chosen = match &self.balancing().algorithm {
            _ if view.usable.is_empty() => None,
            Algorithm::RoundRobin | Algorithm::WeightedRoundRobin | Algorithm::Random => {
                let easing = view.easing(&clock);
                let chosen = self.draw(view, easing);
                (!self.was_tried(chosen, tried)).then_some(chosen)
            }
            Algorithm::LeastRequest { choices } => {
                let easing = view.easing(&clock);
                self.cheapest(view, tried, easing, *choices as usize, |member| self.load(member, easing))
            }
            Algorithm::PeakEwma => {
                let (easing, now) = (view.easing(&clock), clock());
                self.cheapest(view, tried, easing, 2, |member| self.expected(member, easing, now))
            }
            Algorithm::RingHash { hashing, .. } | Algorithm::Maglev { hashing, .. } => {
                let place = place.unwrap_or_else(|| view.random.u64(..));
                self.next(view, tried, place, hashing.bounded_percent)
            }
        };
        chosen.or_else(|| self.elsewhere(view, tried))
    }

    /// Whether somebody is left who was not tried.
    pub fn has_another(&self, tried: &[SocketAddr], clock: impl Fn() -> Moment) -> bool {
        let view = &mut *self.view.borrow_mut();
        view.refresh(&self.cluster, self.balancing(), &self.members, &clock);
        let fresh = |member: usize| !self.was_tried(member, tried);
        view.usable.iter().any(|member| fresh(*member as usize))
            || view.spares
                && (0..self.members.len()).any(|member| self.members[member].state.is_available() && fresh(member))
    }

    fn balancing(&self) -> &Balancing {
        &self.settings.balancing
    }

    fn was_tried(&self, member: usize, tried: &[SocketAddr]) -> bool {
        !tried.is_empty() && tried.contains(&self.members[member].state.address())
    }

    /// The part of its weight that a member has now.
    fn part(&self, member: usize, easing: Option<Moment>) -> f64 {
        match (easing, &self.balancing().slow_start) {
            (Some(now), Some(settings)) => {
                self.members[member].state.eased_since().map_or(1.0, |since| part(settings, since, now))
            }
            _ => 1.0,
        }
    }

    /// Somebody by turns or by chance. Whoever is eased in is passed over as often as weight is missing.
    fn draw(&self, view: &mut View, easing: Option<Moment>) -> usize {
        let mut chosen = view.one();
        if easing.is_some() {
            for _ in 0..DRAWS {
                let part = self.part(chosen, easing);
                if part >= 1.0 || view.random.f64() < part {
                    break;
                }
                chosen = view.one();
            }
        }
        chosen
    }

    /// Requests and streams in flight, by weight.
    fn load(&self, member: usize, easing: Option<Moment>) -> f64 {
        let Member { state, weight, .. } = &self.members[member];
        state.in_flight() as f64 / (f64::from(*weight) * self.part(member, easing))
    }

    /// How long an answer may take to begin, if those in flight go first: as in Finagle's `PeakEwma`. One of whom nothing is known
    /// is asked, but once at a time.
    fn expected(&self, member: usize, easing: Option<Moment>, now: Moment) -> f64 {
        let Member { state, weight, .. } = &self.members[member];
        let in_flight = state.in_flight() as f64;
        let micros = match state.first_byte().micros(now) {
            Some(micros) => micros,
            None if in_flight == 0.0 => 0.0,
            None => UNKNOWN_MICROS,
        };
        micros * (in_flight + 1.0) / (f64::from(*weight) * self.part(member, easing))
    }

    /// The cheapest of some that are drawn by weight; of those that cost the same, who was drawn first (Mitzenmacher, "The power of
    /// two choices in randomized load balancing"). Few are compared all, and those that cost the same take turns.
    fn cheapest(
        &self,
        view: &mut View,
        tried: &[SocketAddr],
        easing: Option<Moment>,
        choices: usize,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let first = self.draw(view, easing);
        let mut best = (!self.was_tried(first, tried)).then(|| (first, cost(first)));
        let mut consider = |member: usize| {
            if !self.was_tried(member, tried) {
                let cost = cost(member);
                if best.is_none_or(|(_, least)| cost < least) {
                    best = Some((member, cost));
                }
            }
        };
        if view.usable.len() <= choices {
            view.usable.iter().for_each(|member| consider(*member as usize));
        } else {
            for _ in 1..choices {
                let mut other = self.draw(view, easing);
                for _ in 0..DRAWS {
                    if other != first {
                        break;
                    }
                    other = self.draw(view, easing);
                }
                consider(other);
            }
        }
        best.map(|(member, _)| member)
    }

    /// The next from a place on who may be chosen, and has room if that is bounded (Mirrokni, Thorup and Zadimoghaddam, "Consistent
    /// hashing with bounded loads").
    fn next(&self, view: &View, tried: &[SocketAddr], place: u64, bounded: Option<u32>) -> Option<usize> {
        // A request that finds nobody for so long is better served by whoever looks at all members.
        let patience = 8 * self.members.len() + 64;
        let mut full = None;
        let bounded = bounded.map(|percent| {
            // This request included.
            let fair = (self.cluster.in_flight() + 1) as f64 * f64::from(percent) / 100.0 / view.weight as f64;
            move |member: &Member| (fair * f64::from(member.weight)).ceil().max(1.0) as u64
        });
        for member in self.table.as_ref()?.from(place).take(patience) {
            if !view.is_usable(member) || self.was_tried(member, tried) {
                continue;
            }
            match &bounded {
                Some(room) if self.members[member].state.in_flight() >= room(&self.members[member]) => {
                    full = full.or(Some(member));
                }
                _ => return Some(member),
            }
        }
        full
    }

    /// Somebody else than those that were tried: the least loaded, from a random one on. Preferences of zones end here.
    fn elsewhere(&self, view: &mut View, tried: &[SocketAddr]) -> Option<usize> {
        let count = self.members.len();
        let first = if count > 0 { view.random.usize(..count) } else { 0 };
        let fresh = (first..count).chain(0..first).filter(|member| !self.was_tried(*member, tried));
        let cost = |member: &usize| self.load(*member, None);
        let cheaper = |a: &usize, b: &usize| cost(a).total_cmp(&cost(b));
        let usable = fresh.clone().filter(|member| view.is_usable(*member)).min_by(cheaper);
        usable.or_else(|| fresh.filter(|member| self.members[*member].state.is_available()).min_by(cheaper))
    }

    /// Bytes it takes, without what workers share.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.members.len() * size_of::<Member>() + self.view.borrow().bytes()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
