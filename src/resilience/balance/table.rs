//! Tables of hashing algorithms: large, and the same for all workers. One is made when the first worker asks for it.

use std::sync::Arc;

use super::maglev::Maglev;
use super::ring::Ring;
use crate::snapshot::{Algorithm, Cluster, Endpoint};

/// Slots of a Maglev table whose size is not a prime number, which translation does not let through.
const MAGLEV_SIZE: u32 = 16_381;

/// Where the keys of requests lead.
#[derive(Clone, Debug)]
pub enum Table {
    /// A ring.
    Ring(Arc<Ring>),
    /// A Maglev table.
    Maglev(Arc<Maglev>),
}

impl Table {
    /// A table of endpoints; `None` if the algorithm does not hash.
    pub fn build<'a>(
        algorithm: &Algorithm,
        endpoints: impl ExactSizeIterator<Item = &'a Endpoint> + Clone,
    ) -> Option<Table> {
        let size = match algorithm {
            Algorithm::RingHash { .. } => None,
            Algorithm::Maglev { table_size, .. } => Some(*table_size),
            _ => return None,
        };
        let names: Vec<(String, u32)> =
            endpoints.map(|endpoint| (endpoint.address.to_string(), endpoint.weight)).collect();
        let members = names.iter().map(|(name, weight)| (name.as_str(), *weight));
        if names.is_empty() {
            return None;
        }
        Some(match (algorithm, size) {
            (Algorithm::RingHash { points, .. }, _) => Table::Ring(Arc::new(Ring::build(members, *points))),
            (_, size) => {
                let size = size.unwrap_or(MAGLEV_SIZE);
                let table = Maglev::build(members.clone(), size).or_else(|_| Maglev::build(members, MAGLEV_SIZE));
                Table::Maglev(Arc::new(table.ok()?))
            }
        })
    }

    /// The members from a place on.
    pub(super) fn from(&self, place: u64) -> impl Iterator<Item = usize> {
        let (ring, maglev) = match self {
            Table::Ring(ring) => (Some(ring.from(place)), None),
            Table::Maglev(maglev) => (None, Some(maglev.from(place))),
        };
        ring.into_iter().flatten().chain(maglev.into_iter().flatten())
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Table::Ring(ring) => ring.bytes(),
            Table::Maglev(maglev) => maglev.bytes(),
        }
    }
}

/// The tables of one version of a cluster: of all its endpoints, and of each subset.
#[derive(Debug)]
pub struct Tables {
    endpoints: Arc<[Endpoint]>,
    algorithm: Algorithm,
    all: Option<Table>,
    subsets: Vec<(Arc<str>, Option<Table>)>,
}

impl Tables {
    /// Whether these are the tables of this version.
    pub(in crate::resilience) fn are_of(&self, cluster: &Cluster) -> bool {
        let same = Arc::ptr_eq(&self.endpoints, &cluster.endpoints) || self.endpoints == cluster.endpoints;
        same && self.algorithm == cluster.resilience.balancing.algorithm
    }

    pub(in crate::resilience) fn build(cluster: &Cluster) -> Self {
        let algorithm = &cluster.resilience.balancing.algorithm;
        let subsets = cluster.subsets().into_iter().map(|value| {
            let of = |endpoint: &&Endpoint| endpoint.subset.as_deref() == Some(&value);
            let endpoints: Vec<&Endpoint> = cluster.endpoints.iter().filter(of).collect();
            let table = Table::build(algorithm, endpoints.iter().copied());
            (value, table)
        });
        Tables {
            subsets: subsets.collect(),
            all: Table::build(algorithm, cluster.endpoints.iter()),
            endpoints: Arc::clone(&cluster.endpoints),
            algorithm: algorithm.clone(),
        }
    }

    /// That of all endpoints.
    pub fn all(&self) -> Option<Table> {
        self.all.clone()
    }

    /// That of the endpoints of a subset.
    pub fn of_subset(&self, value: &str) -> Option<Table> {
        self.subsets.iter().find(|(one, _)| **one == *value).and_then(|(_, table)| table.clone())
    }
}
