//! Every metric of the process: its name, labels and help, and the handles of those that the control thread writes.
//! What workers count on the path of a request lives in `cells`, and is only declared here.
//!
//! Labels are bounded by configuration or by a closed set in this program: never a path, a client's host or an address.

use std::time::{Duration, SystemTime};

use prometheus::core::{AtomicU64, Collector, GenericCounter};
use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder};

use super::certificates::{Expiries, Expiry};
use super::part::{Part, merged};
use super::process::Process;
use super::standing::{Standing, Standings};

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

/// A metric as Prometheus sees it.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// Name.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Type,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

macro_rules! declare {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $constant: Declared =
            Declared { name: $name, kind: Type::$kind, labels: &[$($label),*], help: $help };)*
        /// Every metric of the process.
        pub const ALL: &[Declared] = &[$($constant),*];
    };
}

declare! {
    REQUESTS: Counter "floodway_requests_total" ["route", "upstream", "protocol", "code"]
        "Exchanges that ended, by the status the client got and the protocol it spoke.";
    ENDED: Counter "floodway_exchanges_ended_total" ["route", "kind", "end"]
        "Exchanges that ended, by the kind of stream and how it ended.";
    FAILURES: Counter "floodway_failures_total" ["route", "reason"]
        "Exchanges that Floodway itself answered or ended, by its reason.";
    RETRIES: Counter "floodway_retries_total" ["route"]
        "Attempts beyond the first to get an answer from an endpoint.";
    RECEIVED: Counter "floodway_received_bytes_total" ["route"]
        "Body bytes from clients, counted when the exchange ends.";
    SENT: Counter "floodway_sent_bytes_total" ["route"]
        "Body bytes to clients, counted when the exchange ends.";
    DURATION: Histogram "floodway_request_duration_seconds" ["route"]
        "Time from the request head to the end of ordinary requests and gRPC calls.";
    FIRST_BYTE: Histogram "floodway_first_byte_seconds" ["route"]
        "Time from the request head to the first byte of the answer, streams included.";
    STREAM_DURATION: Histogram "floodway_stream_duration_seconds" ["kind"]
        "Time from the request head to the end of event streams, WebSockets and other tunnels.";
    STREAM_GAP: Histogram "floodway_stream_gap_seconds" ["kind"]
        "Time between two pieces of a stream on their way to the client, gRPC included.";
    STREAM_EVENTS: Counter "floodway_stream_events_total" ["kind"]
        "Events of event streams and messages of gRPC that went to clients, counted as they pass.";
    ACTIVE: Gauge "floodway_active_streams" ["kind"]
        "Exchanges that have begun and not ended.";
    DRAINED: Counter "floodway_drained_streams_total" ["kind", "outcome"]
        "Streams that ended while the process went away, by how.";
    FRAMES: Counter "floodway_websocket_frames_total" ["direction"]
        "Frames of WebSockets that passed, control frames included.";
    MESSAGES: Counter "floodway_websocket_messages_total" ["direction"]
        "Messages of WebSockets that passed, each counted with its last frame.";
    VIOLATIONS: Counter "floodway_websocket_violations_total" ["side", "kind"]
        "WebSockets whose side broke the protocol; from then on only bytes are passed that way.";
    CONNECTIONS: Counter "floodway_connections_total" []
        "Connections accepted from clients.";
    CONNECTIONS_OPEN: Gauge "floodway_connections_open" []
        "Open connections from clients.";
    CONNECTIONS_REFUSED: Counter "floodway_connections_refused_total" ["reason"]
        "Connections closed for a fault of the connection itself: over a limit, too slow, malformed.";
    TLS_HANDSHAKES: Counter "floodway_tls_handshakes_total" ["version", "kind"]
        "Handshakes of TLS completed with clients, by version and by whether they resumed a session.";
    PASSTHROUGH: Counter "floodway_passthrough_connections_total" ["why", "outcome"]
        "Connections that a sidecar passed on as bytes and that ended, by why it did not serve them and how they ended.";
    PASSTHROUGH_OPEN: Gauge "floodway_passthrough_connections_open" []
        "Connections that a sidecar passes on as bytes.";
    PASSTHROUGH_BYTES: Counter "floodway_passthrough_bytes_total" ["direction"]
        "Bytes of such connections, from who made them and to them.";
    UPSTREAM_CONNECTS: Counter "floodway_upstream_connects_total" ["upstream", "result"]
        "Connections attempted to endpoints.";
    UPSTREAM_RETRIES: Counter "floodway_upstream_retries_total" ["upstream", "reason", "outcome"]
        "Retries that a route asked for, by what made them necessary and what became of them.";
    MIRRORED: Counter "floodway_mirrored_total" ["upstream", "outcome"]
        "Copies of requests for an upstream, by what became of them.";
    UPSTREAM_CONNECT_SECONDS: Histogram "floodway_upstream_connect_seconds" []
        "Time to make a new connection to an endpoint, for exchanges that needed one.";
    UPSTREAM_ACTIVE: Gauge "floodway_upstream_active" ["upstream", "limit"]
        "What is in use of an upstream: connections and retries always, requests and streams where the upstream has limits.";
    UPSTREAM_LIMIT: Gauge "floodway_upstream_limit" ["upstream", "limit"]
        "How much may be in use of an upstream, where that is limited.";
    UPSTREAM_PENDING: Gauge "floodway_upstream_pending" ["upstream", "limit"]
        "Requests that wait, because their upstream is at a limit.";
    UPSTREAM_OVERFLOW: Counter "floodway_upstream_overflow_total" ["upstream", "limit"]
        "Requests refused, because their upstream was at a limit and no more may wait.";
    UPSTREAM_QUEUE_TIMEOUTS: Counter "floodway_upstream_queue_timeouts_total" ["upstream", "limit"]
        "Requests given up, because their upstream was at a limit for too long.";
    UPSTREAM_ENDPOINTS: Gauge "floodway_upstream_endpoints" ["upstream", "state"]
        "Endpoints of upstreams that had requests, by whether they get more.";
    UPSTREAM_CHANGES: Counter "floodway_upstream_changes_total" ["upstream", "to", "reason"]
        "Changes of endpoints and of circuit breakers, by what they became.";
    BREAKERS: Gauge "floodway_breakers" ["upstream", "scope", "state"]
        "Circuit breakers, by whether they are the upstream's or its endpoints', and by state.";
    NOT_PERMITTED: Counter "floodway_breaker_not_permitted_total" ["upstream", "scope"]
        "Calls that circuit breakers did not permit.";
    RATE_LIMITED: Counter "floodway_rate_limited_total" ["policy", "limit"]
        "Requests that a rate limit of a policy refused, and WebSockets that it closed.";
    RATE_LIMIT_KEYS: Gauge "floodway_rate_limit_keys" ["policy", "limit"]
        "Keys of a rate limit that have less than all they may have.";
    RATE_LIMIT_QUESTIONS: Counter "floodway_rate_limit_questions_total" ["outcome"]
        "Questions to the Redis that counts rate limits for all replicas, by how they went.";
    RATE_LIMIT_CONNECTED: Gauge "floodway_rate_limit_connected" []
        "1 while there is a connection to the Redis that counts rate limits for all replicas, 0 while there is none.";
    CERTIFICATE_EXPIRY: Gauge "floodway_certificate_expiry_seconds" ["secret"]
        "When a certificate that is served expires, in seconds since 1970.";
    ACCESS_LOG_DROPPED: Counter "floodway_access_log_dropped_total" []
        "Access-log lines dropped because the log could not be written fast enough.";
    PUBLICATIONS: Counter "floodway_config_publications_total" []
        "Routing tables published to the workers.";
    LAST_PUBLISH: Gauge "floodway_config_last_publish_timestamp_seconds" []
        "When the last routing table was published, in seconds since 1970.";
    TRANSLATION: Histogram "floodway_config_translation_seconds" []
        "Time to translate all objects into a routing table.";
    OBJECTS: Gauge "floodway_config_objects" ["kind"]
        "Objects held, by kind.";
    REJECTED: Gauge "floodway_config_rejected_objects" ["kind"]
        "Objects held whose conditions say that they are not served as they are written.";
    UNREADABLE: Gauge "floodway_config_unreadable_objects" ["kind"]
        "Objects that cannot be read at all: they are left out, or their last good version stays.";
    SOURCE_CONNECTED: Gauge "floodway_source_connected" ["source"]
        "1 while the source of objects is being watched, or nothing of it is to be read (sidecars), 0 while the last good table is served without it.";
    SOURCE_ERRORS: Counter "floodway_source_errors_total" ["source"]
        "Failures to read or watch a source of objects.";
    SOURCE_RELISTS: Counter "floodway_source_relists_total" ["source"]
        "Complete lists read from a source, the first included.";
    SOURCE_LAST_EVENT: Gauge "floodway_source_last_event_timestamp_seconds" ["source"]
        "When a watched kind last said something, in seconds since 1970.";
    DNS: Counter "floodway_dns_lookups_total" ["result"]
        "Names of upstreams looked up.";
    JWKS_FETCHES: Counter "floodway_jwks_fetches_total" ["source", "outcome"]
        "Keys of issuers fetched, by from where and by how that went.";
    JWKS_LAST: Gauge "floodway_jwks_last_fetch_timestamp_seconds" ["source"]
        "When the keys of an issuer were last fetched, in seconds since 1970.";
    HEALTH_CHECKS: Counter "floodway_health_checks_total" ["upstream", "outcome"]
        "Health checks of endpoints, by how they went.";
    STATUS_WRITES: Counter "floodway_status_writes_total" ["kind", "result"]
        "Writes of conditions to the status of objects.";
    LEADER: Gauge "floodway_leader" []
        "1 while this process writes the status of objects, 0 otherwise.";
    INJECTIONS: Counter "floodway_injections_total" ["result"]
        "Pods that the webhook of the injector was asked about, by what became of them.";
    BUILD_INFO: Gauge "floodway_build_info" ["version"]
        "Always 1; the label tells the version.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "CPU time used, user and system.";
    PROCESS_MEMORY: Gauge "process_resident_memory_bytes" []
        "Resident memory.";
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" []
        "Virtual memory.";
    PROCESS_FDS: Gauge "process_open_fds" []
        "Open file descriptors.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "File descriptors that may be open.";
    PROCESS_THREADS: Gauge "process_threads" []
        "Threads.";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When the process started, in seconds since 1970.";
}

/// Upper bounds of [`DURATION`], [`FIRST_BYTE`] and [`UPSTREAM_CONNECT_SECONDS`], in microseconds.
pub(super) const REQUEST_BOUNDS: &[u64] =
    &[1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000, 60_000_000];
/// Upper bounds of [`STREAM_DURATION`], in microseconds: a second to a day.
pub(super) const STREAM_BOUNDS: &[u64] = &[
    1_000_000,
    10_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
    14_400_000_000,
    43_200_000_000,
    86_400_000_000,
];
/// Upper bounds of [`STREAM_GAP`], in microseconds: a millisecond to the silence after which streams are given up.
pub(super) const GAP_BOUNDS: &[u64] =
    &[1_000, 5_000, 20_000, 100_000, 500_000, 1_000_000, 5_000_000, 15_000_000, 30_000_000, 60_000_000, 300_000_000];
/// Upper bounds of [`TRANSLATION`], in seconds.
const TRANSLATION_BOUNDS: &[f64] = &[0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

type Counter = GenericCounter<AtomicU64>;

impl Declared {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    /// The description that `prometheus` registers.
    pub(super) fn desc(&self) -> prometheus::core::Desc {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        prometheus::core::Desc::new(self.name.to_owned(), self.help.to_owned(), labels, Default::default())
            .expect("declared names are valid")
    }
}

/// The metrics that the control thread writes, and the registry of all. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) registry: prometheus::Registry,
    /// Registries whose metrics are shown beside its own.
    beside: Vec<prometheus::Registry>,
    pub(super) access_log_dropped: Counter,
    publications: Counter,
    last_publish: Gauge,
    translation: Histogram,
    objects: IntGaugeVec,
    rejected: IntGaugeVec,
    unreadable: IntGaugeVec,
    source_connected: IntGaugeVec,
    source_errors: IntCounterVec,
    source_relists: IntCounterVec,
    source_last_event: GaugeVec,
    pub(super) dns: IntCounterVec,
    pub(super) jwks_fetches: IntCounterVec,
    pub(super) jwks_last: GaugeVec,
    pub(super) health_checks: IntCounterVec,
    status_writes: IntCounterVec,
    leader: IntGauge,
}

impl Metrics {
    /// A registry of its own with everything that is declared here, as far as it belongs to `part`; `workers` collects what the
    /// workers count.
    pub(super) fn new(part: Part, workers: impl Collector + 'static) -> Self {
        let registry = part.registry();
        let (table, process, leads) =
            (part.has_table().then_some(&registry), part.is_process().then_some(&registry), part == Part::Whole);
        let metrics = Metrics {
            access_log_dropped: register(process, Counter::with_opts(ACCESS_LOG_DROPPED.opts())),
            publications: register(table, Counter::with_opts(PUBLICATIONS.opts())),
            last_publish: register(table, Gauge::with_opts(LAST_PUBLISH.opts())),
            translation: register(
                table,
                Histogram::with_opts(HistogramOpts::from(TRANSLATION.opts()).buckets(TRANSLATION_BOUNDS.to_vec())),
            ),
            objects: register(table, IntGaugeVec::new(OBJECTS.opts(), OBJECTS.labels)),
            rejected: register(table, IntGaugeVec::new(REJECTED.opts(), REJECTED.labels)),
            unreadable: register(process, IntGaugeVec::new(UNREADABLE.opts(), UNREADABLE.labels)),
            source_connected: register(process, IntGaugeVec::new(SOURCE_CONNECTED.opts(), SOURCE_CONNECTED.labels)),
            source_errors: register(process, IntCounterVec::new(SOURCE_ERRORS.opts(), SOURCE_ERRORS.labels)),
            source_relists: register(process, IntCounterVec::new(SOURCE_RELISTS.opts(), SOURCE_RELISTS.labels)),
            source_last_event: register(process, GaugeVec::new(SOURCE_LAST_EVENT.opts(), SOURCE_LAST_EVENT.labels)),
            dns: register(table, IntCounterVec::new(DNS.opts(), DNS.labels)),
            jwks_fetches: register(table, IntCounterVec::new(JWKS_FETCHES.opts(), JWKS_FETCHES.labels)),
            jwks_last: register(table, GaugeVec::new(JWKS_LAST.opts(), JWKS_LAST.labels)),
            health_checks: register(table, IntCounterVec::new(HEALTH_CHECKS.opts(), HEALTH_CHECKS.labels)),
            status_writes: register(process, IntCounterVec::new(STATUS_WRITES.opts(), STATUS_WRITES.labels)),
            leader: register(process.filter(|_| leads), IntGauge::with_opts(LEADER.opts())),
            beside: Vec::new(),
            registry,
        };
        let registry = &metrics.registry;
        if part.is_process() {
            register(Some(registry), GaugeVec::new(BUILD_INFO.opts(), BUILD_INFO.labels))
                .with_label_values(&[env!("CARGO_PKG_VERSION")])
                .set(1.0);
            registry.register(Box::new(Process::new())).expect("declared names are distinct");
        }
        if part.has_table() {
            registry.register(Box::new(workers)).expect("declared names are distinct");
        }
        metrics
    }

    /// Shows the metrics of others, too.
    pub(super) fn show(&mut self, other: &Metrics) {
        self.beside.push(other.registry.clone());
    }

    /// Has `ask` asked how endpoints are whenever somebody wants to know. Only the first who says so is asked.
    pub fn ask_standing(&self, ask: impl Fn() -> Vec<Standing> + Send + Sync + 'static) {
        if let Err(error) = self.registry.register(Box::new(Standings::new(ask))) {
            tracing::debug!(%error, "standing of upstreams");
        }
    }

    /// Has `ask` asked when certificates expire whenever somebody wants to know. Only the first who says so is asked.
    pub fn ask_expiry(&self, ask: impl Fn() -> Vec<Expiry> + Send + Sync + 'static) {
        if let Err(error) = self.registry.register(Box::new(Expiries::new(ask))) {
            tracing::debug!(%error, "expiry of certificates");
        }
    }

    /// A counter of those that only some processes have.
    pub(super) fn registered(&self, declared: Declared) -> IntCounterVec {
        register(Some(&self.registry), IntCounterVec::new(declared.opts(), declared.labels))
    }

    /// A table was published.
    pub fn published(&self) {
        self.publications.inc();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_publish.set(now.as_secs_f64());
    }

    /// All objects were translated.
    pub fn translated(&self, took: Duration) {
        self.translation.observe(took.as_secs_f64());
    }

    /// How many objects of a kind are held, and how many of them are not served as they are written.
    pub fn objects(&self, kind: &'static str, held: usize, rejected: usize) {
        self.objects.with_label_values(&[kind]).set(signed(held));
        self.rejected.with_label_values(&[kind]).set(signed(rejected));
    }

    /// One of the watches of a kind has so many objects that cannot be read, after so many before.
    pub fn unreadable_objects(&self, kind: &'static str, count: usize, before: usize) {
        self.unreadable.with_label_values(&[kind]).add(signed(count) - signed(before));
    }

    /// Whether a source (a watched kind, or `files`) is being watched.
    pub fn source_connected(&self, source: &'static str, connected: bool) {
        self.source_connected.with_label_values(&[source]).set(connected.into());
    }

    /// A source could not be read or watched.
    pub fn source_error(&self, source: &'static str) {
        self.source_errors.with_label_values(&[source]).inc();
    }

    /// A source was listed completely.
    pub fn source_listed(&self, source: &'static str) {
        self.source_relists.with_label_values(&[source]).inc();
    }

    /// A watched kind said something.
    pub fn source_event(&self, source: &'static str) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.source_last_event.with_label_values(&[source]).set(now.as_secs_f64());
    }

    /// A status was written.
    pub fn status_write(&self, kind: &'static str, succeeded: bool) {
        self.status_writes.with_label_values(&[kind, outcome(succeeded)]).inc();
    }

    /// Whether this process is the leader.
    pub fn leader(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Everything in the text format of Prometheus 0.0.4.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&merged(&self.registry, &self.beside), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

/// The label value of something that may fail.
pub(super) fn outcome(succeeded: bool) -> &'static str {
    if succeeded { "success" } else { "failure" }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn register<C: Collector + Clone + 'static>(registry: Option<&prometheus::Registry>, made: prometheus::Result<C>) -> C {
    let metric = made.expect("declared names and labels are valid");
    if let Some(registry) = registry {
        registry.register(Box::new(metric.clone())).expect("declared names are distinct");
    }
    metric
}
