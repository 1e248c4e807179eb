//! Starts what fills the store: a folder, or a cluster with all that belongs to one (statuses, the election).

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::Failure;
use crate::drain::DrainWatcher;
use crate::ready::Ready;
use crate::settings::Settings;
use crate::source::{Store, files, kube};
use crate::status::{self, Notice, Observed, Pod};
use crate::telemetry::Telemetry;
use crate::translate::Statuses;

/// Where the objects come from.
pub(super) enum Source {
    Folder(PathBuf),
    Cluster,
}

/// A source that fills the store.
pub(super) struct Started {
    /// Hears once all objects have been read for the first time.
    pub(super) first: oneshot::Receiver<()>,
    /// Where statuses are written; a folder has no such place.
    pub(super) cluster: Option<Cluster>,
}

/// A cluster that is watched.
pub(super) struct Cluster {
    client: ::kube::Client,
    observed: Observed,
}

/// Starts to fill the store.
pub(super) async fn start(
    source: Source,
    settings: &Settings,
    store: &Store,
    ready: &Ready,
    telemetry: &Telemetry,
) -> Result<Started, Failure> {
    let (synced, first) = oneshot::channel();
    let cluster = match source {
        Source::Folder(dir) => {
            watch_folder(dir, store, ready, telemetry, synced);
            None
        }
        Source::Cluster => {
            let client = kube::client().await.map_err(|error| {
                // Further causes repeat the first.
                let cause = error.chain().nth(1).map(|cause| format!("\n{cause}")).unwrap_or_default();
                Failure::configuration(format!("{error}{cause}"))
            })?;
            let observed = Observed::default();
            let told = observed.clone();
            let watches = kube::Watches {
                watcher: kube::Watcher::Gateway,
                namespaces: settings.watch_namespaces.clone(),
                policies: Some(settings.watch_namespaces.clone()),
                secrets: settings.secret_namespaces().map(<[String]>::to_vec),
                store: store.clone(),
                ready: ready.clone(),
                metrics: telemetry.metrics().clone(),
                seen: Arc::new(move |kind, key, status| told.seen(kind, key, status)),
            };
            tokio::spawn(kube::run(client.clone(), watches, synced));
            Some(Cluster { client, observed })
        }
    };
    Ok(Started { first, cluster })
}

pub(super) fn watch_folder(
    dir: PathBuf,
    store: &Store,
    ready: &Ready,
    telemetry: &Telemetry,
    synced: oneshot::Sender<()>,
) {
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

impl Cluster {
    /// Takes part in the election, and writes statuses and events while leading, until the drain begins.
    pub(super) fn write_statuses(
        self,
        statuses: watch::Receiver<Statuses>,
        notices: mpsc::Receiver<Notice>,
        telemetry: &Telemetry,
        mut drain: DrainWatcher,
    ) -> JoinHandle<()> {
        let metrics = telemetry.metrics().clone();
        tokio::spawn(async move {
            status::run(self.client, pod(), statuses, self.observed, notices, metrics, drain.begun()).await;
        })
    }
}

fn said(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Whether this process talks to the API server as the service account of its pod: there is no kubeconfig.
pub(super) fn in_a_pod() -> bool {
    said("KUBECONFIG").is_none() && said("KUBERNETES_SERVICE_HOST").is_some()
}

/// The namespace of the pod that this process is in.
pub(super) fn namespace_of_the_pod() -> Option<String> {
    said("POD_NAMESPACE").or_else(|| read("/var/run/secrets/kubernetes.io/serviceaccount/namespace"))
}

/// Who this process is: what the downward API says, else what the system says.
pub(super) fn pod() -> Pod {
    let namespace = namespace_of_the_pod().unwrap_or_else(|| "default".to_owned());
    let host = said("POD_NAME").or_else(|| said("HOSTNAME")).or_else(|| read("/proc/sys/kernel/hostname"));
    // Outside a pod, two processes may share a host.
    let name = host.map_or_else(
        || format!("floodway-{}", std::process::id()),
        |host| match said("POD_NAME") {
            Some(_) => host,
            None => format!("{host}-{}", std::process::id()),
        },
    );
    Pod { namespace, name }
}
