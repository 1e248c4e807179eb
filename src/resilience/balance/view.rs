//! What a worker has computed from who is available: its own until that changes.

use super::super::{ClusterState, KeptOut, Moment};
use super::Member;
use super::weighted::{Draws, SmoothTurns};
use crate::snapshot::{Algorithm, Balancing, Locality};

/// Turns that a worker may be ahead of another when both begin, so that not all begin with the same endpoint.
const AHEAD: usize = 64;

/// Who may be chosen.
#[derive(Debug)]
pub(super) struct View {
    /// What [`ClusterState::version`] was.
    version: Option<u32>,
    /// Who may be chosen, by index.
    pub usable: Vec<u32>,
    is_usable: Vec<bool>,
    /// Whether others are available, too, who are not preferred.
    pub spares: bool,
    /// The weight of all who may be chosen.
    pub weight: u64,
    /// Until when somebody is eased in.
    easing: Option<Moment>,
    order: Order,
    pub random: fastrand::Rng,
}

/// Who is drawn next.
#[derive(Debug)]
enum Order {
    /// Any.
    Even,
    /// Any, by weight.
    Weighted(Draws),
    /// One after the other; who is next.
    Turns(usize),
    /// One after the other, by weight.
    WeightedTurns(SmoothTurns),
}

impl View {
    pub(super) fn new(seed: u64) -> Self {
        View {
            version: None,
            usable: Vec::new(),
            is_usable: Vec::new(),
            spares: false,
            weight: 0,
            easing: None,
            order: Order::Even,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Looks again who is available if that has changed.
    #[inline]
    pub(super) fn refresh(
        &mut self,
        cluster: &ClusterState,
        settings: &Balancing,
        members: &[Member],
        clock: &impl Fn() -> Moment,
    ) {
        // Before the members are looked at: a change that comes meanwhile is another version.
        let version = cluster.version();
        if self.version != Some(version) {
            self.version = Some(version);
            self.look(settings, members, clock());
        }
    }

    #[cold]
    fn look(&mut self, settings: &Balancing, members: &[Member], now: Moment) {
        let available: Vec<bool> = members.iter().map(|member| member.state.is_available()).collect();
        let count = available.iter().filter(|available| **available).count();
        let tried: Vec<bool> = members.iter().map(|member| !member.state.is_kept_out(KeptOut::Untried)).collect();
        let known = tried.iter().filter(|tried| **tried).count();
        let panics = count * 100 < usize::from(settings.panic_percent) * known;
        let usable: Vec<bool> =
            available.iter().zip(tried).map(|(available, tried)| *available || panics && tried).collect();
        self.is_usable = match settings.locality {
            Some(locality) => preferred(members, usable, locality),
            None => usable,
        };
        self.usable = (0..members.len() as u32).filter(|member| self.is_usable[*member as usize]).collect();
        self.spares = available.iter().zip(&self.is_usable).any(|(available, usable)| *available && !usable);
        let of = |member: &u32| &members[*member as usize];
        self.weight = self.usable.iter().map(|member| u64::from(of(member).weight)).sum();
        self.easing = settings.slow_start.and_then(|settings| {
            members.iter().for_each(|member| member.state.ease_in(now));
            let begun = self.usable.iter().filter_map(|member| of(member).state.eased_since());
            begun.map(|since| since + settings.window).max().filter(|until| *until > now)
        });
        self.order(settings, members);
    }

    fn order(&mut self, settings: &Balancing, members: &[Member]) {
        let weights: Vec<(u32, u32)> =
            self.usable.iter().map(|member| (*member, members[*member as usize].weight)).collect();
        let even = weights.windows(2).all(|pair| pair[0].1 == pair[1].1);
        let turns = |random: &mut fastrand::Rng| {
            let mut turns = SmoothTurns::new(weights.iter().map(|(member, weight)| (*member as usize, *weight)));
            for _ in 0..random.usize(..AHEAD.min(weights.len().max(1))) {
                turns.turn();
            }
            Order::WeightedTurns(turns)
        };
        let few = match settings.algorithm {
            Algorithm::LeastRequest { choices } => choices as usize,
            Algorithm::PeakEwma => 2,
            _ => 0,
        };
        self.order = match settings.algorithm {
            Algorithm::RoundRobin => match self.order {
                Order::Turns(next) => Order::Turns(next),
                _ => Order::Turns(self.random.usize(..self.usable.len().max(1))),
            },
            Algorithm::WeightedRoundRobin => turns(&mut self.random),
            // Few are all compared; those that cost the same take turns.
            _ if weights.len() <= few => turns(&mut self.random),
            Algorithm::RingHash { .. } | Algorithm::Maglev { .. } => Order::Even,
            _ if even => Order::Even,
            _ => Order::Weighted(Draws::new(&weights)),
        };
    }

    /// Somebody, in order. There must be somebody.
    pub(super) fn one(&mut self) -> usize {
        match &mut self.order {
            Order::Even => self.usable[self.random.usize(..self.usable.len())] as usize,
            Order::Weighted(draws) => draws.draw(self.random.u64(..)),
            Order::Turns(next) => {
                let at = if *next < self.usable.len() { *next } else { 0 };
                *next = at + 1;
                self.usable[at] as usize
            }
            Order::WeightedTurns(turns) => turns.turn().unwrap_or(self.usable[0] as usize),
        }
    }

    /// The time, if somebody is still eased in.
    pub(super) fn easing(&mut self, clock: impl Fn() -> Moment) -> Option<Moment> {
        let until = self.easing?;
        let now = clock();
        if now >= until {
            self.easing = None;
        }
        self.easing.map(|_| now)
    }

    pub(super) fn is_usable(&self, member: usize) -> bool {
        self.is_usable[member]
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let order = match &self.order {
            Order::Even | Order::Turns(_) => 0,
            Order::Weighted(draws) => draws.bytes(),
            Order::WeightedTurns(turns) => turns.bytes(),
        };
        self.usable.capacity() * size_of::<u32>() + self.is_usable.capacity() + order
    }
}

/// Those of the own zone, as long as there are enough of them.
fn preferred(members: &[Member], usable: Vec<bool>, locality: Locality) -> Vec<bool> {
    let local = members.iter().filter(|member| member.local).count();
    let near: Vec<bool> = members.iter().zip(&usable).map(|(member, usable)| member.local && *usable).collect();
    let left = near.iter().filter(|near| **near).count();
    let enough = left * 100 >= usize::from(locality.min_available_percent) * local
        && left >= (locality.min_endpoints as usize).max(1);
    if enough { near } else { usable }
}
