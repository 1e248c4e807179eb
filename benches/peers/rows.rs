//! The rows of the table: what is measured, in which unit, and what is aimed at.

mod after;
mod bodies;
mod changes;
mod faults;
mod http2;
mod idle;
mod latency;
mod requests;
mod streams;
mod tls;

use std::pin::Pin;

use anyhow::Result;

use crate::Bench;
use crate::backend::pods::Health;
use crate::peers::{Kind, Peer, Setup};

/// Rows that the summary tells of.
pub(crate) const SUMMARY: &[&str] = &[
    "http1",
    "1m",
    "http2",
    "grpc",
    "tls-full",
    "tls-resumed",
    "tls-http1",
    "tls-http2",
    "latency",
    "sse-idle",
    "ws-idle",
    "sse-fan",
    "ws-echo",
    "changes",
    "after",
    "fault-cutting",
    "fault-restart",
];

/// Streams that are open at once where memory is measured.
pub(crate) const STREAMS: usize = 4_000;

/// Values of one measurement, in the order of the figures.
pub(crate) type Values = Vec<f64>;
type Measured<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// How a row is measured: one proxy after the other, or all of them at once.
pub(crate) enum Measure {
    Each(for<'a> fn(&'a Bench, &'a Peer) -> Measured<'a, Values>),
    Together(for<'a> fn(&'a Bench, &'a [Peer]) -> Measured<'a, Vec<Values>>),
}

/// How long a proxy lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Through all rounds of the row.
    Row,
    /// For one measurement, so that memory of an earlier one does not count.
    Round,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) setup: Setup,
    pub(crate) life: Life,
    /// No more than these.
    pub(crate) rounds: usize,
    pub(crate) measure: Measure,
    pub(crate) figures: &'static [Figure],
}

/// One figure of a row.
pub(crate) struct Figure {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) aim: Aim,
}

/// What Floodway aims at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    /// At most this share of the best other proxy's figure.
    OfBest(f64),
    /// Less than this proxy's figure.
    Below(Kind),
    /// At most this, in the figure's unit.
    AtMost(f64),
    /// Nothing: it explains other figures.
    Context,
}

const fn figure(title: &'static str, unit: &'static str, aim: Aim) -> Figure {
    Figure { title, unit, aim }
}

const fn context(title: &'static str, unit: &'static str) -> Figure {
    figure(title, unit, Aim::Context)
}

impl Row {
    /// Values of one measurement, for whoever waits.
    pub(crate) fn shown(&self, kind: Kind, values: &[f64]) -> String {
        let figures = self.figures.iter().zip(values);
        let shown = figures.map(|(figure, value)| format!("{value:10.2} {}", figure.unit));
        format!("{:<9}{}", kind.to_string(), shown.collect::<Vec<_>>().join("; "))
    }
}

/// A row of processor time for one of what clients do.
macro_rules! cost {
    ($name:literal, $about:literal, $setup:expr, $aim:expr, $rate:literal, $measure:path) => {
        Row {
            name: $name,
            about: $about,
            setup: $setup,
            life: Life::Row,
            rounds: usize::MAX,
            measure: Measure::Each(|bench, peer| Box::pin($measure(bench, peer))),
            figures: &[
                figure($about, "µs", $aim),
                context(concat!($about, ": rate"), $rate),
                context(concat!($about, ": the proxy's core in use"), "%"),
                context(concat!($about, ": the load's core in use"), "%"),
            ],
        }
    };
}

/// A row of processor time for one new connection with TLS.
macro_rules! handshake {
    ($name:literal, $about:literal, $measure:path) => {
        Row {
            name: $name,
            about: $about,
            setup: Setup::Tls,
            life: Life::Row,
            rounds: usize::MAX,
            measure: Measure::Each(|bench, peer| Box::pin($measure(bench, peer))),
            figures: &[
                figure($about, "µs", Aim::OfBest(1.0)),
                context(concat!($about, ": rate"), "handshakes/s"),
                context(concat!($about, ": the proxy's core in use"), "%"),
                context(concat!($about, ": the load's core in use"), "%"),
                context(concat!($about, ": handshakes per second of processor time"), "handshakes"),
            ],
        }
    };
}

/// A row of processor time for each GiB.
macro_rules! gib {
    ($name:literal, $about:literal, $measure:path) => {
        Row {
            name: $name,
            about: $about,
            setup: Setup::Quiet,
            life: Life::Row,
            rounds: usize::MAX,
            measure: Measure::Each(|bench, peer| Box::pin($measure(bench, peer))),
            figures: &[figure($about, "ms", Aim::OfBest(1.0))],
        }
    };
}

/// A row of memory for each connection.
macro_rules! memory {
    ($name:literal, $about:literal, $aim:expr, $measure:path) => {
        Row {
            name: $name,
            about: $about,
            setup: Setup::Quiet,
            life: Life::Round,
            rounds: usize::MAX,
            measure: Measure::Each(|bench, peer| Box::pin($measure(bench, peer))),
            figures: &[figure($about, "KB", $aim)],
        }
    };
}

/// A row of what clients see of a fault.
macro_rules! fault {
    ($name:literal, $about:literal, $aim:expr, $fault:expr) => {
        Row {
            name: $name,
            about: $about,
            setup: Setup::Faulty,
            life: Life::Round,
            rounds: 1,
            measure: Measure::Each(|bench, peer| Box::pin(faults::befalls(bench, peer, $fault))),
            figures: &[
                figure(concat!("of 1,000 requests failed: ", $about), "requests", $aim),
                context(concat!($about, ": latency, p99"), "ms"),
                context(concat!($about, ": requests"), "requests"),
            ],
        }
    };
}

pub(crate) const ROWS: &[Row] = &[
    cost!(
        "http1",
        "processor time per request, 130 B answers, 64 connections, HTTP/1.1",
        Setup::Quiet,
        Aim::OfBest(0.9),
        "requests/s",
        requests::http1
    ),
    cost!(
        "http1-log",
        "the same with JSON access log, metrics and 1,000 routes",
        Setup::Logged,
        Aim::OfBest(1.0),
        "requests/s",
        requests::http1_logged
    ),
    Row {
        name: "resilience-on",
        about: "an upstream with everything on that guards it, against one without",
        setup: Setup::Guarded,
        life: Life::Row,
        rounds: usize::MAX,
        measure: Measure::Each(|bench, peer| Box::pin(requests::guarded(bench, peer))),
        figures: &[
            figure(
                "processor time per request, health, breakers, limits and retries on, to that without",
                "×",
                Aim::AtMost(1.03),
            ),
            context("processor time per request with all of that", "µs"),
            context("processor time per request without", "µs"),
        ],
    },
    Row {
        name: "policies-on",
        about: "a host whose requests are under a policy with six sections, against one without",
        setup: Setup::Policed,
        life: Life::Row,
        rounds: usize::MAX,
        measure: Measure::Each(|bench, peer| Box::pin(requests::policed(bench, peer))),
        figures: &[
            context(
                "processor time per request under ipAccess, cors, requestLimits, jwt, rateLimit and headers, to that under nothing",
                "×",
            ),
            context("processor time per request under these", "µs"),
            context("processor time per request under nothing", "µs"),
        ],
    },
    cost!(
        "64k",
        "processor time per request, 64 KiB answers",
        Setup::Quiet,
        Aim::OfBest(1.0),
        "requests/s",
        bodies::kib64
    ),
    cost!(
        "1m",
        "processor time per request, 1 MiB answers",
        Setup::Quiet,
        Aim::OfBest(1.0),
        "requests/s",
        bodies::mib1
    ),
    gib!("download", "processor time per GiB of one download", bodies::download),
    gib!("upload", "processor time per GiB of one upload", bodies::upload),
    cost!(
        "http2",
        "processor time per request, 130 B answers, HTTP/2 from clients, HTTP/1.1 to the backend",
        Setup::Quiet,
        Aim::Below(Kind::Envoy),
        "requests/s",
        http2::to_http1
    ),
    cost!(
        "grpc",
        "processor time per gRPC call, 100 B each way, HTTP/2 on both sides",
        Setup::Quiet,
        Aim::Below(Kind::Envoy),
        "calls/s",
        http2::grpc
    ),
    handshake!("tls-full", "processor time per new connection, TLS 1.3, ECDSA P-256, full handshake", tls::full),
    handshake!("tls-resumed", "processor time per new connection, TLS 1.3, session resumed", tls::resumed),
    cost!(
        "tls-http1",
        "processor time per request over TLS, 130 B answers, 64 kept connections, HTTP/1.1",
        Setup::Tls,
        Aim::OfBest(1.0),
        "requests/s",
        tls::http1
    ),
    cost!(
        "tls-http2",
        "processor time per request over TLS, 130 B answers, HTTP/2 from clients, HTTP/1.1 to the backend",
        Setup::Tls,
        Aim::OfBest(1.0),
        "requests/s",
        tls::over_http2
    ),
    Row {
        name: "latency",
        about: "latency that is added at half load",
        setup: Setup::Quiet,
        life: Life::Round,
        rounds: usize::MAX,
        measure: Measure::Together(|bench, peers| Box::pin(latency::added(bench, peers))),
        figures: &[
            figure("latency added at half load, p50", "µs", Aim::OfBest(1.0)),
            figure("latency added at half load, p99", "µs", Aim::OfBest(1.0)),
            figure("latency added at half load, p99.9", "µs", Aim::OfBest(1.0)),
            context("latency added at half load: rate", "requests/s"),
        ],
    },
    memory!("sse-idle", "resident memory per idle event stream, of 4,000", Aim::AtMost(5.0), idle::events),
    memory!("ws-idle", "resident memory per idle WebSocket, of 4,000", Aim::AtMost(4.0), idle::sockets),
    memory!(
        "kept-idle",
        "resident memory per idle keep-alive connection, of 4,000",
        Aim::Below(Kind::Haproxy),
        idle::kept_alive
    ),
    Row {
        name: "sse-fan",
        about: "events on 1,000 streams, 20 per second on each",
        setup: Setup::Quiet,
        life: Life::Row,
        rounds: usize::MAX,
        measure: Measure::Each(|bench, peer| Box::pin(streams::events(bench, peer))),
        figures: &[
            figure("processor time per event, 1,000 event streams with 20 events/s each", "µs", Aim::OfBest(1.0)),
            figure("from an event sent to its arrival, p99", "µs", Aim::OfBest(1.0)),
            context("from an event sent to its arrival, p50", "µs"),
            context("events: the proxy's core in use", "%"),
            context("how late events were sent, p99", "µs"),
        ],
    },
    cost!(
        "ws-echo",
        "processor time per WebSocket message of 128 B there and back, 500 connections",
        Setup::Quiet,
        Aim::OfBest(1.0),
        "messages/s",
        streams::echo
    ),
    Row {
        name: "changes",
        about: "1,000 routes added one after the other, while 8 clients and 100 event streams go on",
        setup: Setup::Changing,
        life: Life::Round,
        rounds: 1,
        measure: Measure::Each(|bench, peer| Box::pin(changes::routes(bench, peer))),
        figures: &[
            figure("from a route's file to its first answer, p99", "ms", Aim::AtMost(10.0)),
            figure("requests that failed, per 1,000 such changes", "requests", Aim::AtMost(0.0)),
            context("from a route's file to its first answer, p50", "ms"),
            context("requests answered during the changes", "requests"),
            context("event streams cut by the changes, of 100", "streams"),
            context("changes made", "changes"),
        ],
    },
    Row {
        name: "after",
        about: "resident memory after 4,000 event streams and small downloads have gone",
        setup: Setup::Quiet,
        life: Life::Round,
        rounds: usize::MAX,
        measure: Measure::Together(|bench, peers| Box::pin(after::memory(bench, peers))),
        figures: &[
            figure("resident memory 20 s after a load, of what it was before", "%", Aim::AtMost(120.0)),
            context("resident memory at rest", "MB"),
            context("resident memory under that load", "MB"),
            context("resident memory 20 s after it", "MB"),
        ],
    },
    fault!("fault-dead", "one of four pods refuses connections", Aim::AtMost(0.0), faults::Fault::One(Health::Dead)),
    fault!(
        "fault-unreachable",
        "one of four pods does not accept connections",
        Aim::AtMost(0.0),
        faults::Fault::One(Health::Unreachable)
    ),
    fault!("fault-silent", "one of four pods does not answer", Aim::AtMost(0.0), faults::Fault::One(Health::Silent)),
    fault!("fault-broken", "one of four pods answers 500", Aim::AtMost(0.0), faults::Fault::One(Health::Broken)),
    fault!("fault-slow", "one of four pods answers after a second", Aim::AtMost(0.0), faults::Fault::One(Health::Slow)),
    fault!(
        "fault-cutting",
        "one of four pods resets its answers in the middle",
        Aim::OfBest(1.0),
        faults::Fault::One(Health::Cutting)
    ),
    fault!(
        "fault-lying",
        "one of four pods ends its answers in the middle",
        Aim::OfBest(1.0),
        faults::Fault::One(Health::Lying)
    ),
    fault!(
        "fault-flapping",
        "one of four pods dies and comes back every second",
        Aim::AtMost(0.0),
        faults::Fault::Flaps
    ),
    fault!(
        "fault-one-left",
        "three of four pods refuse connections",
        Aim::AtMost(0.0),
        faults::Fault::AllButOne(Health::Dead)
    ),
    fault!(
        "fault-one-well",
        "three of four pods answer 500",
        Aim::AtMost(0.0),
        faults::Fault::AllButOne(Health::Broken)
    ),
    fault!("fault-restart", "four pods restart one after the other", Aim::AtMost(0.0), faults::Fault::Restart),
];
