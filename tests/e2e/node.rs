//! The node: the control plane, containerd, the kubelet, kube-proxy and a DNS server, each a process of this machine in the network that
//! `outside` has made. Where they are not told otherwise they use folders that are there in this namespace only.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node as KubeNode, ServiceAccount};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::eventually;
use crate::control_plane::{ADMIN, ControlPlane, Scene};
use crate::guarded::Guarded;
use crate::outside::pause;

/// The node's address, which `outside` has set.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The application of the tests, and what holds a pod's namespaces. In full: a short name would be looked for in a registry.
pub(crate) const APP_IMAGE: &str = "docker.io/library/floodway-e2e:1";
pub(crate) const PAUSE_IMAGE: &str = "docker.io/library/floodway-e2e-pause:1";
/// Floodway, under the name that README.md and docs/install.md give it.
pub(crate) const FLOODWAY_IMAGE: &str = "registry.example.com/floodway:0.1.0";

const NAME: &str = "node";

/// What runs. Ends when dropped, and in any case with the first process of the namespace.
pub(crate) struct Node {
    pub(crate) plane: ControlPlane,
    #[allow(dead_code)]
    parts: Vec<Guarded>,
}

/// Where `tests/tools/build.sh` puts what it builds.
pub(crate) fn kube_tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kube-tools")
}

impl Node {
    /// Brings it up in a folder that holds the images, and waits until it is ready.
    pub(crate) async fn start(dir: &Path) -> Node {
        let logs = dir.join("logs");
        fs::create_dir_all(&logs).unwrap();
        fs::create_dir_all(dir.join("control-plane")).unwrap();
        let run = |name: &str, command: &Command| Guarded::spawn(command, &logs.join(format!("{name}.log")), None);
        let tool = |name: &str| Command::new(kube_tools().join(name));

        let mut containerd = Command::new("containerd");
        containerd.arg("--config").arg(containerd_config(dir));
        let containerd = run("containerd", &containerd);
        let images = dir.to_owned();
        let images = tokio::task::spawn_blocking(move || import(&images));
        let plane = ControlPlane::bare(dir.join("control-plane"), Scene::Node(ADDRESS)).await;
        let access = plane.kubeconfig(ADMIN);
        let access = access.display();

        let mut manager = tool("kube-controller-manager");
        manager
            .arg(format!("--kubeconfig={access}"))
            .arg(format!("--service-account-private-key-file={}", plane.path("service-account.key").display()))
            .arg(format!("--root-ca-file={}", plane.path("ca.crt").display()))
            .args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
        let mut scheduler = tool("kube-scheduler");
        scheduler.arg(format!("--kubeconfig={access}")).args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
        let mut proxy = tool("kube-proxy");
        proxy
            .arg(format!("--kubeconfig={access}"))
            .arg(format!("--hostname-override={NAME}"))
            // The numbers are of the machine; those of the kernel are left alone.
            .args(["--proxy-mode=nftables", "--conntrack-max-per-core=0", "--conntrack-min=0"])
            .args(["--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"]);
        let mut dns = tool("coredns");
        dns.arg("-conf").arg(dns_config(dir, &access.to_string()));
        images.await.unwrap();
        let mut kubelet = tool("kubelet");
        kubelet
            .arg(format!("--config={}", kubelet_config(dir).display()))
            .arg(format!("--kubeconfig={access}"))
            .arg(format!("--root-dir={}", dir.join("kubelet").display()))
            .arg(format!("--cert-dir={}", dir.join("kubelet/pki").display()))
            .arg(format!("--hostname-override={NAME}"))
            .arg(format!("--node-ip={ADDRESS}"))
            .arg("--node-labels=topology.kubernetes.io/zone=zone-a");
        let parts = vec![
            containerd,
            run("kube-controller-manager", &manager),
            run("kube-scheduler", &scheduler),
            run("kube-proxy", &proxy),
            run("coredns", &dns),
            run("kubelet", &kubelet),
        ];
        let node = Node { plane, parts };
        node.ready().await;
        node
    }

    async fn ready(&self) {
        let client = self.plane.client(ADMIN).await;
        eventually("the node to be ready", async || {
            for part in &self.parts {
                assert!(part.alive(), "a part of the node has ended:\n{}", part.output());
            }
            schedulable(&client).await
        })
        .await;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
        eventually("the default service account", async || accounts.get("default").await.ok()).await;
    }
}

async fn schedulable(client: &Client) -> Option<()> {
    let node = Api::<KubeNode>::all(client.clone()).get(NAME).await.ok()?;
    let ready = node.status?.conditions?.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    (ready && taints.is_empty()).then_some(())
}

/// Waits for containerd, and gives it the images.
fn import(dir: &Path) {
    let began = Instant::now();
    let ctr = |arguments: &[&str]| Command::new("ctr").args(["-n", "k8s.io"]).args(arguments).output().unwrap();
    while !ctr(&["version"]).status.success() {
        assert!(began.elapsed() < Duration::from_secs(30), "containerd did not start; see {}/logs", dir.display());
        pause(Duration::from_millis(50));
    }
    for image in ["app.tar", "floodway.tar"] {
        let path = dir.join(image);
        let said = ctr(&["images", "import", path.to_str().unwrap()]);
        assert!(said.status.success(), "{image}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

fn write(path: PathBuf, text: &str) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

fn containerd_config(dir: &Path) -> PathBuf {
    let network = json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [
            // A pair of interfaces for each pod and no bridge, which would need the kernel to filter what passes it.
            {"type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local", "dataDir": "/run/cni", "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.244.0.0/24"}]],
            }},
            {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}},
        ],
    });
    write(dir.join("cni/10-pods.conflist"), &network.to_string());
    // Layers cannot be laid over folders that are layers themselves, as in a container.
    let kind = Command::new("stat").args(["-f", "-c", "%T"]).arg(dir).output().unwrap();
    let layered = String::from_utf8_lossy(&kind.stdout).contains("overlay");
    let text = format!(
        r#"version = 2
root = "{dir}/containerd"
state = "/run/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{tools}"
    conf_dir = "{dir}/cni"
"#,
        dir = dir.display(),
        snapshotter = if layered { "native" } else { "overlayfs" },
        tools = kube_tools().display(),
    );
    write(dir.join("containerd.toml"), &text)
}

fn kubelet_config(dir: &Path) -> PathBuf {
    write(dir.join("resolv.conf"), "");
    let low = json!({"memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%"});
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", dir.file_name().unwrap().to_string_lossy()),
        "failCgroupV1": false, "failSwapOn": false,
        // Only we reach it.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": [ADDRESS], "clusterDomain": "cluster.local", "resolvConf": dir.join("resolv.conf"),
        "evictionHard": low, "imageMinimumGCAge": "24h", "imageGCHighThresholdPercent": 100,
        "volumePluginDir": dir.join("kubelet/plugins"), "podLogsDir": dir.join("logs/pods"),
        // Changed ConfigMaps reach pods within a minute otherwise.
        "syncFrequency": "5s",
        // As many pods as there are addresses, and no waiting for its own rate limits.
        "maxPods": 200, "kubeAPIQPS": 200, "kubeAPIBurst": 400, "registryPullQPS": 0,
    });
    write(dir.join("kubelet.json"), &config.to_string())
}

fn dns_config(dir: &Path, access: &str) -> PathBuf {
    let text = format!(
        ".:53 {{\n    bind {ADDRESS}\n    errors\n    kubernetes cluster.local {{\n        kubeconfig {access}\n        ttl 1\n    }}\n}}\n"
    );
    write(dir.join("Corefile"), &text)
}
