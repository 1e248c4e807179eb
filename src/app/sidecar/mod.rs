//! The life of a sidecar: as that of a server (`control`), with two listeners that have a table each, made of what one source reads.
//! What they serve is `sidecar`'s to say. An app has to be able to start while the API server is away, so that it waits for objects for
//! a bounded time only: what is demanded of requests is refused then, and all else passes.

mod half;
mod probes;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::half::Half;
use super::control::{self, Addresses};
use super::signals::Signals;
use super::{Failure, roots, sources};
use crate::admin::{self, AdminState};
use crate::args::{AppProbe, Mode, SidecarArgs};
use crate::drain;
use crate::proxy::{self, Capture, Captured, Destination};
use crate::ready::{Live, Ready};
use crate::settings::{Forwarding, Settings};
use crate::sidecar::{Inbound, Named, Outbound, settle};
use crate::source::{Store, kube};
use crate::telemetry::{AccessLog, Telemetry, log};
use crate::translate::Resources;

/// How long an app waits for the first lists of objects.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a sidecar does.
pub(super) struct Plan {
    pub(super) settings: Settings,
    inbound: Inbound,
    outbound: Outbound,
    probes: Vec<AppProbe>,
    app_port: Option<u16>,
    /// Where it listens, and where it does so if it can.
    entrances: (Vec<SocketAddr>, Vec<SocketAddr>),
    exits: (Vec<SocketAddr>, Vec<SocketAddr>),
    /// Where connections were to go.
    pub(super) destination: Destination,
    /// The address of the pod, as the downward API says it.
    pod: Option<IpAddr>,
    /// Where objects are read from instead of a cluster.
    dir: Option<PathBuf>,
}

impl Plan {
    /// What flags ask for.
    pub(super) fn of(args: &SidecarArgs) -> Result<Self, Failure> {
        let settings = super::configure::sidecar(args)?;
        let transparent = args.mode == Mode::Transparent;
        let class = settings.class_name.clone();
        let inbound = Inbound {
            namespace: args.namespace.clone(),
            class: class.clone(),
            ports: args.app_port.into_iter().chain(args.inbound_ports.iter().copied()).collect(),
            policies: args.policies.clone(),
            upstream: args.upstream.clone(),
        };
        let outbound = Outbound { namespace: args.namespace.clone(), others: args.outbound_namespaces.clone(), class };
        let destination: Destination = match transparent {
            true => Arc::new(proxy::original_destination),
            false => Arc::new(|_| None),
        };
        let twins = |addresses: &[SocketAddr]| match transparent {
            true => (addresses.to_vec(), addresses.iter().copied().filter_map(twin).collect()),
            false => (addresses.to_vec(), Vec::new()),
        };
        Ok(Plan {
            inbound,
            outbound,
            probes: args.probes.clone(),
            app_port: args.app_port,
            entrances: twins(&args.inbound),
            exits: twins(&args.outbound),
            destination,
            pod: std::env::var("POD_IP").ok().and_then(|ip| ip.parse().ok()),
            dir: args.dir.clone(),
            settings,
        })
    }

    /// The settings of what goes out: the app itself is believed what it says of those for whom it asks, and shows nobody a certificate.
    fn of_outbound(&self) -> Settings {
        let mut settings = self.settings.clone();
        settings.listeners.tls = Default::default();
        settings.listeners.proxy_protocol = Default::default();
        settings.policy = Default::default();
        settings.rate_limits = Default::default();
        let everybody = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let trusted_proxies = everybody.into_iter().filter_map(|ip| ipnet::IpNet::new(ip, 0).ok()).collect();
        settings.forwarding = Forwarding { trusted_proxies, ..settings.forwarding };
        settings
    }

    /// What connections that come in are.
    fn captures(&self) -> (Capture, Capture) {
        let all = self.entrances.0.iter().chain(&self.exits.0).chain([&self.settings.listeners.admin]);
        let own_ports: Arc<[u16]> = all.map(SocketAddr::port).filter(|port| *port > 0).collect();
        let inbound = proxy::Inbound {
            app_port: self.app_port,
            tls: self.settings.listeners.tls.default_certificate.is_some(),
            demands: !self.inbound.policies.is_empty() || self.settings.policy != Default::default(),
        };
        let capture = |kind| Capture {
            kind,
            destination: Arc::clone(&self.destination),
            own_ports: Arc::clone(&own_ports),
            pod: self.pod,
        };
        (capture(Captured::Inbound(inbound)), capture(Captured::Outbound))
    }
}

/// The address of the other family that means the same.
fn twin(address: SocketAddr) -> Option<SocketAddr> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv6Addr::UNSPECIFIED,
        IpAddr::V4(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST,
        _ => return None,
    };
    Some((ip, address.port()).into())
}

/// Serves until `signals` ends it; tells `serving` once it does.
pub(super) async fn run(
    plan: Plan,
    log: Option<log::Control>,
    mut signals: Signals,
    serving: impl FnOnce(&Addresses),
) -> Result<(), Failure> {
    let settings = &plan.settings;
    let access = settings.log.access.parse().unwrap_or(AccessLog::Stdout);
    let (telemetry, [telemetry_in, telemetry_out]) = Telemetry::with_listeners(&access, ["inbound", "outbound"])
        .with_context(|| format!("cannot write the access log to {}; see --access-log", settings.log.access))?;
    let (ready, live) = (Ready::default(), Live::default());
    tokio::spawn(live.pulse("the control thread").keep_beating());
    let roots = roots::system();
    let mut inbound = Half::new("inbound", settings.clone(), roots.clone(), telemetry_in)?;
    let mut outbound = Half::new("outbound", plan.of_outbound(), roots, telemetry_out)?;

    // First, so that it can tell what the rest is waiting for.
    let binding = ready.block("the listeners");
    let listener = admin::listen(settings.listeners.admin).await?;
    let admin = listener.local_addr().context("the admin port has no address")?;
    let state = AdminState {
        telemetry: telemetry.clone(),
        ready: ready.clone(),
        live: live.clone(),
        tables: vec![inbound.shown(), outbound.shown()],
        probes: probes::probes(&plan.probes, plan.pod)?,
        log,
        writable: settings.listeners.admin_writable,
    };
    tokio::spawn(admin::serve(listener, state));

    let read = Store::default();
    tokio::select! {
        () = first_objects(&plan, &read, &telemetry) => {}
        _ = signals.recv() => return Ok(()),
    }
    let wanted = (plan.inbound.clone(), plan.outbound.clone());
    let stores = (inbound.store.clone(), outbound.store.clone());
    split(&read, &wanted, &stores);
    let routes = inbound.begin(&ready) + outbound.begin(&ready);
    tokio::spawn(divide(read, wanted, stores));

    let (trigger, watcher) = drain::channel();
    let (comes_in, goes_out) = plan.captures();
    let sides = vec![
        inbound.side(plan.entrances.0.clone(), plan.entrances.1.clone(), comes_in),
        outbound.side(plan.exits.0.clone(), plan.exits.1.clone(), goes_out),
    ];
    let workers = settings.workers.unwrap_or(1);
    let proxy = proxy::start_sides(sides, workers, &live, &watcher).map_err(with_remedy)?;
    drop(binding);
    let (entrances, exits) = (proxy.addresses_of(0).to_vec(), proxy.addresses_of(1).to_vec());
    let (http, https) = Default::default();
    serving(&Addresses { http, https, inbound: entrances, outbound: exits, admin, routes });

    tokio::select! {
        never = inbound.follow() => match never {},
        never = outbound.follow() => match never {},
        never = control::drain_when_told(&mut signals, settings, &trigger, &ready) => match never {},
        () = proxy.ended() => {}
    }
    telemetry.flush();
    if watcher.draining() { Ok(()) } else { Err(anyhow!("all workers of the data plane ended").into()) }
}

/// Starts to read objects, and waits for the first of them for a bounded time.
async fn first_objects(plan: &Plan, read: &Store, telemetry: &Telemetry) {
    let (synced, first) = oneshot::channel();
    // What is waited for is bounded, so that readiness does not depend on it.
    let ready = Ready::default();
    match &plan.dir {
        Some(dir) => sources::watch_folder(dir.clone(), read, &ready, telemetry, synced),
        None => match kube::sidecar_client().await {
            Ok(client) => drop(tokio::spawn(kube::run(client, watches(plan, read, &ready, telemetry), synced))),
            Err(error) => {
                tracing::warn!("no objects are read, and nothing is balanced: {error:#}");
                return;
            }
        },
    }
    if timeout(PATIENCE, first).await.is_err() {
        tracing::warn!(waited = ?PATIENCE, waiting = ?ready.reasons(), "going on without objects until they come");
    }
}

/// What is watched: what the pod's namespace names, and no policy nor Secret that nobody asks for.
fn watches(plan: &Plan, read: &Store, ready: &Ready, telemetry: &Telemetry) -> kube::Watches {
    let Plan { settings, inbound, outbound, .. } = plan;
    let policies = !inbound.policies.is_empty() || inbound.upstream.is_some();
    let (inbound, outbound) = (inbound.clone(), outbound.clone());
    let policy_namespace = inbound.namespace.clone();
    // What the flags and the settings file name is asked for whatever objects say.
    let tls = &settings.listeners.tls;
    let own_secrets = tls.default_certificate.is_some() || tls.client_certificates.is_some();
    let own_config_maps = tls.client_certificates.is_some();
    let naming = move |read: &Resources| {
        let Named { services, secrets, config_maps } = Named::of(&inbound, &outbound, read);
        kube::Wanted { services, secrets: secrets || own_secrets, config_maps: config_maps || own_config_maps }
    };
    kube::Watches {
        watcher: kube::Watcher::Sidecar(Arc::new(naming)),
        namespaces: settings.watch_namespaces.clone(),
        policies: policies.then(|| vec![policy_namespace]),
        secrets: settings.secret_namespaces().map(<[String]>::to_vec),
        store: read.clone(),
        ready: ready.clone(),
        metrics: telemetry.metrics().clone(),
        seen: Arc::new(|_, _, _| {}),
    }
}

/// Gives each listener its objects whenever those that were read change, for ever.
async fn divide(read: Store, wanted: (Inbound, Outbound), stores: (Store, Store)) -> Infallible {
    loop {
        read.changed().await;
        split(&read, &wanted, &stores);
    }
}

fn split(read: &Store, (inbound, outbound): &(Inbound, Outbound), (for_inbound, for_outbound): &(Store, Store)) {
    let (comes_in, goes_out) = read.read(|read| (inbound.objects(read), outbound.objects(read)));
    for (store, new) in [(for_inbound, comes_in), (for_outbound, goes_out)] {
        store.update(|held| {
            *held = settle(held, new);
            true
        });
    }
}

fn with_remedy(error: proxy::StartError) -> Failure {
    let remedy = match &error {
        proxy::StartError::Bind { .. } => "; choose another address with --inbound or --outbound",
        proxy::StartError::Worker(_) | proxy::StartError::Tls(_) => "",
    };
    anyhow!("{error}{remedy}").into()
}
