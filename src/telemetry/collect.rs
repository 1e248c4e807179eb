//! Adds up what the workers counted, when metrics are asked for, and puts it in Prometheus' shape.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use super::cells::{Histogram, Shard, Shards};
use super::metrics::{
    ACTIVE, CONNECTIONS, CONNECTIONS_OPEN, CONNECTIONS_REFUSED, DRAINED, DURATION, Declared, ENDED, FAILURES,
    FIRST_BYTE, FRAMES, MESSAGES, MIRRORED, PASSTHROUGH, PASSTHROUGH_BYTES, PASSTHROUGH_OPEN, RECEIVED, REQUESTS,
    RETRIES, SENT, STREAM_DURATION, STREAM_EVENTS, STREAM_GAP, TLS_HANDSHAKES, Type, UPSTREAM_CONNECT_SECONDS,
    UPSTREAM_CONNECTS, UPSTREAM_RETRIES, VIOLATIONS, outcome,
};
use super::{End, Kind, Parted, PassedEnd, Protocol};

const FAMILIES: [Declared; 27] = [
    REQUESTS,
    ENDED,
    FAILURES,
    RETRIES,
    RECEIVED,
    SENT,
    DURATION,
    FIRST_BYTE,
    STREAM_DURATION,
    STREAM_GAP,
    STREAM_EVENTS,
    ACTIVE,
    DRAINED,
    FRAMES,
    MESSAGES,
    VIOLATIONS,
    CONNECTIONS,
    CONNECTIONS_OPEN,
    CONNECTIONS_REFUSED,
    TLS_HANDSHAKES,
    PASSTHROUGH,
    PASSTHROUGH_OPEN,
    PASSTHROUGH_BYTES,
    UPSTREAM_CONNECTS,
    UPSTREAM_RETRIES,
    MIRRORED,
    UPSTREAM_CONNECT_SECONDS,
];

/// From clients, and to them.
const DIRECTIONS: [&str; 2] = ["received", "sent"];

/// Collects the shards of all workers.
#[derive(Debug)]
pub(super) struct Workers {
    shards: Arc<Shards>,
    descs: Vec<Desc>,
}

impl Workers {
    pub(super) fn new(shards: Arc<Shards>) -> Self {
        Workers { shards, descs: FAMILIES.iter().map(Declared::desc).collect() }
    }
}

impl Collector for Workers {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut totals = Totals::default();
        for shard in self.shards.all() {
            totals.add(&shard);
        }
        totals.families()
    }
}

type Route = Arc<str>;
type Upstream = Arc<str>;

#[derive(Default)]
struct Totals {
    requests: BTreeMap<(Route, Upstream, Protocol, u16), u64>,
    ended: BTreeMap<(Route, Kind, End), u64>,
    failures: BTreeMap<(Route, &'static str), u64>,
    routes: BTreeMap<Route, RouteTotals>,
    streams: BTreeMap<Kind, Sum>,
    gaps: BTreeMap<Kind, Sum>,
    events: BTreeMap<Kind, u64>,
    drained: BTreeMap<(Kind, Parted), u64>,
    active: BTreeMap<Kind, u64>,
    frames: [u64; 2],
    messages: [u64; 2],
    violations: BTreeMap<(&'static str, &'static str), u64>,
    connections: u64,
    connections_open: u64,
    refused: BTreeMap<&'static str, u64>,
    handshakes: BTreeMap<(&'static str, &'static str), u64>,
    passed: BTreeMap<(&'static str, PassedEnd), u64>,
    passed_open: u64,
    passed_bytes: [u64; 2],
    upstream_connects: BTreeMap<(Upstream, &'static str), u64>,
    upstream_connect: Sum,
    upstream_retries: BTreeMap<(Upstream, &'static str, &'static str), u64>,
    mirrored: BTreeMap<(Upstream, &'static str), u64>,
}

#[derive(Default)]
struct RouteTotals {
    retries: u64,
    received: u64,
    sent: u64,
    duration: Sum,
    first_byte: Sum,
}

#[derive(Default)]
struct Sum {
    bounds: &'static [u64],
    buckets: Vec<u64>,
    micros: u64,
}

impl Sum {
    fn add(&mut self, histogram: &Histogram) {
        self.bounds = histogram.bounds;
        self.buckets.resize(histogram.buckets.len(), 0);
        for (sum, cell) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += cell.value();
        }
        self.micros += histogram.sum.value();
    }

    fn metric(&self, labels: &[(&str, &str)]) -> Option<Metric> {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (bound, bucket) in self.bounds.iter().zip(&self.buckets) {
            count += bucket;
            let mut shown = proto::Bucket::default();
            shown.set_upper_bound(*bound as f64 / 1e6);
            shown.set_cumulative_count(count);
            buckets.push(shown);
        }
        count += self.buckets.last()?;
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(self.micros as f64 / 1e6);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        (count > 0).then_some(metric)
    }
}

impl Totals {
    fn add(&mut self, shard: &Shard) {
        for route in shard.routes() {
            for pair in route.pairs() {
                for ((protocol, code), count) in pair.requests.iter() {
                    let key = (Arc::clone(&route.name), Arc::clone(&pair.upstream), protocol, code);
                    *self.requests.entry(key).or_default() += count;
                }
            }
            for ((kind, end), count) in route.ended.iter() {
                *self.ended.entry((Arc::clone(&route.name), kind, end)).or_default() += count;
            }
            for (reason, count) in route.failures.iter() {
                *self.failures.entry((Arc::clone(&route.name), reason)).or_default() += count;
            }
            let totals = self.routes.entry(Arc::clone(&route.name)).or_default();
            totals.retries += route.retries.value();
            totals.received += route.received.value();
            totals.sent += route.sent.value();
            totals.duration.add(&route.duration);
            totals.first_byte.add(&route.first_byte);
        }
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            *self.active.entry(kind).or_default() += shard.active[index].value();
            self.streams.entry(kind).or_default().add(&shard.stream_durations[index]);
            self.gaps.entry(kind).or_default().add(&shard.stream_gaps[index]);
            *self.events.entry(kind).or_default() += shard.stream_events[index].value();
        }
        for (key, count) in shard.drained.iter() {
            *self.drained.entry(key).or_default() += count;
        }
        for direction in 0..DIRECTIONS.len() {
            self.frames[direction] += shard.frames[direction].value();
            self.messages[direction] += shard.messages[direction].value();
            self.passed_bytes[direction] += shard.passed_bytes[direction].value();
        }
        for (key, count) in shard.passed.iter() {
            *self.passed.entry(key).or_default() += count;
        }
        self.passed_open += shard.passed_open.value();
        for (key, count) in shard.violations.iter() {
            *self.violations.entry(key).or_default() += count;
        }
        self.connections += shard.connections.value();
        self.connections_open += shard.connections_open.value();
        for (reason, count) in shard.refused.iter() {
            *self.refused.entry(reason).or_default() += count;
        }
        for (key, count) in shard.handshakes.iter() {
            *self.handshakes.entry(key).or_default() += count;
        }
        for upstream in shard.upstreams() {
            for (succeeded, cell) in [(true, &upstream.connected), (false, &upstream.failed)] {
                let key = (Arc::clone(&upstream.name), outcome(succeeded));
                *self.upstream_connects.entry(key).or_default() += cell.value();
            }
            for ((reason, outcome), count) in upstream.retries.iter() {
                *self.upstream_retries.entry((Arc::clone(&upstream.name), reason, outcome)).or_default() += count;
            }
            for (outcome, count) in upstream.mirrored.iter() {
                *self.mirrored.entry((Arc::clone(&upstream.name), outcome)).or_default() += count;
            }
        }
        self.upstream_connect.add(&shard.upstream_connect);
    }

    fn families(&self) -> Vec<MetricFamily> {
        let by_route = |value: fn(&RouteTotals) -> u64| {
            self.routes.iter().map(move |(route, totals)| counter(&[("route", route)], value(totals) as f64)).collect()
        };
        let histogram_by_route = |value: fn(&RouteTotals) -> &Sum| {
            self.routes.iter().filter_map(move |(route, totals)| value(totals).metric(&[("route", route)])).collect()
        };
        let requests = self.requests.iter().map(|((route, upstream, protocol, code), count)| {
            let code = code_label(*code);
            let labels =
                [("route", &**route), ("upstream", upstream), ("protocol", protocol.as_str()), ("code", &code)];
            counter(&labels, *count as f64)
        });
        let ended = self.ended.iter().map(|((route, kind, end), count)| {
            counter(&[("route", route), ("kind", kind.as_str()), ("end", end.as_str())], *count as f64)
        });
        let failures = self
            .failures
            .iter()
            .map(|((route, reason), count)| counter(&[("route", route), ("reason", reason)], *count as f64));
        let streams = self.streams.iter().filter_map(|(kind, sum)| sum.metric(&[("kind", kind.as_str())]));
        let gaps = self.gaps.iter().filter_map(|(kind, sum)| sum.metric(&[("kind", kind.as_str())]));
        let events = self.events.iter().filter(|(_, count)| **count > 0);
        let events = events.map(|(kind, count)| counter(&[("kind", kind.as_str())], *count as f64));
        let drained = self.drained.iter().map(|((kind, parted), count)| {
            counter(&[("kind", kind.as_str()), ("outcome", parted.as_str())], *count as f64)
        });
        let active = self.active.iter().map(|(kind, count)| gauge(&[("kind", kind.as_str())], *count as f64));
        let refused = self.refused.iter().map(|(reason, count)| counter(&[("reason", reason)], *count as f64));
        let handshakes = self
            .handshakes
            .iter()
            .map(|((version, kind), count)| counter(&[("version", version), ("kind", kind)], *count as f64));
        let by_direction = |counts: [u64; 2]| {
            let counts = DIRECTIONS.into_iter().zip(counts);
            counts.map(|(direction, count)| counter(&[("direction", direction)], count as f64)).collect()
        };
        // A gateway never has any.
        let passes = self.passed_open > 0 || !self.passed.is_empty();
        let passed = self
            .passed
            .iter()
            .map(|((why, end), count)| counter(&[("why", why), ("outcome", end.as_str())], *count as f64));
        let passed_open = passes.then(|| gauge(&[], self.passed_open as f64));
        let violations = self
            .violations
            .iter()
            .map(|((side, kind), count)| counter(&[("side", side), ("kind", kind)], *count as f64));
        let connects = self
            .upstream_connects
            .iter()
            .map(|((upstream, result), count)| counter(&[("upstream", upstream), ("result", result)], *count as f64));
        let retries = self.upstream_retries.iter().map(|((upstream, reason, outcome), count)| {
            counter(&[("upstream", upstream), ("reason", reason), ("outcome", outcome)], *count as f64)
        });
        let mirrored = self.mirrored.iter().map(|((upstream, outcome), count)| {
            counter(&[("upstream", upstream), ("outcome", outcome)], *count as f64)
        });
        vec![
            family(&REQUESTS, requests.collect()),
            family(&ENDED, ended.collect()),
            family(&FAILURES, failures.collect()),
            family(&RETRIES, by_route(|totals| totals.retries)),
            family(&RECEIVED, by_route(|totals| totals.received)),
            family(&SENT, by_route(|totals| totals.sent)),
            family(&DURATION, histogram_by_route(|totals| &totals.duration)),
            family(&FIRST_BYTE, histogram_by_route(|totals| &totals.first_byte)),
            family(&STREAM_DURATION, streams.collect()),
            family(&STREAM_GAP, gaps.collect()),
            family(&STREAM_EVENTS, events.collect()),
            family(&ACTIVE, active.collect()),
            family(&DRAINED, drained.collect()),
            family(&FRAMES, by_direction(self.frames)),
            family(&MESSAGES, by_direction(self.messages)),
            family(&VIOLATIONS, violations.collect()),
            family(&CONNECTIONS, vec![counter(&[], self.connections as f64)]),
            family(&CONNECTIONS_OPEN, vec![gauge(&[], self.connections_open as f64)]),
            family(&CONNECTIONS_REFUSED, refused.collect()),
            family(&TLS_HANDSHAKES, handshakes.collect()),
            family(&PASSTHROUGH, passed.collect()),
            family(&PASSTHROUGH_OPEN, passed_open.into_iter().collect()),
            family(&PASSTHROUGH_BYTES, if passes { by_direction(self.passed_bytes) } else { Vec::new() }),
            family(&UPSTREAM_CONNECTS, connects.collect()),
            family(&UPSTREAM_RETRIES, retries.collect()),
            family(&MIRRORED, mirrored.collect()),
            family(&UPSTREAM_CONNECT_SECONDS, self.upstream_connect.metric(&[]).into_iter().collect()),
        ]
    }
}

/// The statuses that are counted one by one: the registered ones, and 499 for clients that left. An endpoint may invent
/// others; they share the label of their class (which keeps the number of series bounded), as `2xx`.
pub(super) const fn code_key(status: u16) -> u16 {
    match status {
        100..=103 | 200..=208 | 226 | 300..=308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451 | 499 => status,
        500..=508 | 510 | 511 => status,
        other => other / 100,
    }
}

fn code_label(key: u16) -> String {
    if key < 100 { format!("{key}xx") } else { key.to_string() }
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    // The text is only stable if labels are in the order of their names.
    let mut sorted = labels.to_vec();
    sorted.sort_unstable();
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    sorted.into_iter().map(pair).collect()
}

pub(super) fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_counter(counter);
    metric
}

pub(super) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_gauge(gauge);
    metric
}

pub(super) fn family(declared: &Declared, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(declared.name.to_owned());
    family.set_help(declared.help.to_owned());
    family.set_field_type(match declared.kind {
        Type::Counter => MetricType::COUNTER,
        Type::Gauge => MetricType::GAUGE,
        Type::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(metrics);
    family
}
