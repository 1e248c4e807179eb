//! The connection to the API server: from a kubeconfig or from within a cluster.

use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderValue, header};
use kube::Client;

use super::watch::WATCH_SECONDS;

/// A client from the environment: `KUBECONFIG` or `~/.kube/config`, else the service account of the pod.
///
/// # Errors
/// If neither is there, or if it cannot be used. Whether the API server answers is not tried.
pub async fn client() -> anyhow::Result<Client> {
    // The process has one crypto provider; whoever comes first installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = kube::Config::infer().await.context(
        "no way to reach a Kubernetes API server: set KUBECONFIG to a kubeconfig file, or run in a pod with a service \
         account (to serve a folder of YAML files without a cluster, use `floodway standalone DIR`)",
    )?;
    config.headers.push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
    config.connect_timeout = Some(Duration::from_secs(5));
    // Longer than a watch may be silent; reads of anything else that hangs end then, too.
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 15));
    config.reset_reader_on_write = true;
    // Whoever asks tries again, and says so; a second layer of retries would only hide for how long.
    config.default_retry = false;
    config.write_timeout = Some(Duration::from_secs(10));
    Client::try_from(config).context("the settings for reaching the Kubernetes API server cannot be used")
}

const USER_AGENT: &str = concat!("floodway/", env!("CARGO_PKG_VERSION"));
