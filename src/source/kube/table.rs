//! What one watch has put into [`Resources`]: applies its events, and after a new list takes out what was not in it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;

use super::StatusSeen;
use super::item::Item;
use super::kinds::Kind;
use crate::source::Store;
use crate::translate::{Key, Malformed};

/// What one watch has put in. An object that cannot be read counts as being there, so that its last good version stays.
pub(super) struct Table<K: Kind> {
    store: Store,
    seen: Arc<StatusSeen>,
    held: HashMap<Key, K::Place>,
    /// What the list in progress has named so far.
    listed: HashSet<Key>,
    /// Objects that cannot be read.
    unreadable: HashSet<Key>,
    namespaces: HashSet<Arc<str>>,
}

/// What an event was, beyond its effect.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing to say.
    Applied,
    /// A list is complete.
    Listed,
    /// An object was skipped.
    Skipped(Key, Malformed),
}

impl<K: Kind> Table<K> {
    pub(super) fn new(store: Store, seen: Arc<StatusSeen>) -> Self {
        let (listed, unreadable) = (HashSet::new(), HashSet::new());
        Table { store, seen, held: HashMap::new(), listed, unreadable, namespaces: HashSet::new() }
    }

    /// How many objects cannot be read.
    pub(super) fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    pub(super) fn handle(&mut self, event: Event<Item<K>>) -> Outcome {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(item) => {
                let (key, object) = self.parts(item);
                self.listed.insert(key.clone());
                return self.apply(key, object);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let gone: Vec<Key> = self.held.keys().filter(|key| !listed.contains(key)).cloned().collect();
                gone.iter().for_each(|key| self.remove(key));
                self.unreadable.retain(|key| listed.contains(key));
                return Outcome::Listed;
            }
            Event::Apply(item) => {
                let (key, object) = self.parts(item);
                return self.apply(key, object);
            }
            Event::Delete(item) => {
                let (key, _) = self.parts(item);
                self.unreadable.remove(&key);
                self.remove(&key);
            }
        }
        Outcome::Applied
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) {
        let all: Vec<Key> = self.held.keys().cloned().collect();
        all.iter().for_each(|key| self.remove(key));
        self.unreadable.clear();
    }

    fn apply(&mut self, key: Key, object: Result<K, Malformed>) -> Outcome {
        let object = match object {
            Ok(object) => object,
            Err(malformed) => {
                self.unreadable.insert(key.clone());
                return Outcome::Skipped(key, malformed);
            }
        };
        self.unreadable.remove(&key);
        if let Some(status) = object.status() {
            (self.seen)(K::NAME, &key, Some(status));
        }
        let place = object.place();
        let moved = self.held.insert(key.clone(), place.clone()).filter(|held| *held != place);
        self.store.update(|resources| {
            let removed = moved.is_some_and(|place| K::remove(&key, &place, resources));
            object.put(&key, resources) || removed
        });
        Outcome::Applied
    }

    fn remove(&mut self, key: &Key) {
        let Some(place) = self.held.remove(key) else { return };
        (self.seen)(K::NAME, key, None);
        self.store.update(|resources| K::remove(key, &place, resources));
    }

    /// The parts of an item; keys share the text of their namespaces.
    fn parts(&mut self, item: Item<K>) -> (Key, Result<K, Malformed>) {
        let (namespace, name, object) = item.into_parts();
        let namespace = match self.namespaces.get(namespace.as_str()) {
            Some(shared) => Arc::clone(shared),
            None => {
                let shared: Arc<str> = namespace.into();
                self.namespaces.insert(Arc::clone(&shared));
                shared
            }
        };
        (Key::new(namespace, name), object)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::super::kinds::{Ours, OwnedSlice};
    use super::*;
    use crate::api::{Condition, ProxyPolicySpec, ProxyRouteSpec};
    use crate::translate::Resources;

    fn item<K: Kind>(value: Value) -> Item<K> {
        serde_json::from_value(value).unwrap()
    }

    fn route(name: &str, body: Option<&str>) -> Value {
        let rules = match body {
            Some(body) => json!([{"respond": {"status": 200, "body": body}}]),
            None => json!("not a list"),
        };
        json!({
            "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute",
            "metadata": {"name": name, "namespace": "ns", "uid": "u", "generation": 1, "resourceVersion": "1",
                         "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{"manager": "kubectl"}],
                         "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"rules": rules},
            "status": {"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}]},
        })
    }

    fn slice(name: &str, service: &str, address: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "ns", "resourceVersion": "1",
                         "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": [address]}],
        })
    }

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    fn routes(store: &Store) -> Vec<String> {
        store.read(|resources: &Resources| {
            let names: std::collections::BTreeSet<_> =
                resources.routes.keys().map(|key| key.name.to_string()).collect();
            names.into_iter().collect()
        })
    }

    #[test]
    fn a_malformed_object_is_skipped_and_its_last_good_version_stays() {
        let store = Store::default();
        let mut table = Table::<Ours<ProxyRouteSpec>>::new(store.clone(), Arc::new(|_, _, _| {}));
        table.handle(Event::Apply(item(route("a", Some("one")))));
        let skipped = table.handle(Event::Apply(item(route("a", None))));
        let Outcome::Skipped(at, Malformed(why)) = skipped else { panic!("{skipped:?}") };
        assert_eq!((at, table.unreadable()), (key("a"), 1));
        assert!(why.starts_with("spec.rules: ") && why.contains("expected a sequence"), "{why}");
        table.handle(Event::Apply(item(route("b", Some("two")))));
        assert_eq!(routes(&store), ["a", "b"]);

        // A new list in which it is still malformed does not take it out; one without it does.
        for listed in [vec![route("a", None), route("b", Some("two"))], vec![route("b", Some("two"))]] {
            let expected: Vec<String> =
                listed.iter().map(|route| route["metadata"]["name"].as_str().unwrap().to_owned()).collect();
            table.handle(Event::Init);
            for route in listed {
                table.handle(Event::InitApply(item(route)));
                assert_eq!(routes(&store), ["a", "b"], "nothing goes before the list is complete");
            }
            assert_eq!(table.handle(Event::InitDone), Outcome::Listed);
            assert_eq!(routes(&store), expected);
            assert_eq!(table.unreadable(), expected.len() - 1);
        }
        // It counts until it can be read, or is gone.
        for after in [Event::Apply(item(route("c", Some("three")))), Event::Delete(item(route("c", None)))] {
            table.handle(Event::Apply(item(route("c", None))));
            assert_eq!(table.unreadable(), 1);
            table.handle(after);
            assert_eq!(table.unreadable(), 0);
        }
    }

    #[test]
    fn a_policy_that_cannot_be_read_takes_the_place_of_its_last_good_version() {
        let policy = |section: Value| {
            let mut spec =
                json!({"targetRefs": [{"kind": "ProxyRoute", "name": "a"}, {"kind": "Gateway", "name": "b"}]});
            spec.as_object_mut().unwrap().append(&mut section.as_object().unwrap().clone());
            item(json!({"metadata": {"name": "p", "namespace": "ns", "generation": 3}, "spec": spec}))
        };
        let store = Store::default();
        let mut table = Table::<Ours<ProxyPolicySpec>>::new(store.clone(), Arc::new(|_, _, _| {}));
        let good =
            json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"ipAccess": {"allow": ["10.0.0.0/8"]}}});
        assert_eq!(table.handle(Event::Apply(item(good))), Outcome::Applied);
        let held = || store.read(|resources: &Resources| Arc::clone(&resources.policies[&key("p")]));
        assert_eq!(held().unread, None);

        for (section, field) in [
            (json!({"ofTheFuture": {"deny": true}}), "spec.ofTheFuture: unknown field"),
            (json!({"ipAccess": {"allow": [], "hours": "9-17"}}), "spec.ipAccess.hours: unknown field"),
            (json!({"ipAccess": "everyone"}), "spec.ipAccess: must be a map"),
        ] {
            assert_eq!(table.handle(Event::Apply(policy(section))), Outcome::Applied);
            let held = held();
            let why = held.unread.clone().unwrap().0;
            assert!(why.starts_with(field), "{why}");
            assert_eq!((held.spec.ip_access.is_none(), held.generation), (true, Some(3)));
            let targets: Vec<_> = held.spec.target_refs.iter().map(|target| target.name.as_str()).collect();
            assert_eq!(targets, ["a"], "what is known of its targets");
        }
    }

    #[test]
    fn only_what_is_read_is_kept_and_an_equal_object_keeps_its_place() {
        let store = Store::default();
        let statuses = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&statuses);
        let mut table = Table::<Ours<ProxyRouteSpec>>::new(
            store.clone(),
            Arc::new(move |kind: &str, key: &Key, status: Option<(&str, &[Condition])>| {
                let status = status.map(|(uid, conditions)| (uid.to_owned(), conditions.len()));
                seen.lock().unwrap().push(format!("{kind} {key} {status:?}"));
            }),
        );
        let held = |store: &Store| store.read(|resources| Arc::clone(&resources.routes[&key("a")]));
        table.handle(Event::Apply(item(route("a", Some("one")))));
        let first = held(&store);
        assert_eq!((first.created.is_some(), first.generation), (true, Some(1)));

        let mut with_status = route("a", Some("one"));
        with_status["status"] = json!({"conditions": []});
        table.handle(Event::Apply(item(with_status)));
        assert!(Arc::ptr_eq(&first, &held(&store)), "our own write of a status is no change");
        table.handle(Event::Delete(item(route("a", Some("one")))));
        assert!(routes(&store).is_empty());
        assert_eq!(
            *statuses.lock().unwrap(),
            ["ProxyRoute ns/a Some((\"u\", 1))", "ProxyRoute ns/a Some((\"u\", 0))", "ProxyRoute ns/a None"]
        );
    }

    #[test]
    fn a_slice_moves_with_its_label() {
        let store = Store::default();
        let mut table = Table::<OwnedSlice>::new(store.clone(), Arc::new(|_, _, _| {}));
        let services = || -> Vec<String> {
            store.read(|resources| resources.slices.keys().map(|key| key.name.to_string()).collect())
        };
        table.handle(Event::Apply(item(slice("s-1", "old", "10.0.0.1"))));
        assert_eq!(services(), ["old"]);
        table.handle(Event::Apply(item(slice("s-1", "new", "10.0.0.1"))));
        assert_eq!(services(), ["new"]);
        table.handle(Event::Apply(item(slice("s-1", "", "10.0.0.1"))));
        assert!(services().is_empty(), "a slice without Service is nobody's");
        table.handle(Event::Apply(item(slice("s-1", "new", "10.0.0.1"))));
        table.handle(Event::Delete(item(slice("s-1", "new", "10.0.0.1"))));
        assert!(services().is_empty());
    }
}
