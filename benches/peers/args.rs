//! The command line, and what it comes to. No behaviour.

use anyhow::{Result, bail};
use clap::Parser;

use crate::machine;
use crate::peers::{Kind, Program};
use crate::rows::{ROWS, Row, STREAMS};

/// Measure Floodway beside nginx, HAProxy and Envoy.
#[derive(Debug, Parser)]
#[command(name = "make bench ARGS=…", no_binary_name = false)]
pub(crate) struct Args {
    /// Rows to measure, by name, or by its beginning as in 'fault-*'; all when absent
    #[arg(long, value_delimiter = ',', value_name = "ROW,…")]
    rows: Vec<String>,
    /// Proxies to measure; all that are there when absent
    #[arg(long, value_delimiter = ',', value_name = "PROXY,…")]
    only: Vec<Kind>,
    /// Measurements of each figure, of which the median is told
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// How long each measurement lasts
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Share of the usual numbers of streams, bytes and changes
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Cores for the proxy, the load and the backend; by default the last for the proxy, the one before for both others
    #[arg(long, value_name = "PROXY,LOAD[,BACKEND]", value_parser = machine::cores, default_value = "auto")]
    pub(crate) cores: machine::Cores,
    /// Name the rows
    #[arg(long)]
    pub(crate) list: bool,
    /// Keep the table in docs/benchmarks.md, and the summary in README.md; of some rows, their lines in them
    #[arg(long)]
    pub(crate) write: bool,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    pub(crate) fn rows(&self) -> Result<Vec<&'static Row>> {
        if self.rounds == 0 {
            bail!("--rounds must be at least 1");
        }
        let means = |name: &str, row: &Row| match name.strip_suffix('*') {
            Some(beginning) => row.name.starts_with(beginning),
            None => row.name == name,
        };
        if let Some(unknown) = self.rows.iter().find(|name| !ROWS.iter().any(|row| means(name, row))) {
            bail!("there is no row {unknown}; --list names them");
        }
        Ok(ROWS.iter().filter(|row| self.rows.is_empty() || self.rows.iter().any(|name| means(name, row))).collect())
    }

    /// Whether that is all there is to measure.
    pub(crate) fn is_whole(&self) -> bool {
        self.rows.is_empty() && self.only.is_empty()
    }

    /// The proxies that were asked for and are there. Those that are missing are named.
    pub(crate) fn programs(&self) -> Result<Vec<Program>> {
        let mut found = Vec::new();
        for kind in Kind::ALL {
            if !self.only.is_empty() && !self.only.contains(&kind) {
                continue;
            }
            match Program::find(kind) {
                Ok(program) => found.push(program),
                Err(missing) => eprintln!("left out: {missing:#}"),
            }
        }
        if found.is_empty() {
            bail!("no proxy is left to measure");
        }
        Ok(found)
    }

    pub(crate) fn scale_shown(&self) -> String {
        if self.scale == 1.0 {
            String::new()
        } else {
            format!("; numbers of streams, bytes and changes times {}", self.scale)
        }
    }

    /// Connections of clients that a proxy must be able to have at once.
    pub(crate) fn connections(&self) -> usize {
        self.count(STREAMS) + 1_000
    }

    /// Open files of whoever is between two others: two for each connection, and some more.
    pub(crate) fn files(&self) -> usize {
        2 * self.connections() + 200
    }

    /// Share of the usual numbers, at most all of them.
    pub(crate) fn scale(&self) -> f64 {
        self.scale.min(1.0)
    }

    /// A number of things, by the scale; at least one.
    pub(crate) fn count(&self, usual: usize) -> usize {
        ((usual as f64 * self.scale) as usize).max(1)
    }
}
