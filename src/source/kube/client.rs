//! The connection to the API server: from a kubeconfig or from within a cluster.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderValue, header};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::watch::WATCH_SECONDS;

/// A client from the environment: `KUBECONFIG` or `~/.kube/config`, else the service account of the pod.
///
/// # Errors
/// If neither is there, or if it cannot be used. Whether the API server answers is not tried.
pub async fn client() -> anyhow::Result<Client> {
    // The process has one crypto provider; whoever comes first installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config::infer().await.context(
        "no way to reach a Kubernetes API server: set KUBECONFIG to a kubeconfig file, or run in a pod with a service \
         account (to serve a folder of YAML files without a cluster, use `floodway standalone DIR`)",
    )?;
    connect(config)
}

/// A client from this kubeconfig, or the usual one, and this context of it, or the current one; where neither is named, as
/// [`client`] has it.
///
/// # Errors
/// If the kubeconfig cannot be used. Whether the API server answers is not tried.
pub async fn client_of(kubeconfig: Option<&Path>, context: Option<&str>) -> anyhow::Result<Client> {
    if kubeconfig.is_none() && context.is_none() {
        return client().await;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path)
            .with_context(|| format!("{}: is no kubeconfig that can be used", path.display())),
        None => Kubeconfig::read().context("there is no kubeconfig that can be used: set KUBECONFIG, or --kubeconfig"),
    };
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(read?, &options).await.with_context(|| match context {
        Some(context) => format!("the kubeconfig cannot be used with the context {context:?}"),
        None => "the kubeconfig cannot be used with its current context".to_owned(),
    })?;
    connect(config)
}

fn connect(mut config: Config) -> anyhow::Result<Client> {
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
