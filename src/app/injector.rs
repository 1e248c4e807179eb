//! The life of `floodway injector`: the admin port, the webhook's port, and the certificate, until a signal.

use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::Failure;
use super::control;
use super::signals::{self, Signals};
use super::sources;
use crate::admin::{self, AdminState};
use crate::args::InjectorArgs;
use crate::drain;
use crate::injector::{Door, Keeper, Names, Serving, Template};
use crate::ready::{Live, Ready};
use crate::settings::LogFormat;
use crate::source::kube;
use crate::telemetry::{Telemetry, log};

/// Certificates that end sooner could not be renewed in time.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(10);
/// How long questions that were put before the end may take.
const GRACE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &InjectorArgs) -> Result<(), Failure> {
    let path = args.template.display().to_string();
    let text = std::fs::read(&args.template)
        .map_err(|error| Failure::configuration(format!("{path}: cannot be read: {error}; see --template")))?;
    let template = Template::read(&path, &text).map_err(|wrong| Failure::configuration(wrong.to_string()))?;
    if args.certificate_lifetime < SHORTEST_LIFETIME {
        return Err(Failure::configuration(format!(
            "--certificate-lifetime is shorter than {} seconds, and could not be renewed in time; write for example 2160h",
            SHORTEST_LIFETIME.as_secs()
        )));
    }
    let filter = args.log.parse().map_err(|invalid: log::InvalidFilter| Failure::configuration(invalid.to_string()))?;
    let format = match args.log_format {
        LogFormat::Json => log::Format::Json,
        LogFormat::Text => log::Format::Text,
    };
    let log = log::start(format, filter);
    control::runtime()?.block_on(serve(args, template, log))
}

async fn serve(args: &InjectorArgs, template: Template, log: log::Control) -> Result<(), Failure> {
    let mut signals = signals::of_the_process()?;
    let (telemetry, ready, live) = (Telemetry::default(), Ready::default(), Live::default());
    tokio::spawn(live.pulse("the control thread").keep_beating());
    let bind = async |address, name: &str| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; choose another address with {name}"))
    };
    // Both before anything is waited for: the one tells what, and the other's port is the one that was asked for.
    let admin = bind(args.admin, "--admin").await?;
    let listener = bind(args.listen, "--listen").await?;
    let state = AdminState {
        telemetry: telemetry.clone(),
        ready: ready.clone(),
        live,
        // It has no routes, and knows no endpoints.
        tables: Vec::new(),
        probes: Default::default(),
        log: Some(log),
        writable: false,
    };
    tokio::spawn(admin::serve(admin, state));

    let client = kube::client().await.map_err(|error| Failure::configuration(format!("{error:#}")))?;
    let names = Names {
        namespace: sources::pod().namespace,
        secret: args.secret.clone(),
        service: args.service.clone(),
        configuration: args.configuration.clone(),
        webhook: args.webhook.clone(),
    };
    let serving = Serving::default();
    let door = Door::new(serving.clone(), template, telemetry.metrics().injections())?;
    let keeper = Keeper::new(client, names, args.certificate_lifetime, serving, &ready);
    telemetry.metrics().ask_expiry(keeper.expiry());
    tokio::spawn(keeper.run());
    tracing::info!(webhook = %args.listen, admin = %args.admin, "the injector answers");

    let (trigger, watcher) = drain::channel();
    let answering = door.serve(listener, watcher);
    let ending = async {
        signals.recv().await;
        let _not_ready = ready.block("the end: it is draining");
        tracing::info!(delay = ?args.drain_delay, "draining");
        delay(&mut signals, args.drain_delay).await;
        trigger.begin(GRACE);
        signals.recv().await;
    };
    tokio::select! {
        () = answering => Ok(()),
        // The second signal ends it at once.
        () = ending => Ok(()),
    }
}

/// Waits, unless another signal comes.
async fn delay(signals: &mut Signals, delay: Duration) {
    tokio::select! {
        () = sleep(delay) => {}
        _ = signals.recv() => {}
    }
}
