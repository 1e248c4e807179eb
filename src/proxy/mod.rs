//! The data plane: accepts connections, finds the route of each request, sends it to an endpoint and streams both ways.
//! Knows the snapshot, never Kubernetes.
//!
//! Read [`request`] first: the life of a request from top to bottom. Below it are the connection layers, `http1` and
//! `http2` towards clients and `upstream` towards endpoints; beside it the facts of an exchange ([`exchange`]).

mod affinity;
mod attempts;
mod body;
mod capture;
mod certified;
mod clients;
mod clocks;
mod downstream;
mod error;
mod exchange;
mod eyeballs;
mod fallback;
mod fields;
mod first_byte;
mod followed;
mod forward;
mod grpc;
mod handshake;
mod headers;
mod hello;
mod http1;
mod http2;
mod introduction;
mod io;
mod kept;
mod lent;
mod listener;
mod message;
mod onward;
mod passage;
mod pipes;
mod policy;
mod reply;
mod request;
mod resting;
mod retry;
mod secure;
mod streams;
mod target;
mod timer;
mod trace;
mod transport;
mod tunnel;
mod upload;
mod upstream;
mod worker;

pub use capture::{Capture, Captured, Destination, Inbound, original_destination};
/// Verifying tokens, for benchmarks.
pub use policy::{Refusal, Tokens, Verified};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use tokio::sync::mpsc;

use self::handshake::Handshakes;
use self::listener::Place;

use crate::clock;
use crate::drain::DrainWatcher;
use crate::ready::Live;
use crate::resilience::rate::{self, Limiters};
use crate::resilience::{InLine, InUse, Limited, RETRIES, Registry};
use crate::settings::Settings;
use crate::snapshot::Reader;
use crate::tally::Tally;
use crate::telemetry::{BreakerCount, Queue, RateLimited, Telemetry, Usage};

/// The laws of the HTTP/1 codec, for fuzzing.
#[cfg(feature = "fuzzing")]
pub mod laws {
    /// Panics if the first message of `raw`, read as a request, breaks a law.
    pub fn request(raw: &[u8]) {
        super::http1::laws::request(raw);
    }

    /// The same for answers.
    pub fn response(raw: &[u8]) {
        super::http1::laws::response(raw);
    }
}

/// What the data plane is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Listeners, limits, and who is believed.
    pub settings: Arc<Settings>,
    /// Threads; at least one.
    pub workers: usize,
    /// Where workers show that they are alive.
    pub live: Live,
    /// Where workers share what they know of endpoints.
    pub registry: Registry,
}

/// Why the data plane could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
    /// TLS cannot be prepared.
    #[error("cannot prepare TLS: {0}")]
    Tls(rustls::Error),
}

/// A part of the data plane with a table of its own, on the threads of all.
#[derive(Clone, Debug)]
pub struct Side {
    /// Limits, and who is believed; what it listens on is said below.
    pub settings: Arc<Settings>,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Where it listens, too, if the system has such addresses and nobody else does.
    pub beside: Vec<SocketAddr>,
    /// What its connections are.
    pub capture: Capture,
    /// Where workers share what they know of its endpoints.
    pub registry: Registry,
    /// Its table.
    pub reader: Reader,
    /// Where its exchanges are written down.
    pub telemetry: Telemetry,
}

/// A running data plane.
#[derive(Debug)]
pub struct Proxy {
    bound: Vec<listener::Bound>,
    registries: Vec<Registry>,
    ended: mpsc::Receiver<()>,
}

/// Binds every listener and starts the workers, which serve until the drain is over.
///
/// # Errors
/// An address that cannot be listened on, or a thread that cannot be started.
pub fn start(config: Config, reader: Reader, telemetry: &Telemetry, drain: DrainWatcher) -> Result<Proxy, StartError> {
    let Config { settings, workers, live, registry } = config;
    let places = Place::of(&settings);
    let part = Part { settings, places, capture: None, registry, reader, telemetry: telemetry.clone() };
    run(vec![part], workers, &live, &drain)
}

/// The same with several tables: each connection is served by that of its side.
///
/// # Errors
/// As with [`start`].
pub fn start_sides(sides: Vec<Side>, workers: usize, live: &Live, drain: &DrainWatcher) -> Result<Proxy, StartError> {
    let parts = sides.into_iter().map(|side| {
        let Side { settings, addresses, beside, capture, registry, reader, telemetry } = side;
        let place = |beside| move |address| Place { address, secure: false, beside };
        let places = addresses.into_iter().map(place(false)).chain(beside.into_iter().map(place(true))).collect();
        Part { settings, places, capture: Some(capture), registry, reader, telemetry }
    });
    run(parts.collect(), workers, live, drain)
}

/// What workers serve from one table.
struct Part {
    settings: Arc<Settings>,
    places: Vec<Place>,
    capture: Option<Capture>,
    registry: Registry,
    reader: Reader,
    telemetry: Telemetry,
}

fn run(parts: Vec<Part>, workers: usize, live: &Live, drain: &DrainWatcher) -> Result<Proxy, StartError> {
    let workers = workers.max(1);
    let connections = Arc::new(AtomicUsize::new(0));
    let passwords = policy::Passwords::new().map_err(StartError::Worker)?;
    let mut seeds: Vec<Vec<worker::Seed>> = (0..workers).map(|_| Vec::new()).collect();
    let (mut all_bound, mut registries) = (Vec::new(), Vec::new());
    for Part { settings, places, capture, registry, reader, telemetry } in parts {
        let (bound, listeners) = listener::bind(&places, &settings, workers)?;
        let tally = settings.rate_limits.redis.as_ref().map(Tally::start).transpose().map_err(StartError::Worker)?;
        tell(&registry, tally.as_ref(), &telemetry);
        let handshakes = Arc::new(Handshakes::new(&settings.listeners.tls).map_err(StartError::Tls)?);
        for ((index, listeners), seeds) in listeners.into_iter().enumerate().zip(&mut seeds) {
            seeds.push(worker::Seed {
                settings: Arc::clone(&settings),
                reader: reader.clone(),
                telemetry: telemetry.clone(),
                drain: drain.clone(),
                registry: registry.clone(),
                tally: tally.clone(),
                passwords: Arc::clone(&passwords),
                connections: Arc::clone(&connections),
                listeners,
                handshakes: Arc::clone(&handshakes),
                capture: capture.clone(),
                pulse: live.pulse(format!("worker-{index}")),
            });
        }
        all_bound.push(bound);
        registries.push(registry);
    }
    let (running, ended) = mpsc::channel(1);
    for (index, seeds) in seeds.into_iter().enumerate() {
        let running = running.clone();
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let _running = running;
                if let Err(error) = worker::run(seeds) {
                    tracing::error!(%error, "a worker ended");
                }
            })
            .map_err(StartError::Worker)?;
    }
    Ok(Proxy { bound: all_bound, registries, ended })
}

/// Has metrics tell what is known of endpoints and of those who ask.
fn tell(registry: &Registry, tally: Option<&Tally>, telemetry: &Telemetry) {
    let metrics = telemetry.metrics();
    let asked = registry.clone();
    metrics.ask_usage(move || usage(&asked));
    let seen = registry.clone();
    metrics.breakers(move || breakers(&seen));
    let (limiters, counted) = (registry.limiters().clone(), tally.map(Tally::watch));
    metrics.rate_limits(move || (rate_limits(&limiters), counted.as_ref().map(|counted| counted())));
}

/// How much of each upstream is in use. Requests and streams are counted only where they are limited.
fn usage(registry: &Registry) -> Vec<Usage> {
    let clusters = registry.clusters();
    let usages = clusters.iter().flat_map(|cluster| {
        let always = [Limited::Connections.as_str(), RETRIES];
        let told =
            cluster.limits().in_use().filter(move |it| it.active > 0 || it.most.is_some() || always.contains(&it.what));
        told.map(|InUse { what, active, most, line }| Usage {
            upstream: cluster.name().as_str().to_owned(),
            limit: what,
            active,
            most,
            queue: line.map(|InLine { waiting, refused, given_up }| Queue {
                pending: waiting,
                refused,
                timed_out: given_up,
            }),
        })
    });
    usages.collect()
}

/// What metrics tell of circuit breakers.
fn breakers(registry: &Registry) -> Vec<BreakerCount> {
    let counted = registry.breakers(clock::now()).into_iter();
    let counts = counted.map(|counted| BreakerCount {
        upstream: counted.cluster.as_str().to_owned(),
        scope: if counted.of_endpoints { "endpoint" } else { "upstream" },
        states: counted.states.into_iter().map(|(state, count)| (state.word(), count)).collect(),
        not_permitted: counted.not_permitted,
    });
    counts.collect()
}

/// What metrics tell of limits.
fn rate_limits(limiters: &Limiters) -> Vec<RateLimited> {
    let told = limiters.limited(clock::now()).into_iter();
    told.map(|rate::Limited { policy, limit, refused, keys }| RateLimited { policy, limit, refused, keys }).collect()
}

impl Proxy {
    /// The addresses that are listened on without TLS, with the ports that were given for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.addresses_of(0)
    }

    /// The same of one side, by position.
    pub fn addresses_of(&self, side: usize) -> &[SocketAddr] {
        self.bound.get(side).map_or(&[], |bound| &bound.http)
    }

    /// The addresses that are listened on with TLS.
    pub fn secure_addresses(&self) -> &[SocketAddr] {
        self.bound.first().map_or(&[], |bound| &bound.https)
    }

    /// Requests in flight to endpoints, tunnels included.
    pub fn in_flight(&self) -> u64 {
        self.registries.iter().map(Registry::in_flight).sum()
    }

    /// Waits until every worker has ended, which they do once a drain is over.
    pub async fn ended(mut self) {
        // Nothing is ever sent: the channel closes with the last worker.
        let _ = self.ended.recv().await;
    }
}
