//! The connection to the API server: from a kubeconfig or from within a cluster. A gateway, which may watch hundreds of namespaces, has a
//! connection of HTTP/1.1 for each watch; a sidecar has one of HTTP/2 for everything, since there may be thousands of them.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderValue, header};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, ServiceExt as _};

use super::watch::Manner;

/// A client from the environment: `KUBECONFIG` or `~/.kube/config`, else the service account of the pod.
///
/// # Errors
/// If neither is there, or if it cannot be used. Whether the API server answers is not tried.
pub async fn client() -> anyhow::Result<Client> {
    connect(infer().await?)
}

/// The same for a sidecar: one connection of HTTP/2 for all watches.
///
/// # Errors
/// As [`client`].
pub async fn sidecar_client() -> anyhow::Result<Client> {
    connect_once(infer().await?, Pings::default())
}

async fn infer() -> anyhow::Result<Config> {
    // The process has one crypto provider; whoever comes first installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Config::infer().await.context(
        "no way to reach a Kubernetes API server: set KUBECONFIG to a kubeconfig file, or run in a pod with a service \
         account (to serve a folder of YAML files without a cluster, use `floodway standalone DIR`)",
    )
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
    config.connect_timeout = Some(CONNECT);
    // Longer than a watch may be silent; reads of anything else that hangs end then, too.
    config.read_timeout = Some(Duration::from_secs(u64::from(Manner::OneOfFew.seconds()) + 15));
    config.reset_reader_on_write = true;
    // Whoever asks tries again, and says so; a second layer of retries would only hide for how long.
    config.default_retry = false;
    config.write_timeout = Some(Duration::from_secs(10));
    Client::try_from(config).context("the settings for reaching the Kubernetes API server cannot be used")
}

/// How a connection on which nothing comes is asked whether it lives, as client-go does.
pub(super) struct Pings {
    pub(super) after: Duration,
    pub(super) within: Duration,
}

impl Default for Pings {
    fn default() -> Self {
        Pings { after: Duration::from_secs(30), within: Duration::from_secs(15) }
    }
}

/// A client all of whose requests share a connection, if the server speaks HTTP/2.
pub(super) fn connect_once(mut config: Config, pings: Pings) -> anyhow::Result<Client> {
    let unusable = "the settings for reaching the Kubernetes API server cannot be used";
    config.headers.push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    let tls = config.rustls_client_config().context(unusable)?;
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = config.tls_server_name.clone() {
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name.try_into().context(unusable)?));
    }
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(pings.after)
        .http2_keep_alive_timeout(pings.within)
        .http2_keep_alive_while_idle(true)
        // What may lie here unread, of a watch and of all together.
        .http2_initial_stream_window_size(WINDOW)
        .http2_initial_connection_window_size(4 * WINDOW)
        .build::<_, Body>(https.enable_all_versions().wrap_connector(tcp));
    let (uri, auth) = (config.base_uri_layer(), config.auth_layer().context(unusable)?);
    let builder = ClientBuilder::new(client.map_err(BoxError::from), config.default_namespace.clone())
        .with_layer(&config.extra_headers_layer().context(unusable)?);
    Ok(match auth {
        Some(auth) => builder.with_layer(&auth).with_layer(&uri).build(),
        None => builder.with_layer(&uri).build(),
    })
}

/// For connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// The window of one stream of HTTP/2.
const WINDOW: u32 = 256 * 1024;
const USER_AGENT: &str = concat!("floodway/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use bytes::Bytes;
    use futures_util::StreamExt as _;
    use k8s_openapi::api::core::v1::Service;
    use kube::Api;
    use kube::api::WatchParams;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;
    use tokio::time::timeout;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// An API server of one connection, on which it begins to answer two requests, and then nothing moves any more.
    async fn freezing(frozen: oneshot::Receiver<()>) -> Config {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let der = certificate.der().clone();
        let mut tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // Whoever opens another one is refused.
            drop(listener);
            let stream = TlsAcceptor::from(Arc::new(tls)).accept(stream).await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut bodies = Vec::new();
            let serve = async {
                while let Some(request) = connection.accept().await {
                    let (_, mut answer) = request.unwrap();
                    let mut body: h2::SendStream<Bytes> = answer.send_response(http::Response::new(()), false).unwrap();
                    body.send_data(Bytes::from_static(EVENT), false).unwrap();
                    bodies.push(body);
                }
            };
            tokio::select! {
                () = serve => {}
                _ = frozen => {}
            }
            std::future::pending::<()>().await;
            drop((connection, bodies));
        });
        let mut config = Config::new(format!("https://{address}").parse().unwrap());
        config.root_cert = Some(vec![der.to_vec()]);
        config
    }

    const EVENT: &[u8] =
        br#"{"type": "ADDED", "object": {"metadata": {"name": "a", "namespace": "b", "resourceVersion": "1"}}}
"#;

    #[tokio::test]
    async fn requests_share_a_connection_and_one_that_died_without_a_word_is_noticed() {
        let (freeze, frozen) = oneshot::channel();
        let pings = Pings { after: Duration::from_millis(100), within: Duration::from_millis(500) };
        let client = connect_once(freezing(frozen).await, pings).unwrap();
        let api: Api<Service> = Api::all(client);
        let patience = Duration::from_secs(20);
        let mut watches = Vec::new();
        for _ in 0..2 {
            let mut watch = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
            assert!(timeout(patience, watch.next()).await.unwrap().unwrap().is_ok());
            watches.push(watch);
        }
        freeze.send(()).unwrap();
        for mut watch in watches {
            let end = timeout(patience, watch.next()).await.unwrap();
            assert!(end.is_none_or(|event| event.is_err()));
        }
    }
}
