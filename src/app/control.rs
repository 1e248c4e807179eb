//! The life of a server: the admin port, the first objects, the table, the listeners; then follow changes until a
//! signal, and drain.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Failure;
use super::complaints;
use super::level::{self, Followed};
use super::signals::Signals;
use super::sources::{self, Source};
use super::table::Table;
use super::{expiry, roots, vigil, wellness};
use crate::admin::{self, AdminState};
use crate::drain::{self, DrainTrigger};
use crate::health;
use crate::jwks;
use crate::proxy;
use crate::ready::{Live, Ready};
use crate::resilience::Registry;
use crate::settings::Settings;
use crate::snapshot;
use crate::source::{Store, dns};
use crate::telemetry::{AccessLog, Telemetry, log};
use crate::translate::{Context, Key, Roots, Statuses};

/// What to serve.
pub(super) struct Plan {
    pub(super) settings: Settings,
    pub(super) source: Source,
    /// `None` where the program's log is not ours.
    pub(super) log: Option<log::Control>,
    /// The settings file that says how much it tells, if that may change.
    pub(super) level: Option<Followed>,
}

/// What a server listens on, once it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP.
    pub http: Vec<SocketAddr>,
    /// HTTP over TLS.
    pub https: Vec<SocketAddr>,
    /// What a sidecar takes for its app.
    pub inbound: Vec<SocketAddr>,
    /// What a sidecar takes from its app.
    pub outbound: Vec<SocketAddr>,
    /// The admin port.
    pub admin: SocketAddr,
    /// Routes of the first table.
    pub routes: usize,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("serving ")?;
        let all =
            [("http", &self.http), ("https", &self.https), ("inbound", &self.inbound), ("outbound", &self.outbound)];
        let named = all.into_iter().filter(|(_, all)| !all.is_empty());
        for (place, (name, addresses)) in named.enumerate() {
            write!(f, "{}{name} on ", if place == 0 { "" } else { "; " })?;
            for (index, address) in addresses.iter().enumerate() {
                write!(f, "{}{address}", if index == 0 { "" } else { ", " })?;
            }
        }
        let plural = if self.routes == 1 { "" } else { "s" };
        write!(f, "; admin on {}; {} route{plural}", self.admin, self.routes)
    }
}

/// How long the end of the process waits for the API server.
const GOODBYE: Duration = Duration::from_secs(3);

/// The runtime of the control thread. Workers of the data plane have their own.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build().context("cannot start the control thread")?)
}

/// Serves until `signals` ends it; tells `serving` once it does.
pub(super) async fn run(plan: Plan, mut signals: Signals, serving: impl FnOnce(&Addresses)) -> Result<(), Failure> {
    let Plan { settings, source, log, level } = plan;
    let settings = Arc::new(settings);
    let access = settings.log.access.parse().unwrap_or(AccessLog::Stdout);
    let telemetry = Telemetry::new(&access)
        .with_context(|| format!("cannot write the access log to {}; see --access-log", settings.log.access))?;
    let (publisher, reader) = snapshot::channel();
    let (ready, live, registry) = (Ready::default(), Live::default(), Registry::default());
    tokio::spawn(live.pulse("the control thread").keep_beating());

    if let (Some(followed), Some(log)) = (level, &log) {
        tokio::spawn(level::follow(followed, log.clone()));
    }

    // First, so that it can tell what the rest is waiting for.
    let binding = ready.block("the listeners");
    let listener = admin::listen(settings.listeners.admin).await?;
    let admin = listener.local_addr().context("the admin port has no address")?;
    let state = AdminState {
        telemetry: telemetry.clone(),
        ready: ready.clone(),
        live: live.clone(),
        tables: vec![admin::Table { name: None, snapshot: reader.clone(), registry: registry.clone() }],
        probes: admin::Probes::default(),
        log,
        writable: settings.listeners.admin_writable,
    };
    tokio::spawn(admin::serve(listener, state));

    let store = Store::default();
    let started = sources::start(source, &settings, &store, &ready, &telemetry).await?;
    tokio::select! {
        first = started.first => first.context("the source of the objects ended")?,
        _ = signals.recv() => return Ok(()),
    }

    let mut table = Table::new(store.clone(), context(&settings, roots::system())?, publisher, telemetry.clone());
    let metrics = telemetry.metrics().clone();
    let looked_up = move |succeeded| metrics.dns_lookup(succeeded);
    let names = dns::System::new();
    tokio::spawn(dns::run(store.clone(), table.hostnames(), names.clone(), looked_up));
    // The tick of what is translated here; there may be none.
    let _ = store.changed().now_or_never();
    let routes = table.translate();
    let fetching = ready.block("the keys of issuers");
    tokio::spawn(jwks::run(store.clone(), table.key_sources(), names, telemetry.metrics().clone(), fetching));

    let (trigger, watcher) = drain::channel();
    // Without a cluster nobody takes them.
    let (told, notices) = mpsc::channel(vigil::MAX_NOTICES);
    tokio::spawn(expiry::run(reader.clone(), telemetry.metrics().clone(), told.clone()));
    tokio::spawn(vigil::run(registry.clone(), telemetry.metrics().clone(), told));
    tokio::spawn(health::run(reader.clone(), registry.clone(), telemetry.metrics().clone()));
    let workers = workers(&settings);
    let config = proxy::Config { settings: Arc::clone(&settings), workers, live, registry: registry.clone() };
    let proxy = proxy::start(config, reader.clone(), &telemetry, watcher.clone())
        .map_err(|error| with_remedy(error, &settings))?;
    let status = match started.cluster {
        Some(cluster) => {
            let (tell, statuses) = watch::channel(Statuses::default());
            tokio::spawn(wellness::run(table.statuses(), reader, registry, tell));
            Some(cluster.write_statuses(statuses, notices, &telemetry, watcher.clone()))
        }
        None => {
            tokio::spawn(complaints::log(table.statuses()));
            None
        }
    };
    drop(binding);
    let (http, https) = (proxy.addresses().to_vec(), proxy.secure_addresses().to_vec());
    serving(&Addresses { http, https, inbound: Vec::new(), outbound: Vec::new(), admin, routes });

    tokio::select! {
        never = table.follow() => match never {},
        never = drain_when_told(&mut signals, &settings, &trigger, &ready) => match never {},
        () = proxy.ended() => {}
    }
    if let Some(status) = status {
        // It gives the leadership up, so that another replica need not wait for the Lease to run out.
        let _ = timeout(GOODBYE, status).await;
    }
    telemetry.flush();
    if watcher.draining() { Ok(()) } else { Err(anyhow!("all workers of the data plane ended").into()) }
}

/// What the settings say to translation, and whom the system trusts.
pub(super) fn context(settings: &Settings, roots: Roots) -> Result<Context, Failure> {
    Ok(Context {
        class_name: settings.class_name.clone(),
        zone: settings.zone.clone(),
        defaults: settings.defaults.clone(),
        policy: settings.policy.clone(),
        shared_limits: settings.rate_limits.redis.is_some(),
        default_certificate: settings.listeners.tls.default_secret().map(|(namespace, name)| Key::new(namespace, name)),
        client_certificates: settings.listeners.tls.client_certificates.clone(),
        https_port: settings.listeners.tls.redirect_port,
        roots,
        key_hosts: settings.jwks.hosts().context("settings: jwks.allowHosts has something that is no host")?,
    })
}

/// The first signal begins the drain, after the delay; each further one ends what is being waited for.
pub(super) async fn drain_when_told(
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

fn with_remedy(error: proxy::StartError, settings: &Settings) -> Failure {
    let remedy = match &error {
        proxy::StartError::Bind { address, .. } if settings.listeners.https.contains(address) => {
            "; choose another address with --https, or end the program that holds it"
        }
        proxy::StartError::Bind { .. } => "; choose another address with --http, or end the program that holds it",
        proxy::StartError::Worker(_) | proxy::StartError::Tls(_) => "",
    };
    anyhow!("{error}{remedy}").into()
}

fn workers(settings: &Settings) -> usize {
    // The standard library's answer follows the CPU quota of cgroups, v1 and v2, and the affinity of the process.
    settings.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}
