//! What a sidecar serves, written as objects: so that the translator that serves the gateway makes its tables, too, with everything
//! that routes, upstreams and policies can say. One set of objects is for what comes to the app, one for what the app asks of others;
//! neither holds a route of a user, whose routes are the gateway's. No network here: whoever reads objects, and serves tables, is `app`.

mod inbound;
mod named;
mod outbound;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use inbound::Inbound;
pub use named::Named;
pub use outbound::Outbound;

use crate::api::{self, ProxyUpstreamSpec};
use crate::snapshot::SharedMap;
use crate::translate::{Key, Own, Resources};

/// Objects of what was read.
type Kept<S> = SharedMap<Key, Arc<Own<S>>>;

/// Takes over of what was there before what is the same, so that translation knows by the pointers what is new, and all that somebody
/// else puts there.
pub fn settle(held: &Resources, mut new: Resources) -> Resources {
    let routes: Vec<_> = new.routes.keys().filter(|key| held.routes.get(key) == new.routes.get(key)).cloned().collect();
    for key in routes {
        if let Some(same) = held.routes.get(&key) {
            new.routes.insert(key, Arc::clone(same));
        }
    }
    let upstreams: Vec<_> =
        new.upstreams.keys().filter(|key| held.upstreams.get(key) == new.upstreams.get(key)).cloned().collect();
    for key in upstreams {
        if let Some(same) = held.upstreams.get(&key) {
            new.upstreams.insert(key, Arc::clone(same));
        }
    }
    new.resolved.clone_from(&held.resolved);
    new.key_sets.clone_from(&held.key_sets);
    new
}

/// Of the upstreams that were read, those that say how Services are treated, and others only if something `leads` there or if those
/// fall back to them: an upstream with endpoints of its own would be resolved and checked for nothing by every pod.
fn wanted(read: &Resources, leads: impl IntoIterator<Item = Key>) -> Kept<ProxyUpstreamSpec> {
    let mut wanted: BTreeSet<Key> = leads.into_iter().collect();
    for (key, upstream) in read.upstreams.iter() {
        if !upstream.spec.target_refs.is_empty() {
            wanted.insert(key.clone());
            wanted.extend(fallback(key, &upstream.spec));
        }
    }
    let mut kept = SharedMap::default();
    for key in wanted {
        if let Some(upstream) = read.upstreams.get(&key) {
            kept.insert(key, Arc::clone(upstream));
        }
    }
    kept
}

/// The upstream that another falls back to.
fn fallback(key: &Key, spec: &ProxyUpstreamSpec) -> Option<Key> {
    let upstream = spec.fallback.as_ref()?.upstream.as_ref()?;
    Some(Key::new(Arc::clone(&key.namespace), upstream.name.as_str()))
}

/// An object of our own making.
fn own<S>(spec: S) -> Arc<Own<S>> {
    Arc::new(Own { created: None, generation: None, spec, unread: None })
}

/// A route for some hosts.
fn route(class: &str, hosts: Vec<String>, rules: Vec<api::Rule>) -> Arc<Own<api::ProxyRouteSpec>> {
    own(api::ProxyRouteSpec { class_name: Some(class.to_owned()), hosts, tls: None, rules })
}

/// The key of an object of our own making: no object of a user has a name with a colon.
fn key(namespace: &str, name: String) -> Key {
    Key::new(namespace, name)
}
