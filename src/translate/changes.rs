//! What differs between the resources that were translated last and those that are to be translated now. An object that
//! did not change has its old `Arc`, so that ten thousand of them are compared by pointers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{AddressSlice, Key, Resources};

/// Keys of what was added, changed or removed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) routes: BTreeSet<Key>,
    pub(super) upstreams: BTreeSet<Key>,
    pub(super) services: BTreeSet<Key>,
    /// Keys of Services whose slices changed.
    pub(super) slices: BTreeSet<Key>,
    pub(super) resolved: BTreeSet<String>,
}

impl Changes {
    /// Brings `seen` up to `now` and says what that took.
    pub(super) fn follow(seen: &mut Resources, now: &Resources) -> Self {
        let Resources { routes, upstreams, services, slices, resolved } = now;
        Changes {
            routes: follow(&mut seen.routes, routes, Arc::ptr_eq),
            upstreams: follow(&mut seen.upstreams, upstreams, Arc::ptr_eq),
            services: follow(&mut seen.services, services, Arc::ptr_eq),
            slices: follow(&mut seen.slices, slices, same_slices),
            resolved: follow(&mut seen.resolved, resolved, |old, new| Arc::ptr_eq(old, new) || old == new),
        }
    }
}

fn same_slices(old: &BTreeMap<Arc<str>, Arc<AddressSlice>>, new: &BTreeMap<Arc<str>, Arc<AddressSlice>>) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.0 == new.0 && Arc::ptr_eq(old.1, new.1))
}

fn follow<K: Ord + Clone, V: Clone>(
    seen: &mut BTreeMap<K, V>,
    now: &BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> BTreeSet<K> {
    let mut changed = BTreeSet::new();
    let mut old = seen.iter().peekable();
    for (key, value) in now {
        // Equality first: equal keys are nearly always one allocation, which needs no look at the text.
        while old.peek().is_some_and(|(passed, _)| *passed != key && *passed < key) {
            changed.extend(old.next().map(|(gone, _)| gone.clone()));
        }
        match old.next_if(|(same_key, _)| *same_key == key) {
            Some((_, before)) if same(before, value) => {}
            _ => drop(changed.insert(key.clone())),
        }
    }
    changed.extend(old.map(|(gone, _)| gone.clone()));
    for key in &changed {
        match now.get(key) {
            Some(value) => drop(seen.insert(key.clone(), value.clone())),
            None => drop(seen.remove(key)),
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn changes_are_what_differs(
            before in proptest::collection::btree_map(0u8..20, 0u8..3, 0..15),
            now in proptest::collection::btree_map(0u8..20, 0u8..3, 0..15),
        ) {
            let mut seen = before.clone();
            let changed = follow(&mut seen, &now, PartialEq::eq);
            prop_assert_eq!(&seen, &now);
            let expected: BTreeSet<_> = (0u8..20).filter(|key| before.get(key) != now.get(key)).collect();
            prop_assert_eq!(changed, expected);
        }
    }
}
