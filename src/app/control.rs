//! The life of a server: the admin port, the first objects, the table, the listeners; then follow changes until a
//! signal, and drain.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::Failure;
use super::plane as proxy;
use super::signals::Signals;
use super::table::Table;
use crate::admin::{self, AdminState};
use crate::drain::{self, DrainTrigger};
use crate::ready::{Live, Ready};
use crate::settings::Settings;
use crate::snapshot;
use crate::source::{Store, dns, files};
use crate::telemetry::{AccessLog, Telemetry, log};
use crate::translate::Context;

/// What to serve.
pub(super) struct Plan {
    pub(super) settings: Settings,
    pub(super) source: Source,
    /// `None` where the program's log is not ours.
    pub(super) log: Option<log::Control>,
}

/// Where the objects come from.
pub(super) enum Source {
    Folder(PathBuf),
    Cluster,
}

/// What a server listens on, once it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP.
    pub http: Vec<SocketAddr>,
    /// The admin port.
    pub admin: SocketAddr,
    /// Routes of the first table.
    pub routes: usize,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("serving http on ")?;
        for (index, address) in self.http.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { ", " })?;
        }
        let plural = if self.routes == 1 { "" } else { "s" };
        write!(f, "; admin on {}; {} route{plural}", self.admin, self.routes)
    }
}

/// The runtime of the control thread. Workers of the data plane have their own.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build().context("cannot start the control thread")?)
}

/// Serves until `signals` ends it; tells `serving` once it does.
pub(super) async fn run(plan: Plan, mut signals: Signals, serving: impl FnOnce(&Addresses)) -> Result<(), Failure> {
    let Plan { settings, source, log } = plan;
    let settings = Arc::new(settings);
    let access = settings.log.access.parse().unwrap_or(AccessLog::Stdout);
    let telemetry = Telemetry::new(&access)
        .with_context(|| format!("cannot write the access log to {}; see --access-log", settings.log.access))?;
    let (publisher, reader) = snapshot::channel();
    let (ready, live) = (Ready::default(), Live::default());
    tokio::spawn(live.pulse("the control thread").keep_beating());

    // First, so that it can tell what the rest is waiting for.
    let binding = ready.block("the listeners");
    let listener = TcpListener::bind(settings.listeners.admin).await.with_context(|| {
        format!("cannot listen on {} for admin; choose another address with --admin", settings.listeners.admin)
    })?;
    let admin = listener.local_addr().context("the admin port has no address")?;
    let state = AdminState { telemetry: telemetry.clone(), ready: ready.clone(), live, snapshot: reader.clone(), log };
    tokio::spawn(admin::serve(listener, state));

    let store = Store::default();
    let first = start_source(source, &store, &ready, &telemetry)?;
    tokio::select! {
        first = first => first.context("the source of the objects ended")?,
        _ = signals.recv() => return Ok(()),
    }

    let context = Context { class_name: settings.class_name.clone(), defaults: settings.defaults.clone() };
    let mut table = Table::new(store.clone(), context, publisher, telemetry.clone());
    let metrics = telemetry.metrics().clone();
    let looked_up = move |succeeded| metrics.dns_lookup(succeeded);
    tokio::spawn(dns::run(store, table.hostnames(), dns::System::new(), looked_up));
    let routes = table.translate();

    let (trigger, watcher) = drain::channel();
    let config = proxy::Config { settings: Arc::clone(&settings), workers: workers(&settings) };
    let proxy = proxy::start(config, reader, &telemetry, watcher.clone())
        .context("cannot listen; choose other addresses with --http")?;
    drop(binding);
    serving(&Addresses { http: proxy.addresses().to_vec(), admin, routes });

    tokio::select! {
        never = table.follow() => match never {},
        never = drain_when_told(&mut signals, &settings, &trigger, &ready) => match never {},
        () = proxy.ended() => {}
    }
    telemetry.flush();
    if watcher.draining() { Ok(()) } else { Err(anyhow!("all workers of the data plane ended").into()) }
}

/// Starts to fill the store. What is returned hears once all of it has been read for the first time.
fn start_source(
    source: Source,
    store: &Store,
    ready: &Ready,
    telemetry: &Telemetry,
) -> Result<oneshot::Receiver<()>, Failure> {
    let (synced, first) = oneshot::channel();
    match source {
        Source::Folder(dir) => {
            let mut waiting = Some(ready.block(format!("the first list of {}", dir.display())));
            let metrics = telemetry.metrics().clone();
            let told = move |load: &files::Load| {
                metrics.source_connected("files", load.complete);
                if load.complete {
                    drop(waiting.take());
                }
                if load.read > 0 {
                    metrics.source_listed("files");
                }
                for _ in 0..load.rejected {
                    metrics.source_error("files");
                }
            };
            tokio::spawn(files::run(dir, store.clone(), synced, told));
        }
        Source::Cluster => return Err(anyhow!("the gateway is not built in yet").into()),
    }
    Ok(first)
}

/// The first signal begins the drain, after the delay; each further one ends what is being waited for.
async fn drain_when_told(
    signals: &mut Signals,
    settings: &Settings,
    trigger: &DrainTrigger,
    ready: &Ready,
) -> Infallible {
    signals.recv().await;
    let _not_ready = ready.block("the end: it is draining");
    tracing::info!(delay = ?settings.drain.delay, grace = ?settings.drain.grace, "draining");
    tokio::select! {
        () = sleep(settings.drain.delay) => {
            trigger.begin(settings.drain.grace);
            signals.recv().await;
        }
        _ = signals.recv() => {}
    }
    trigger.begin(Duration::ZERO);
    std::future::pending().await
}

fn workers(settings: &Settings) -> usize {
    // The standard library's answer follows the CPU quota of cgroups, v1 and v2, and the affinity of the process.
    settings.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}
