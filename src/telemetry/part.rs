//! Which part of a process metrics are of. A gateway has one data plane, and all of its metrics are of the whole; a sidecar has two
//! listeners with a table each, whose metrics carry their name, beside those of the process.

use std::collections::{BTreeMap, HashMap};

use prometheus::Registry;
use prometheus::proto::MetricFamily;

/// The label that tells the listener of a sidecar.
const LISTENER: &str = "listener";

/// A part of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// What its listeners have in common.
    Process,
    /// One of its listeners, by name.
    Listener(&'static str),
}

impl Part {
    /// The name of a listener.
    pub(super) fn listener(self) -> Option<&'static str> {
        match self {
            Part::Listener(name) => Some(name),
            Part::Whole | Part::Process => None,
        }
    }

    /// Whether it has a table, and workers that serve it.
    pub(super) fn has_table(self) -> bool {
        self != Part::Process
    }

    /// Whether it tells of the process as such.
    pub(super) fn is_process(self) -> bool {
        self.listener().is_none()
    }

    /// A registry whose metrics all say which listener they are of.
    pub(super) fn registry(self) -> Registry {
        let labels = self.listener().map(|name| HashMap::from([(LISTENER.to_owned(), name.to_owned())]));
        Registry::new_custom(None, labels).unwrap_or_default()
    }
}

/// What all of these registries have, each name once.
pub(super) fn merged(first: &Registry, others: &[Registry]) -> Vec<MetricFamily> {
    let mut all = first.gather();
    if others.is_empty() {
        return all;
    }
    all.extend(others.iter().flat_map(Registry::gather));
    let mut by_name: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for mut family in all {
        match by_name.get_mut(family.name()) {
            Some(known) => known.mut_metric().extend(family.take_metric()),
            None => drop(by_name.insert(family.name().to_owned(), family)),
        }
    }
    by_name.into_values().collect()
}
