//! Writing exchanges down: counters and the access log. One [`Telemetry`] per process, one [`Recorder`] per worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::access::{AccessLog, PATIENCE, Sink, Writer};
use super::cells::{Live, Map, NONE, PairCells, RouteCells, Shard, Shards, UpstreamCells};
use super::collect::{Workers, code_key};
use super::line::Lines;
use super::metrics::Metrics;
use super::part::Part;
use super::{Exchange, Kind, Parted};

/// The process's telemetry. Cheap to clone. The default counts, but keeps no access log.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shards: Arc<Shards>,
    metrics: Metrics,
    access: Option<Arc<Writer>>,
    part: Part,
}

/// A worker's way to write exchanges down without locks.
#[derive(Debug)]
pub struct Recorder {
    telemetry: Telemetry,
    pub(super) shard: Own,
    known: RefCell<Known>,
    epoch: Cell<u64>,
    sink: Option<Sink>,
    lines: RefCell<Lines>,
}

/// A shard on the thread that may write to it; it cannot be sent to another.
#[derive(Clone, Debug)]
pub(super) struct Own(Arc<Shard>, PhantomData<Rc<()>>);

impl Deref for Own {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.0
    }
}

/// The cells this worker has asked for, by name.
#[derive(Debug, Default)]
struct Known {
    routes: Map<KnownRoute>,
    upstreams: Map<Arc<UpstreamCells>>,
}

#[derive(Debug)]
struct KnownRoute {
    cells: Arc<RouteCells>,
    /// By the name of the upstream; a route has few.
    pairs: Vec<(Box<str>, Arc<PairCells>)>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry::with(Part::Whole, |_| None)
    }
}

impl Telemetry {
    /// Telemetry with an access log.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub fn new(access: &AccessLog) -> io::Result<Self> {
        Telemetry::opened(Part::Whole, access, |_, _| {})
    }

    /// Telemetry of a process with several listeners, and that of each, by name: its metrics carry the name, and so do its lines in
    /// the access log, which is one. The metrics of the process show all of them.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub fn with_listeners<const N: usize>(
        access: &AccessLog,
        names: [&'static str; N],
    ) -> io::Result<(Self, [Self; N])> {
        let mut listeners = Vec::new();
        let process = Telemetry::opened(Part::Process, access, |metrics, access| {
            for name in names {
                let listener = Telemetry::with(Part::Listener(name), |_| access.cloned());
                metrics.show(&listener.0.metrics);
                listeners.push(listener);
            }
        })?;
        let listeners = <[Self; N]>::try_from(listeners).map_err(|_| io::Error::other("listeners"))?;
        Ok((process, listeners))
    }

    fn opened(
        part: Part,
        access: &AccessLog,
        then: impl FnOnce(&mut Metrics, Option<&Arc<Writer>>),
    ) -> io::Result<Self> {
        let mut opened = Ok(());
        let telemetry = Telemetry::with(part, |metrics| {
            let writer = Writer::open(access, metrics.access_log_dropped.clone());
            let writer = writer.map_err(|error| opened = Err(error)).ok().flatten().map(Arc::new);
            then(metrics, writer.as_ref());
            writer
        });
        opened.map(|()| telemetry)
    }

    fn with(part: Part, open: impl FnOnce(&mut Metrics) -> Option<Arc<Writer>>) -> Self {
        let shards = Arc::new(Shards::default());
        let mut metrics = Metrics::new(part, Workers::new(Arc::clone(&shards)));
        let access = open(&mut metrics);
        Telemetry(Arc::new(Inner { shards, metrics, access, part }))
    }

    /// A recorder for the calling worker.
    pub fn recorder(&self) -> Recorder {
        Recorder {
            telemetry: self.clone(),
            shard: Own(self.0.shards.add(), PhantomData),
            known: RefCell::default(),
            epoch: Cell::new(self.0.shards.epoch()),
            sink: self.0.access.as_ref().map(|writer| writer.sink()),
            lines: RefCell::new(Lines::of(self.0.part.listener())),
        }
    }

    /// The metrics that the control thread writes.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Tells which names are configured, just before the table that has them is published. Series of other names end;
    /// exchanges that outlive their route are counted under the route `removed`.
    pub fn forget_absent(&self, live: Live) {
        self.0.shards.retain(live);
    }

    /// Waits, up to two seconds, until the access log is written. Returns whether it was.
    pub fn flush(&self) -> bool {
        self.0.access.as_ref().is_none_or(|writer| writer.flush(PATIENCE))
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Telemetry::default().recorder()
    }
}

impl Recorder {
    /// Writes an exchange down.
    pub fn record(&self, exchange: &Exchange<'_>) {
        self.count(exchange);
        if let Some(sink) = &self.sink {
            sink.append(|buffer| self.lines.borrow_mut().write(buffer, SystemTime::now(), exchange));
        }
    }

    fn count(&self, exchange: &Exchange<'_>) {
        let route = exchange.route.unwrap_or(NONE);
        let upstream = exchange.upstream.unwrap_or(NONE);
        let mut known = self.known();
        if let Some(known) = known.routes.get(route)
            && let Some((_, pair)) = known.pairs.iter().find(|(name, _)| **name == *upstream)
        {
            tally(exchange, &known.cells, pair);
        } else {
            let (cells, pair) = self.telemetry.0.shards.route(&self.shard, route, upstream);
            tally(exchange, &cells, &pair);
            let known = known.routes.entry(route.into()).or_insert(KnownRoute { cells, pairs: Vec::new() });
            known.pairs.push((upstream.into(), pair));
        }
        // One that was refused never began.
        if exchange.kind.is_stream() && exchange.first_byte.is_some() {
            self.shard.stream_durations[exchange.kind as usize].observe(exchange.duration);
        }
        if let Some(connect) = exchange.connect.filter(|connect| !connect.is_zero()) {
            self.shard.upstream_connect.observe(connect);
        }
    }

    /// The known cells; forgotten first if names have been given up since.
    fn known(&self) -> std::cell::RefMut<'_, Known> {
        let mut known = self.known.borrow_mut();
        let epoch = self.telemetry.0.shards.epoch();
        if self.epoch.replace(epoch) != epoch {
            *known = Known::default();
        }
        known
    }
}

impl Recorder {
    /// A downstream connection was opened.
    pub fn opened(&self) {
        self.shard.connections.add(1);
        self.shard.connections_open.add(1);
    }

    /// It was closed. No guard: connections are many, and whoever has one has this recorder.
    pub fn closed(&self) {
        self.shard.connections_open.subtract(1);
    }

    /// A downstream connection was closed for a reason of the connection itself (over the limit, head too slow,
    /// malformed request), from the closed set of reasons.
    pub fn connection_refused(&self, reason: &'static str) {
        self.shard.refused.cell(reason).add(1);
    }

    /// A handshake of TLS was completed with a client, in this version; `resumed` if by a ticket of an earlier one.
    pub fn handshake(&self, version: &'static str, resumed: bool) {
        self.shard.handshakes.cell((version, if resumed { "resumed" } else { "full" })).add(1);
    }

    /// Frames of a WebSocket passed, and with them the ends of messages.
    pub fn frames(&self, to_client: bool, frames: u64, messages: u64) {
        self.shard.frames[usize::from(to_client)].add(frames);
        self.shard.messages[usize::from(to_client)].add(messages);
    }

    /// A side of a WebSocket broke its protocol, in a way from a closed set.
    pub fn violation(&self, by_client: bool, kind: &'static str) {
        self.shard.violations.cell((if by_client { "client" } else { "upstream" }, kind)).add(1);
    }

    /// An exchange of this kind is active, until [`Recorder::ends`]. No guard: exchanges are many, and end in one place.
    pub fn begins(&self, kind: Kind) {
        self.shard.active[kind as usize].add(1);
    }

    /// An exchange of this kind is active no more.
    pub fn ends(&self, kind: Kind) {
        self.shard.active[kind as usize].subtract(1);
    }

    /// A piece of a stream went to the client, so long after the one before.
    pub fn gap(&self, kind: Kind, gap: Duration) {
        self.shard.stream_gaps[kind as usize].observe(gap);
    }

    /// Events or messages of gRPC went to the client.
    pub fn events(&self, kind: Kind, count: u64) {
        self.shard.stream_events[kind as usize].add(count);
    }

    /// A stream ended while the process goes away.
    pub fn drained(&self, kind: Kind, parted: Parted) {
        self.shard.drained.cell((kind, parted)).add(1);
    }

    /// A connection to an endpoint of `upstream` was attempted.
    pub fn upstream_connect(&self, upstream: &str, succeeded: bool) {
        self.upstream(upstream, |cells| cells.connected(succeeded));
    }

    /// A retry that a route asked for came to an end, or was not made; reason and outcome are from closed sets.
    pub fn upstream_retry(&self, upstream: &str, reason: &'static str, outcome: &'static str) {
        self.upstream(upstream, |cells| cells.retries.cell((reason, outcome)).add(1));
    }

    /// A copy of a request came to an end, or was not made; the outcome is from a closed set.
    pub fn mirrored(&self, upstream: &str, outcome: &'static str) {
        self.upstream(upstream, |cells| cells.mirrored.cell(outcome).add(1));
    }

    fn upstream(&self, upstream: &str, count: impl FnOnce(&UpstreamCells)) {
        let mut known = self.known();
        if let Some(cells) = known.upstreams.get(upstream) {
            count(cells);
        } else {
            let cells = self.telemetry.0.shards.upstream(&self.shard, upstream);
            count(&cells);
            known.upstreams.insert(upstream.into(), cells);
        }
    }
}

fn tally(exchange: &Exchange<'_>, route: &RouteCells, pair: &PairCells) {
    pair.requests.cell((exchange.protocol, code_key(exchange.status))).add(1);
    route.ended.cell((exchange.kind, exchange.end)).add(1);
    if let Some(reason) = exchange.reason {
        route.failures.cell(reason).add(1);
    }
    route.retries.add(u64::from(exchange.attempts.saturating_sub(1)));
    route.received.add(exchange.bytes_received);
    route.sent.add(exchange.bytes_sent);
    if !exchange.kind.is_stream() {
        route.duration.observe(exchange.duration);
    }
    if let Some(first_byte) = exchange.first_byte {
        route.first_byte.observe(first_byte);
    }
}
