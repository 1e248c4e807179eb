//! What workers count on the path of a request. Each worker has a [`Shard`] that only it writes: an increment is a plain
//! load and store, without a lock or a locked instruction, and a scrape adds the shards up (`collect`).
//!
//! Measured (docs/benchmarks.md): 45 ns for an exchange of a route that is in the cache, 80 ns with a thousand routes in
//! turn; 0.7 µs with its line in the access log.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::metrics::{GAP_BOUNDS, REQUEST_BOUNDS, STREAM_BOUNDS};
use super::{End, Kind, Parted, PassedEnd, Protocol};

/// A map by names of our own objects, which no client chooses.
pub(super) type Map<V> = HashMap<Arc<str>, V, foldhash::fast::RandomState>;

/// The label of exchanges that found no route, or needed no upstream. Names of objects have a `/`, so that neither this
/// nor [`REMOVED`] can be one.
pub(super) const NONE: &str = "none";
/// The label of exchanges that outlived their route or upstream, so that nothing is lost and nothing comes back.
pub(super) const REMOVED: &str = "removed";

/// A number with one writer.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    pub(super) fn subtract(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(count), Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Cells by a small key, in order of first use. Grows, never shrinks, and is read without a lock.
#[derive(Debug)]
pub(super) struct List<K>(OnceLock<Box<Node<K>>>);

#[derive(Debug)]
struct Node<K> {
    key: K,
    cell: Cell,
    next: List<K>,
}

impl<K> Default for List<K> {
    fn default() -> Self {
        List(OnceLock::new())
    }
}

impl<K: Copy + PartialEq> List<K> {
    pub(super) fn cell(&self, key: K) -> &Cell {
        let mut list = self;
        loop {
            let node = list.0.get_or_init(|| Box::new(Node { key, cell: Cell::default(), next: List::default() }));
            if node.key == key {
                return &node.cell;
            }
            list = &node.next;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, u64)> {
        std::iter::successors(self.0.get(), |node| node.next.0.get()).map(|node| (node.key, node.cell.value()))
    }
}

/// Observations by size, in microseconds.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) bounds: &'static [u64],
    /// One more than `bounds`: the last takes what is larger.
    pub(super) buckets: Box<[Cell]>,
    pub(super) sum: Cell,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Cell::default()).collect();
        Histogram { bounds, buckets, sum: Cell::default() }
    }

    pub(super) fn observe(&self, took: Duration) {
        let micros = took.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(took.subsec_micros()));
        self.buckets[self.bounds.partition_point(|bound| *bound < micros)].add(1);
        self.sum.add(micros);
    }
}

/// What is counted by route.
#[derive(Debug)]
pub(super) struct RouteCells {
    pub(super) name: Arc<str>,
    pub(super) ended: List<(Kind, End)>,
    pub(super) failures: List<&'static str>,
    pub(super) retries: Cell,
    pub(super) received: Cell,
    pub(super) sent: Cell,
    pub(super) duration: Histogram,
    pub(super) first_byte: Histogram,
    pairs: Mutex<Vec<Arc<PairCells>>>,
}

/// What is counted by route and upstream.
#[derive(Debug)]
pub(super) struct PairCells {
    pub(super) upstream: Arc<str>,
    pub(super) requests: List<(Protocol, u16)>,
}

/// What is counted by upstream.
#[derive(Debug)]
pub(super) struct UpstreamCells {
    pub(super) name: Arc<str>,
    pub(super) connected: Cell,
    pub(super) failed: Cell,
    /// By their reason and what became of them.
    pub(super) retries: List<(&'static str, &'static str)>,
    /// Copies of requests, by what became of them.
    pub(super) mirrored: List<&'static str>,
}

/// What one worker counts.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) active: [Cell; Kind::ALL.len()],
    pub(super) stream_durations: [Histogram; Kind::ALL.len()],
    pub(super) stream_gaps: [Histogram; Kind::ALL.len()],
    pub(super) stream_events: [Cell; Kind::ALL.len()],
    pub(super) drained: List<(Kind, Parted)>,
    pub(super) connections: Cell,
    pub(super) connections_open: Cell,
    pub(super) refused: List<&'static str>,
    /// By version, and whether a session was resumed.
    pub(super) handshakes: List<(&'static str, &'static str)>,
    pub(super) upstream_connect: Histogram,
    /// Frames and messages of WebSockets, from clients and to them.
    pub(super) frames: [Cell; 2],
    pub(super) messages: [Cell; 2],
    pub(super) violations: List<(&'static str, &'static str)>,
    /// Connections that were passed on as bytes, by why and how they ended; those that are; and their bytes, from who made them
    /// and to them.
    pub(super) passed: List<(&'static str, PassedEnd)>,
    pub(super) passed_open: Cell,
    pub(super) passed_bytes: [Cell; 2],
    routes: Mutex<Map<Arc<RouteCells>>>,
    upstreams: Mutex<Map<Arc<UpstreamCells>>>,
}

/// The names that are configured. Series of other names are given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// `namespace/name` of every object with routes.
    pub routes: HashSet<Arc<str>>,
    /// Every cluster.
    pub upstreams: HashSet<Arc<str>>,
}

/// The shards of all workers.
#[derive(Debug, Default)]
pub(super) struct Shards {
    shards: Mutex<Vec<Arc<Shard>>>,
    /// `None` until the first table: every name counts as configured.
    live: Mutex<Option<Live>>,
    epoch: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shards {
    /// A shard for another worker.
    pub(super) fn add(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard {
            active: Default::default(),
            stream_durations: std::array::from_fn(|_| Histogram::new(STREAM_BOUNDS)),
            stream_gaps: std::array::from_fn(|_| Histogram::new(GAP_BOUNDS)),
            stream_events: Default::default(),
            drained: List::default(),
            connections: Cell::default(),
            connections_open: Cell::default(),
            refused: List::default(),
            handshakes: List::default(),
            upstream_connect: Histogram::new(REQUEST_BOUNDS),
            frames: Default::default(),
            messages: Default::default(),
            violations: List::default(),
            passed: List::default(),
            passed_open: Cell::default(),
            passed_bytes: Default::default(),
            routes: Mutex::default(),
            upstreams: Mutex::default(),
        });
        lock(&self.shards).push(Arc::clone(&shard));
        shard
    }

    /// All shards, also of workers that have ended: counters never go back.
    pub(super) fn all(&self) -> Vec<Arc<Shard>> {
        lock(&self.shards).clone()
    }

    /// Changes whenever names have been given up: then workers forget the cells they hold and ask for them again.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// Gives up the series of names that are not configured any more.
    pub(super) fn retain(&self, names: Live) {
        let mut live = lock(&self.live);
        if live.as_ref() == Some(&names) {
            return;
        }
        let kept = |set: &HashSet<Arc<str>>, name: &str| set.contains(name) || name == NONE || name == REMOVED;
        for shard in self.all() {
            lock(&shard.routes).retain(|name, route| {
                lock(&route.pairs).retain(|pair| kept(&names.upstreams, &pair.upstream));
                kept(&names.routes, name)
            });
            lock(&shard.upstreams).retain(|name, _| kept(&names.upstreams, name));
        }
        *live = Some(names);
        self.epoch.fetch_add(1, Relaxed);
    }

    /// The cells of a route and, beside it, of its upstream, in the shard of the calling worker. Holds the list of
    /// configured names meanwhile, so that a name that is just being given up does not come back.
    pub(super) fn route(&self, shard: &Shard, route: &str, upstream: &str) -> (Arc<RouteCells>, Arc<PairCells>) {
        let live = lock(&self.live);
        let route = configured(live.as_ref().map(|live| &live.routes), route);
        let upstream = configured(live.as_ref().map(|live| &live.upstreams), upstream);
        let mut routes = lock(&shard.routes);
        let cells = Arc::clone(routes.entry(Arc::clone(&route)).or_insert_with(|| Arc::new(RouteCells::new(route))));
        let pair = cells.pair(upstream);
        (cells, pair)
    }

    /// The cells of an upstream, likewise.
    pub(super) fn upstream(&self, shard: &Shard, upstream: &str) -> Arc<UpstreamCells> {
        let live = lock(&self.live);
        let name = configured(live.as_ref().map(|live| &live.upstreams), upstream);
        let mut upstreams = lock(&shard.upstreams);
        let entry = upstreams.entry(Arc::clone(&name)).or_insert_with(|| Arc::new(UpstreamCells::new(name)));
        Arc::clone(entry)
    }
}

fn configured(names: Option<&HashSet<Arc<str>>>, name: &str) -> Arc<str> {
    match names {
        _ if name == NONE => NONE.into(),
        None => name.into(),
        Some(names) => names.get(name).cloned().unwrap_or_else(|| REMOVED.into()),
    }
}

impl Shard {
    pub(super) fn routes(&self) -> Vec<Arc<RouteCells>> {
        lock(&self.routes).values().cloned().collect()
    }

    pub(super) fn upstreams(&self) -> Vec<Arc<UpstreamCells>> {
        lock(&self.upstreams).values().cloned().collect()
    }
}

impl UpstreamCells {
    fn new(name: Arc<str>) -> Self {
        let (connected, failed) = (Cell::default(), Cell::default());
        UpstreamCells { name, connected, failed, retries: List::default(), mirrored: List::default() }
    }

    pub(super) fn connected(&self, succeeded: bool) {
        if succeeded { self.connected.add(1) } else { self.failed.add(1) }
    }
}

impl RouteCells {
    fn new(name: Arc<str>) -> Self {
        RouteCells {
            name,
            ended: List::default(),
            failures: List::default(),
            retries: Cell::default(),
            received: Cell::default(),
            sent: Cell::default(),
            duration: Histogram::new(REQUEST_BOUNDS),
            first_byte: Histogram::new(REQUEST_BOUNDS),
            pairs: Mutex::default(),
        }
    }

    fn pair(&self, upstream: Arc<str>) -> Arc<PairCells> {
        let mut pairs = lock(&self.pairs);
        if let Some(pair) = pairs.iter().find(|pair| pair.upstream == upstream) {
            return Arc::clone(pair);
        }
        let pair = Arc::new(PairCells { upstream, requests: List::default() });
        pairs.push(Arc::clone(&pair));
        pair
    }

    pub(super) fn pairs(&self) -> Vec<Arc<PairCells>> {
        lock(&self.pairs).clone()
    }
}
