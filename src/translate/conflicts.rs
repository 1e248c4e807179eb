//! Hosts: which routes serve each, in order of age, and which of their matches can never be reached because an older
//! route has the same.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Key;
use super::route::RouteState;
use crate::snapshot::{HostPattern, Map, Route, RouteMatch, VirtualHost};

/// A host as it was last built.
#[derive(Debug)]
pub(super) struct HostState {
    pub(super) virtual_host: Arc<VirtualHost>,
    lost: Vec<Lost>,
}

/// A match that is another route's.
#[derive(Debug)]
struct Lost {
    loser: Key,
    why: String,
}

/// A rule at a host: of which object, at which position.
struct Member<'a> {
    key: &'a Key,
    rule: usize,
    route: &'a Arc<Route>,
}

/// Brings `hosts` up to the routes, keeping what did not change. Returns whether anything did, and the lost matches by
/// the key of the loser.
pub(super) fn group<'a>(
    hosts: &mut Map<HostPattern, HostState>,
    routes: impl Iterator<Item = (&'a Key, &'a RouteState)>,
) -> (bool, Map<Key, Vec<String>>) {
    let mut oldest_first: Vec<_> = routes.collect();
    oldest_first.sort_by(|(_, a), (_, b)| a.age.cmp(&b.age));
    let mut members: Map<&HostPattern, Vec<Member<'_>>> = Map::default();
    for (key, state) in oldest_first.into_iter().filter(|(_, state)| !state.rules.is_empty()) {
        for host in &state.hosts {
            let rules = state.rules.iter().enumerate();
            let rules = rules.map(|(rule, built)| Member { key, rule, route: &built.route });
            members.entry(host).or_default().extend(rules);
        }
    }
    let before = hosts.len();
    hosts.retain(|host, _| members.contains_key(host));
    let mut changed = hosts.len() != before;
    let mut lost: Map<Key, Vec<String>> = Map::default();
    for (host, members) in members {
        let state = match hosts.entry(host.clone()) {
            Entry::Occupied(kept) => {
                let state = kept.into_mut();
                let routes = state.virtual_host.routes();
                let same = routes.len() == members.len()
                    && routes.iter().zip(&members).all(|(old, new)| Arc::ptr_eq(old, new.route));
                if !same {
                    *state = build(host, &members);
                    changed = true;
                }
                state
            }
            Entry::Vacant(free) => {
                changed = true;
                free.insert(build(host, &members))
            }
        };
        for Lost { loser, why } in &state.lost {
            lost.entry(loser.clone()).or_default().push(why.clone());
        }
    }
    // Hosts come in no order; what owners read must not depend on that.
    lost.values_mut().for_each(|sentences| sentences.sort());
    (changed, lost)
}

#[expect(clippy::mutable_key_type, reason = "patterns are compared by their text, not by the caches inside")]
fn build(host: &HostPattern, members: &[Member<'_>]) -> HostState {
    let mut first: Map<&RouteMatch, &Key> = Map::default();
    let mut lost = Vec::new();
    for Member { key, rule, route } in members {
        for (at, one) in route.matches.iter().enumerate() {
            match first.entry(one) {
                Entry::Vacant(free) => drop(free.insert(key)),
                // The second of two rules of one route is its owner's own business.
                Entry::Occupied(winner) if winner.get() == key => {}
                Entry::Occupied(winner) => lost.push(Lost {
                    loser: (*key).clone(),
                    why: format!(
                        "spec.rules[{rule}].matches[{at}]: ProxyRoute {}, which comes first, has the same match at host {host}",
                        winner.get()
                    ),
                }),
            }
        }
    }
    let routes: Vec<_> = members.iter().map(|member| Arc::clone(member.route)).collect();
    HostState { virtual_host: Arc::new(VirtualHost::build(routes)), lost }
}
