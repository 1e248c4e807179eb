//! Hosts: which routes serve each, in order of age, and which of their matches can never be reached because an older
//! route has the same.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Key;
use super::route::{Age, RouteState};
use crate::snapshot::{HostPattern, Map, Route, RouteMatch, Router, VirtualHost};

/// Every host that has a route.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    states: Map<HostPattern, HostState>,
    /// Hosts whose routes changed since they were built.
    dirty: BTreeSet<HostPattern>,
}

#[derive(Debug, Default)]
struct HostState {
    /// The routes, oldest first; nearly always one, so that a tree would be a waste.
    members: Vec<Age>,
    /// By the loser, what it lost. In a box, because nearly always nobody did.
    lost: Option<Box<Lost>>,
}

/// By the loser, what it lost.
type Lost = Map<Key, Vec<String>>;

impl HostState {
    fn losers(&self) -> impl Iterator<Item = &Key> {
        self.lost.iter().flat_map(|lost| lost.keys())
    }
}

impl Hosts {
    /// A route wants to be served at its hosts.
    pub(super) fn join(&mut self, route: &RouteState) {
        for host in &route.hosts {
            let members = &mut self.states.entry(host.clone()).or_default().members;
            if let Err(at) = members.binary_search(&route.age) {
                members.reserve_exact(1);
                members.insert(at, route.age.clone());
            }
        }
    }

    /// A route is to be served no longer at its hosts.
    pub(super) fn leave(&mut self, route: &RouteState) {
        for host in &route.hosts {
            if let Some(HostState { members, .. }) = self.states.get_mut(host)
                && let Ok(at) = members.binary_search(&route.age)
            {
                members.remove(at);
            }
        }
    }

    /// The oldest route of a host.
    pub(super) fn oldest(&self, host: &HostPattern) -> Option<&Key> {
        self.states.get(host)?.members.first().map(|Age(_, key)| key)
    }

    /// The hosts of a route have to be built again.
    pub(super) fn touch(&mut self, route: &RouteState) {
        self.dirty.extend(route.hosts.iter().cloned());
    }

    /// Builds what was touched. Returns the routes that lose or lost matches there.
    pub(super) fn build(&mut self, routes: &Map<Key, Box<RouteState>>, router: &mut Router) -> BTreeSet<Key> {
        let mut affected = BTreeSet::new();
        for host in std::mem::take(&mut self.dirty) {
            let Some(state) = self.states.get_mut(&host) else { continue };
            affected.extend(state.losers().cloned());
            let members = members(state, routes);
            if members.is_empty() {
                self.states.remove(&host);
                router.set(&host, None);
                continue;
            }
            let same = |built: &Arc<VirtualHost>| {
                let built = built.routes();
                built.len() == members.len() && built.iter().zip(&members).all(|(old, new)| Arc::ptr_eq(old, new.route))
            };
            if !router.host(&host).is_some_and(same) {
                let built: Vec<_> = members.iter().map(|member| Arc::clone(member.route)).collect();
                router.set(&host, Some(Arc::new(VirtualHost::build(built))));
                state.lost = conflicts(&host, &members);
                affected.extend(state.losers().cloned());
            }
        }
        affected
    }

    /// What a route lost, at all its hosts.
    pub(super) fn lost(&self, key: &Key, route: &RouteState) -> Box<[String]> {
        let states = route.hosts.iter().filter_map(|host| self.states.get(host));
        states.filter_map(|state| state.lost.as_ref()?.get(key)).flatten().cloned().collect()
    }
}

/// A rule at a host: of which object, at which position.
struct Member<'a> {
    key: &'a Key,
    rule: usize,
    route: &'a Arc<Route>,
}

fn members<'a>(state: &HostState, routes: &'a Map<Key, Box<RouteState>>) -> Vec<Member<'a>> {
    let of_route = state.members.iter().filter_map(|Age(_, key)| routes.get_key_value(key));
    let rules = of_route.flat_map(|(key, route)| {
        let rules = route.rules.iter().enumerate();
        rules.map(move |(rule, built)| Member { key, rule, route: &built.route })
    });
    rules.collect()
}

#[expect(clippy::mutable_key_type, reason = "patterns are compared by their text, not by the caches inside")]
fn conflicts(host: &HostPattern, members: &[Member<'_>]) -> Option<Box<Lost>> {
    let mut first: Map<&RouteMatch, &Key> = Map::default();
    let mut lost = Lost::default();
    for Member { key, rule, route } in members {
        for (at, one) in route.matches.iter().enumerate() {
            match first.entry(one) {
                Entry::Vacant(free) => drop(free.insert(key)),
                // The second of two rules of one route is its owner's own business.
                Entry::Occupied(winner) if winner.get() == key => {}
                Entry::Occupied(winner) => lost.entry((*key).clone()).or_default().push(format!(
                    "spec.rules[{rule}].matches[{at}]: ProxyRoute {}, which comes first, has the same match at host {host}",
                    winner.get()
                )),
            }
        }
    }
    (!lost.is_empty()).then(|| Box::new(lost))
}
