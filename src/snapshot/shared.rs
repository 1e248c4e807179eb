//! A map whose versions share what is equal: cloning, changing one entry, and telling what differs from an earlier version
//! cost next to nothing, however many entries there are.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::Index;
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::{Serialize, Serializer};

use super::Map;

/// Maps that are shared with other versions until an entry of theirs changes. Enough of them to keep each small with ten
/// thousand entries, few enough for their pointers to be copied and compared in a microsecond.
const SHARDS: usize = 256;
/// Which shard a key is in must be the same in every version.
const PLACES: FixedState = FixedState::with_seed(0);

/// A map in shards, in no order. Keys come from our own objects, as those of [`Map`] do.
pub struct SharedMap<K, V> {
    shards: Arc<[Arc<Map<K, V>>]>,
    len: usize,
}

impl<K, V> SharedMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Whether both are the same version, or one that nothing was changed in since.
    pub fn is(&self, other: &Self) -> bool {
        self.len == other.len && self.shards_differing(other).next().is_none()
    }

    fn shards_differing<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a Map<K, V>, &'a Map<K, V>)> + use<'a, K, V> {
        // The whole first: of versions between which nothing changed it is one.
        let both = if Arc::ptr_eq(&self.shards, &other.shards) { &[][..] } else { &self.shards[..] };
        let both = both.iter().zip(&*other.shards);
        both.filter(|(one, other)| !Arc::ptr_eq(one, other)).map(|(one, other)| (&**one, &**other))
    }
}

fn place<Q: Hash + ?Sized>(key: &Q) -> usize {
    // The upper bits: hash tables look at the lower ones first.
    (PLACES.hash_one(key) >> 32) as usize % SHARDS
}

impl<K: Eq + Hash, V> SharedMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards[place(key)].get(key)
    }

    /// Whether there is such a key.
    pub fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Whether both have the same keys.
    pub fn same_keys(&self, other: &Self) -> bool {
        let mut shards = self.shards_differing(other);
        self.len == other.len && shards.all(|(one, other)| one.keys().all(|key| other.contains_key(key)))
    }

    /// The keys that only one of both has, and those whose values are not the `same`.
    pub fn differing<'a>(
        &'a self,
        other: &'a Self,
        same: impl Fn(&V, &V) -> bool + Copy,
    ) -> impl Iterator<Item = &'a K> {
        self.shards_differing(other).flat_map(move |(one, other)| {
            let new = one.iter().filter(move |(key, value)| !other.get(key).is_some_and(|other| same(value, other)));
            new.map(|(key, _)| key).chain(other.keys().filter(|key| !one.contains_key(key)))
        })
    }
}

impl<K: Clone + Eq + Hash, V: Clone> SharedMap<K, V> {
    /// Puts a value at a key; returns the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let old = self.shard(&key).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes a key out; returns its value.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // Looked up first, because asking for a shard makes a copy of it.
        self.get(key)?;
        let old = self.shard(key).remove(key);
        self.len -= usize::from(old.is_some());
        old
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.get(key)?;
        self.shard(key).get_mut(key)
    }

    fn shard<Q: Hash + ?Sized>(&mut self, key: &Q) -> &mut Map<K, V> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place(key)])
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        let empty = Arc::new(Map::default());
        SharedMap { shards: std::iter::repeat_n(empty, SHARDS).collect(), len: 0 }
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        SharedMap { shards: Arc::clone(&self.shards), len: self.len }
    }
}

impl<K: Eq + Hash, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.shards_differing(other).all(|(one, other)| one == other)
    }
}

impl<K: Eq + Hash, V: Eq> Eq for SharedMap<K, V> {}

impl<K: Eq + Hash, V, Q: Eq + Hash + ?Sized> Index<&Q> for SharedMap<K, V>
where
    K: Borrow<Q>,
{
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        &self.shards[place(key)][key]
    }
}

impl<K: Clone + Eq + Hash, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = SharedMap::default();
        entries.into_iter().for_each(|(key, value)| drop(map.insert(key, value)));
        map
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Two versions that went apart, against two plain maps.
        #[test]
        fn versions_are_maps_and_know_what_differs(
            common in proptest::collection::vec((0u16..600, 0u8..3), 0..300),
            changes in proptest::collection::vec((0u16..600, proptest::option::of(0u8..3)), 0..20),
        ) {
            let old: SharedMap<u16, u8> = common.iter().copied().collect();
            let plain_old: BTreeMap<u16, u8> = common.iter().copied().collect();
            let (mut new, mut plain_new) = (old.clone(), plain_old.clone());
            for (key, value) in changes {
                let (one, other) = match value {
                    Some(value) => (new.insert(key, value), plain_new.insert(key, value)),
                    None => (new.remove(&key), plain_new.remove(&key)),
                };
                prop_assert_eq!(one, other);
            }
            for (map, plain) in [(&old, &plain_old), (&new, &plain_new)] {
                prop_assert_eq!(map.len(), plain.len());
                prop_assert_eq!(&map.iter().map(|(key, value)| (*key, *value)).collect::<BTreeMap<_, _>>(), plain);
                prop_assert!((0..600).all(|key| map.get(&key) == plain.get(&key)));
            }
            let differing: BTreeSet<u16> = new.differing(&old, u8::eq).copied().collect();
            let expected: BTreeSet<u16> = (0..600).filter(|key| plain_old.get(key) != plain_new.get(key)).collect();
            prop_assert_eq!(differing, expected);
            prop_assert_eq!(new == old, plain_new == plain_old);
            prop_assert_eq!(new.same_keys(&old), plain_new.keys().eq(plain_old.keys()));
        }
    }
}
