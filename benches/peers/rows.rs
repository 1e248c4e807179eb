//! The rows of the table: what is measured, in which unit, and what is aimed at.

mod bodies;
mod idle;
mod requests;

use std::pin::Pin;

use anyhow::Result;

use crate::Bench;
use crate::peers::{Kind, Peer, Setup};

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
    /// Proxies that do not take part.
    pub(crate) without: &'static [Kind],
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
    pub(crate) fn takes(&self, kind: Kind) -> bool {
        !self.without.contains(&kind)
    }

    /// Values of one measurement, for whoever waits.
    pub(crate) fn shown(&self, kind: Kind, values: &[f64]) -> String {
        let figures = self.figures.iter().zip(values);
        let shown = figures.map(|(figure, value)| format!("{value:10.2} {}", figure.unit));
        format!("{:<9}{}", kind.to_string(), shown.collect::<Vec<_>>().join("; "))
    }
}

/// A row of processor time for one of what clients do, while the access log is off.
macro_rules! cost {
    ($name:literal, $about:literal, $setup:expr, $aim:expr, $rate:literal, $measure:path) => {
        Row {
            name: $name,
            about: $about,
            setup: $setup,
            life: Life::Row,
            without: &[],
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

/// A row of memory for each connection.
macro_rules! memory {
    ($name:literal, $about:literal, $aim:expr, $measure:path) => {
        Row {
            name: $name,
            about: $about,
            setup: Setup::Quiet,
            life: Life::Round,
            without: &[],
            measure: Measure::Each(|bench, peer| Box::pin($measure(bench, peer))),
            figures: &[figure($about, "KB", $aim)],
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
    memory!("sse-idle", "resident memory per idle event stream", Aim::AtMost(5.0), idle::events),
    memory!("ws-idle", "resident memory per idle WebSocket", Aim::AtMost(4.0), idle::sockets),
    memory!(
        "kept-idle",
        "resident memory per idle keep-alive connection of a client",
        Aim::OfBest(1.0),
        idle::kept_alive
    ),
];
