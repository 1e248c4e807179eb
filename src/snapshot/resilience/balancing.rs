//! Who of a cluster's endpoints gets the next request, as configured. The algorithms are `resilience::balance`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde::{Serialize, Serializer};

/// How requests are spread over the endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Balancing {
    /// Who is chosen.
    pub algorithm: Algorithm,
    /// All endpoints are used, those that are kept out included, while fewer than this many percent are available: if nearly
    /// all seem sick, something else may be, and the few that are left would be run over. 0 never does that.
    pub panic_percent: u8,
    /// How endpoints are eased in that are new or were kept out.
    pub slow_start: Option<SlowStart>,
    /// When endpoints of Floodway's own zone are preferred.
    pub locality: Option<Locality>,
    /// How requests choose among versions of an upstream.
    pub subset: Option<Subset>,
}

/// Envoy's default of its panic threshold, too.
pub const PANIC_PERCENT: u8 = 50;

impl Default for Balancing {
    fn default() -> Self {
        let algorithm = Algorithm::LeastRequest { choices: 2 };
        Balancing { algorithm, panic_percent: PANIC_PERCENT, slow_start: None, locality: None, subset: None }
    }
}

impl Balancing {
    /// Whether nobody asked for anything else: then it is left out where settings are shown.
    pub(super) fn is_default(&self) -> bool {
        *self == Balancing::default()
    }
}

/// Who is chosen among those that may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Algorithm {
    /// The one with the fewest requests and streams in flight, by weight, of so many that are drawn.
    LeastRequest {
        /// How many are drawn; at least 2.
        choices: u32,
    },
    /// One after the other, whatever their weights.
    RoundRobin,
    /// One after the other by weight, as evenly in time as can be.
    WeightedRoundRobin,
    /// Any, by weight.
    Random,
    /// Of two that are drawn, the one that is expected to begin its answer first.
    PeakEwma,
    /// The next point on a ring.
    RingHash {
        /// What the place of a request is made of.
        hashing: Hashing,
        /// Points of the lightest endpoint.
        points: u32,
    },
    /// A slot in a table that all endpoints have filled in turn.
    Maglev {
        /// What the place of a request is made of.
        hashing: Hashing,
        /// Slots of the table; a prime number.
        table_size: u32,
    },
}

impl Algorithm {
    /// How requests are hashed, if they are.
    pub fn hashing(&self) -> Option<&Hashing> {
        match self {
            Algorithm::RingHash { hashing, .. } | Algorithm::Maglev { hashing, .. } => Some(hashing),
            _ => None,
        }
    }
}

/// How requests find the same endpoint again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hashing {
    /// The first that a request has is taken; a request without any goes anywhere.
    pub keys: Box<[HashKey]>,
    /// An endpoint with more than this many percent of its fair share in flight is passed over for the next; above 100.
    pub bounded_percent: Option<u32>,
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum HashKey {
    /// The value of a field.
    Header(#[serde(serialize_with = "name")] HeaderName),
    /// The value of a cookie.
    Cookie(CookieKey),
    /// The client's address, found through trusted proxies.
    ClientAddress,
    /// The value of a query parameter.
    QueryParameter(Arc<str>),
    /// A segment of the path; the first is 1.
    PathSegment(u32),
}

/// A cookie that tells clients apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CookieKey {
    /// Its name.
    pub name: Arc<str>,
    /// Its attributes, as they follow name and value, if Floodway gives it to clients that have none.
    pub issued: Option<Arc<str>>,
}

/// How endpoints are eased in: their weight grows with the time for which they have been there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlowStart {
    /// When they have their whole weight.
    pub window: Duration,
    /// What they begin with, in percent of their weight.
    pub min_percent: u8,
    /// 100 grows evenly; more grows faster at first.
    pub aggression_percent: u32,
}

/// When endpoints of the own zone are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Locality {
    /// Of those of the zone so many percent must be available.
    pub min_available_percent: u8,
    /// And so many of them.
    pub min_endpoints: u32,
}

/// How requests choose among versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subset {
    /// The field whose value is the label's that an endpoint must have.
    #[serde(serialize_with = "name")]
    pub header: HeaderName,
    /// Whether requests whose value no endpoint has go to any.
    pub or_any: bool,
}

fn name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}
