//! Where the control plane and the data plane meet: builds a source, a translator, a publisher and a proxy, and joins
//! them. Nothing else in the crate sees both sides.
//!
//! `configure` turns flags and the settings file into settings, `control` is the life of a server, `running` is a
//! server inside another program (tests, the demo).

mod capture;
mod check;
mod complaints;
mod configure;
mod control;
mod doctor;
mod expiry;
mod failure;
mod injector;
mod level;
mod offline;
mod rights;
mod roots;
mod running;
mod sidecar;
mod signals;
mod sources;
mod table;
mod upstreams;
mod vigil;
mod wellness;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, DemoArgs, ServerArgs, SidecarArgs};
use crate::demo;
use crate::proxy::Destination;
use crate::settings::{LogFormat, Settings};
use crate::telemetry::log;
use control::Plan;
use level::Followed;
use sources::Source;

pub use configure::standalone_settings;
pub use control::Addresses;
pub use expiry::NEAR as CERTIFICATE_EXPIRES_SOON;
pub use failure::Failure;
pub use rights::{RIGHTS, Right, SIDECAR_RIGHTS, Within, injector_rights};
pub use running::Running;

/// Runs the program with the arguments of the process; the exit code is 0 for success, 2 for wrong usage or
/// configuration, 1 for failure.
pub fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Told | Failure::Unwell) {
                eprintln!("error: {failure}");
            }
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Gateway(args) => serve(configure::gateway(&args)?, Source::Cluster, &args.server),
        Command::Standalone(args) => serve(configure::standalone(&args.server)?, folder(&args.dir)?, &args.server),
        Command::Sidecar(args) => accompany(&args),
        Command::Demo(args) => demonstrate(&args),
        Command::Check(args) => check::check(&args),
        Command::Upstreams(args) => upstreams::run(&args),
        Command::Injector(args) => injector::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Crd => print(&crate::api::crds_yaml()),
    }
}

/// Serves the objects in the folder `dir` from a thread of its own; returns once it serves.
///
/// # Errors
/// What `floodway standalone` would end with.
pub fn standalone(dir: &Path, settings: Settings) -> Result<Running, Failure> {
    settings.validate()?;
    Running::start(running::What::Server(Box::new(Plan { settings, source: folder(dir)?, log: None, level: None })))
}

/// Stands beside an app, from a thread of its own; returns once it serves. `destination` tells where connections were to go, instead of
/// the kernel.
///
/// # Errors
/// What `floodway sidecar` would end with.
pub fn sidecar(args: &SidecarArgs, destination: Option<Destination>) -> Result<Running, Failure> {
    let mut plan = sidecar::Plan::of(args)?;
    plan.destination = destination.unwrap_or(plan.destination);
    Running::start(running::What::Sidecar(Box::new(plan)))
}

/// Serves until a signal ends it.
fn serve(settings: Settings, source: Source, args: &ServerArgs) -> Result<(), Failure> {
    let log = Some(start_log(&settings)?);
    let level = followed(args, &settings);
    let format = settings.log.format;
    let serving = |addresses: &Addresses| say(format, addresses);
    control::runtime()?.block_on(async {
        let signals = signals::of_the_process()?;
        control::run(Plan { settings, source, log, level }, signals, serving).await
    })
}

/// The file that says the log's level while the program runs, if one does. A flag wins over the file, whatever that says later.
fn followed(args: &ServerArgs, settings: &Settings) -> Option<Followed> {
    let file = args.config.clone().filter(|_| args.log.is_none())?;
    Some(Followed { file, settings: settings.clone() })
}

/// Stands beside an app until a signal ends it.
fn accompany(args: &SidecarArgs) -> Result<(), Failure> {
    let plan = sidecar::Plan::of(args)?;
    let log = start_log(&plan.settings)?;
    let level = followed(&args.server, &plan.settings);
    let format = plan.settings.log.format;
    control::runtime()?.block_on(async {
        let signals = signals::of_the_process()?;
        if let Some(level) = level {
            tokio::spawn(level::follow(level, log.clone()));
        }
        sidecar::run(plan, Some(log), signals, |addresses| say(format, addresses)).await
    })
}

/// Says where it serves.
fn say(format: LogFormat, addresses: &Addresses) {
    match format {
        LogFormat::Json => tracing::info!("{addresses}"),
        LogFormat::Text => eprintln!("{addresses}"),
    }
}

/// The demo's backends, and before them the same server as `standalone`.
fn demonstrate(args: &DemoArgs) -> Result<(), Failure> {
    let settings = configure::demo(&args.server)?;
    let examples =
        demo::Folder::open(args.dir.as_deref()).map_err(|error| Failure::configuration(error.to_string()))?;
    let source = folder(examples.path())?;
    let backends = demo::Backends::start(&examples).map_err(anyhow::Error::new)?;
    let log = Some(start_log(&settings)?);
    control::runtime()?.block_on(async {
        let signals = signals::of_the_process()?;
        let serving = |addresses: &Addresses| {
            backends.stand_behind(addresses.admin);
            if let Some(http) = addresses.http.first() {
                println!("{}", demo::banner(&examples, *http, addresses.https.first().copied(), addresses.admin));
            }
        };
        control::run(Plan { settings, source, log, level: None }, signals, serving).await
    })?;
    println!("{}", demo::farewell());
    Ok(())
}

fn start_log(settings: &Settings) -> Result<log::Control, Failure> {
    let filter =
        settings.log.level.parse().map_err(|error: log::InvalidFilter| Failure::configuration(error.to_string()))?;
    let format = match settings.log.format {
        LogFormat::Json => log::Format::Json,
        LogFormat::Text => log::Format::Text,
    };
    Ok(log::start(format, filter))
}

fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // `floodway crd | head` is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(anyhow::Error::new(error).into()),
        _ => Ok(()),
    }
}

fn folder(dir: &Path) -> Result<Source, Failure> {
    let wrong = |what: String| Failure::configuration(format!("{}: {what}", dir.display()));
    match std::fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => Ok(Source::Folder(dir.to_owned())),
        Ok(_) => Err(wrong("not a folder; name the folder that holds the YAML files".to_owned())),
        Err(error) => Err(wrong(format!("cannot be read as a folder of YAML files: {error}"))),
    }
}
