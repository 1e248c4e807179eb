//! `make bench`: Floodway, nginx, HAProxy and Envoy before the same backend, under the same load, in one run. Prints the
//! table, and with `--write` keeps it in docs/benchmarks.md and README.md. Not a test: nothing here passes or fails, except
//! that the run ends if Floodway answers wrongly.

// Programs are timed by the clock on the wall, not by one that tests can pause.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod args;
mod backend;
mod certificate;
mod frames;
#[path = "../config/issuer.rs"]
mod issuer;
mod load;
mod machine;
mod peers;
mod processes;
mod report;
mod rows;
mod template;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use args::Args;
use backend::Backend;
use peers::{Kind, Peer, Program};
use report::Report;
use rows::{Life, Measure, Row};

/// What every row needs to know.
pub(crate) struct Bench {
    pub(crate) args: Args,
    pub(crate) backend: Backend,
    /// Whose tokens are believed: keys, and a token.
    pub(crate) issuer: (String, String),
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        rows::ROWS.iter().for_each(|row| println!("{:<12} {}", row.name, row.about));
        return ExitCode::SUCCESS;
    }
    // Load and backend share one thread, so that neither waits for the other to be scheduled; the backend gets a thread
    // of its own only with a core of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run(args) => outcome,
            // What was started is ended by being dropped.
            name = machine::signalled() => Err(anyhow::anyhow!("ended by {name}; nothing was written")),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let rows = args.rows()?;
    machine::raise_open_files(args.files() as u64)?;
    machine::pin(args.cores.load)?;
    let programs: Vec<Program> = args.programs()?;
    machine::look_for_noise(args.cores).await;
    let backend = Backend::start(args.cores)?;
    let bench = Bench { args, backend, issuer: issuer::es256(issuer::YEAR_2100) };
    let mut report = Report::new(&bench, &programs);
    for row in rows {
        eprintln!("{}: {}", row.name, row.about);
        measure(&bench, row, &programs, &mut report).await.with_context(|| format!("row {}", row.name))?;
    }
    report.finish(&bench)
}

/// All rounds of one row. The proxies take turns, and who begins changes from round to round.
async fn measure(bench: &Bench, row: &'static Row, programs: &[Program], report: &mut Report) -> Result<()> {
    let programs: Vec<&Program> = programs.iter().filter(|program| row.setup.is_for(program.kind)).collect();
    if programs.is_empty() {
        eprintln!("  left out: it is of others");
        return Ok(());
    }
    let mut kept: Vec<Peer> = Vec::new();
    if row.life == Life::Row {
        for program in &programs {
            kept.push(Peer::start(bench, program, row.setup).await?);
        }
    }
    for round in 0..bench.args.rounds.min(row.rounds) {
        let mut turns: Vec<usize> = (0..programs.len()).collect();
        turns.rotate_left(round % programs.len());
        match row.measure {
            Measure::Each(measure) => {
                for turn in turns {
                    let fresh = match row.life {
                        Life::Row => None,
                        Life::Round => Some(Peer::start(bench, programs[turn], row.setup).await?),
                    };
                    let peer = fresh.as_ref().unwrap_or_else(|| &kept[turn]);
                    let measured = tokio::time::timeout(Duration::from_secs(180), measure(bench, peer)).await;
                    let values = measured.unwrap_or_else(|_| Err(anyhow::anyhow!("took longer than three minutes")));
                    let kind = programs[turn].kind;
                    let values = match values.with_context(|| format!("{kind} (round {})", round + 1)) {
                        Ok(values) => values,
                        // What another proxy gets wrong costs it this figure, and not everybody the run.
                        Err(error) if kind != Kind::Floodway => {
                            eprintln!("  left out: {error:#}");
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    eprintln!("  {}", row.shown(kind, &values));
                    report.add(row, kind, round, &values);
                }
            }
            Measure::Together(measure) => {
                let mut peers = Vec::new();
                for turn in turns {
                    peers.push(Peer::start(bench, programs[turn], row.setup).await?);
                }
                for (peer, values) in peers.iter().zip(measure(bench, &peers).await?) {
                    eprintln!("  {}", row.shown(peer.kind, &values));
                    report.add(row, peer.kind, round, &values);
                }
            }
        }
    }
    Ok(())
}
