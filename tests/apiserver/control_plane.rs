//! A real etcd and kube-apiserver, on ports of their own and with data in a folder of their own. One is shared by the
//! tests of a process; a test that stops its API server starts one for itself.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokio::time::Instant;

use crate::guarded::Guarded;
use crate::objects;

/// The administrator of the tests.
pub(crate) const ADMIN: &str = "admin";
/// Holds exactly the rules of the chart's ClusterRole and Role.
pub(crate) const FLOODWAY: &str = "floodway";
/// Holds rules in the namespaces that a test gives it.
pub(crate) const TENANT: &str = "tenant";
/// Holds what a test gives it, which is never a right to Secrets or ConfigMaps.
pub(crate) const BLIND: &str = "blind";
/// Holds the rules of the chart's injector, of the installation that a test makes.
pub(crate) const INJECTOR: &str = "injector";
/// Holds all rules but one, in the namespace of the test that takes it away.
pub(crate) const PATIENT: &str = "patient";
/// Holds no rule at all.
pub(crate) const NOBODY: &str = "nobody";
/// Where the tests' gateways keep their Lease, unless a test has a namespace of its own for it.
pub(crate) const SYSTEM: &str = "floodway-system";

/// Who talks to an API server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Clients on loopback, and no pods.
    Alone,
    /// A node with this address and its pods, besides. Only the tests in `tests/e2e` have one.
    #[allow(dead_code)]
    Node(Ipv4Addr),
}

/// Where the Services of the cluster have their addresses; the API server has the first of them.
const SERVICES: &str = "10.96.0.0/16";
const API_SERVICE: &str = "10.96.0.1";

pub(crate) struct ControlPlane {
    dir: PathBuf,
    scene: Scene,
    port: u16,
    etcd_port: u16,
    etcd: Guarded,
    apiserver: Mutex<Option<Guarded>>,
}

/// The control plane that all tests of this process share.
pub(crate) async fn shared() -> &'static ControlPlane {
    static SHARED: OnceLock<ControlPlane> = OnceLock::new();
    tokio::task::spawn_blocking(|| {
        SHARED.get_or_init(|| {
            // A runtime of its own: that of the calling test ends with the test.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            std::thread::spawn(move || runtime.block_on(ControlPlane::start())).join().unwrap()
        })
    })
    .await
    .unwrap()
}

/// A port that nobody listens on and that the kernel gives to nobody: below the range from which it takes the ports of
/// outgoing connections and of those who bind to port 0, so that no other test can get it before it is bound.
pub(crate) fn free_port() -> u16 {
    const RANGE: std::ops::Range<u32> = 16_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Runs beside this one start elsewhere.
        let next = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(RANGE.start + next % (RANGE.end - RANGE.start)).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The folder that holds etcd and kube-apiserver.
pub(crate) fn assets() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kube-tools");
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map_or(built, PathBuf::from);
    for tool in ["etcd", "kube-apiserver"] {
        assert!(
            assets.join(tool).is_file(),
            "{} is missing: run `tests/tools/build.sh` (as `make test` does) to build it from source, or set \
             KUBEBUILDER_ASSETS to a folder that holds etcd and kube-apiserver",
            assets.join(tool).display()
        );
    }
    assets
}

/// A folder for one control plane; it goes when its etcd ends.
fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("apiserver-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

impl ControlPlane {
    /// Starts one, with our custom resources and the users of the tests.
    pub(crate) async fn start() -> ControlPlane {
        let plane = ControlPlane::bare(folder(), Scene::Alone).await;
        objects::install(&plane.client(ADMIN).await).await;
        plane
    }

    /// Starts one with nothing in it. The folder goes when its etcd ends.
    pub(crate) async fn bare(dir: PathBuf, scene: Scene) -> ControlPlane {
        let data = dir.join("etcd");
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        certificates(&dir, scene);
        let users = [
            (ADMIN, "system:masters"),
            (FLOODWAY, ""),
            (TENANT, ""),
            (BLIND, ""),
            (INJECTOR, ""),
            (PATIENT, ""),
            (NOBODY, ""),
        ];
        let tokens: String =
            users.iter().map(|(user, group)| format!("{user}-token,{user},{user},\"{group}\"\n")).collect();
        std::fs::write(dir.join("tokens.csv"), tokens).unwrap();

        let mut etcd = Command::new(assets().join("etcd"));
        etcd.args(["--unsafe-no-fsync", "--log-level=warn", "--name=etcd"])
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"))
            .arg(format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}"))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"))
            .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}"))
            .arg(format!("--initial-cluster=etcd=http://127.0.0.1:{peer_port}"));
        let etcd = Guarded::spawn(&etcd, &dir.join("etcd.log"), Some(&dir));
        let plane = ControlPlane { dir, scene, port, etcd_port, etcd, apiserver: Mutex::new(None) };
        plane.start_api_server().await;
        plane
    }

    /// Starts the API server, and waits until it is ready.
    pub(crate) async fn start_api_server(&self) {
        let dir = self.dir.display();
        let mut server = Command::new(assets().join("kube-apiserver"));
        server
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg(format!("--service-account-key-file={dir}/service-account.pub"))
            .arg(format!("--service-account-signing-key-file={dir}/service-account.key"))
            .arg(format!("--token-auth-file={dir}/tokens.csv"))
            .arg(format!("--tls-cert-file={dir}/server.crt"))
            .arg(format!("--tls-private-key-file={dir}/server.key"))
            .arg(format!("--cert-dir={dir}"))
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--service-cluster-ip-range={SERVICES}"))
            .args([
                "--service-account-issuer=https://kubernetes.default.svc",
                "--authorization-mode=Node,RBAC",
                "--enable-priority-and-fairness=false",
            ]);
        match self.scene {
            Scene::Alone => server.args([
                "--bind-address=127.0.0.1",
                "--advertise-address=192.0.2.1",
                "--endpoint-reconciler-type=none",
            ]),
            // Logs and the like are asked of the kubelet, whose name nobody resolves.
            Scene::Node(address) => server
                .args(["--bind-address=0.0.0.0", "--allow-privileged=true"])
                .arg("--kubelet-preferred-address-types=InternalIP")
                .arg(format!("--advertise-address={address}")),
        };
        let server = Guarded::spawn(&server, &self.dir.join("kube-apiserver.log"), None);
        *self.server() = Some(server);
        let client = self.client(ADMIN).await;
        let began = Instant::now();
        loop {
            let ready = client.request_text(http::Request::get("/readyz").body(Vec::new()).unwrap()).await;
            if ready.is_ok_and(|answer| answer == "ok") {
                return;
            }
            let ended = !self.etcd.alive() || self.server().as_ref().is_none_or(|server| !server.alive());
            if ended || began.elapsed() > Duration::from_secs(60) {
                let log = self.server().as_ref().map(Guarded::output).unwrap_or_default();
                panic!("the API server did not start: {log}\netcd: {}", self.etcd.output());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the API server at once; etcd and the data stay.
    pub(crate) fn stop_api_server(&self) {
        if let Some(mut server) = self.server().take() {
            // Its own shutdown would take a minute as long as watches are open.
            server.signal("KILL");
            server.stop();
        }
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Guarded>> {
        self.apiserver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kubeconfig for a user, as a file.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority": self.dir.join("ca.crt"),
            }}],
            "users": [{"name": user, "user": {"token": format!("{user}-token")}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        });
        let path = self.dir.join(format!("{user}.kubeconfig"));
        // In one step: other tests may be reading it.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let new = self.dir.join(format!("kubeconfig-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&new, config.to_string()).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    /// A client for a user.
    pub(crate) async fn client(&self, user: &str) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = Kubeconfig::read_from(self.kubeconfig(user)).unwrap();
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// A path in the folder of this control plane, which is removed with it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop_api_server();
        self.etcd.stop();
    }
}

/// An authority, a certificate for where the API server is reached signed by it, and the key that signs service account tokens.
fn certificates(dir: &Path, scene: Scene) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    if let Scene::Node(address) = scene {
        names.extend([address.to_string(), API_SERVICE.to_owned()]);
        names.extend(["kubernetes.default.svc", "kubernetes.default"].map(str::to_owned));
    }
    let server = CertificateParams::new(names).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    write("ca.crt", ca.pem());
    write("server.crt", server.pem());
    write("server.key", key.serialize_pem());
    let accounts = KeyPair::generate().unwrap();
    write("service-account.key", accounts.serialize_pem());
    write("service-account.pub", accounts.public_key_pem());
}
