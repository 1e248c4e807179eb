//! What scenarios use of the cluster: helm and kubectl as people run them, objects, pods and their processes, and Floodway as clients
//! reach it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::control_plane::{ADMIN, ControlPlane};
use crate::figures::Figures;
use crate::http1::get;
use crate::load::Target;
use crate::node::{APP_IMAGE, Node, kube_tools};
use crate::objects::{apply, conditions, create_namespace, eventually};

/// The namespace and the release of the documents.
pub(crate) const SYSTEM: &str = "floodway-system";
pub(crate) const RELEASE: &str = "floodway";
/// The namespace of the application.
pub(crate) const SHOP: &str = "shop";
/// Where the documents' registry has the image, and what a node without load balancers and with little time needs besides.
pub(crate) const VALUES: &str = "service.type=NodePort,drain.delaySeconds=5,drain.graceSeconds=15";
const IMAGE: &str = "image.repository=registry.example.com/floodway";

pub(crate) struct Cluster {
    node: Node,
    pub(crate) client: Client,
    pub(crate) figures: Figures,
    dir: PathBuf,
    installed: Cell<bool>,
    staged: Cell<bool>,
}

impl Cluster {
    pub(crate) async fn start(dir: &Path) -> Cluster {
        let node = Node::start(dir).await;
        let client = node.plane.client(ADMIN).await;
        let (installed, staged) = (Cell::new(false), Cell::new(false));
        Cluster { node, client, figures: Figures::default(), dir: dir.to_owned(), installed, staged }
    }

    pub(crate) fn plane(&self) -> &ControlPlane {
        &self.node.plane
    }

    /// A command as a person would run it in the repository; what it prints, or how it fails.
    pub(crate) async fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let path = format!("{}:{}", kube_tools().display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).env("PATH", path).env("HOME", &self.dir);
        command.env("KUBECONFIG", self.plane().kubeconfig(ADMIN));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            match output.status.success() {
                true => Ok(said),
                false => Err(said + &String::from_utf8_lossy(&output.stderr)),
            }
        })
        .await
        .unwrap()
    }

    pub(crate) async fn helm(&self, arguments: &[&str]) -> String {
        self.run("helm", arguments, "").await.unwrap_or_else(|said| panic!("helm {arguments:?}: {said}"))
    }

    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        self.run("kubectl", arguments, "").await.unwrap_or_else(|said| panic!("kubectl {arguments:?}: {said}"))
    }

    /// Installs the chart with values besides those that all releases of the tests have.
    pub(crate) async fn install(&self, release: &str, namespace: &str, more: &[&str]) {
        let mut arguments = vec!["install", release, "charts/floodway", "-n", namespace, "--create-namespace"];
        arguments.extend(["--set", IMAGE, "--set", VALUES]);
        arguments.extend(more);
        self.helm(&arguments).await;
    }

    /// The release of the documents, installed once.
    pub(crate) async fn installed(&self) {
        if !self.installed.replace(true) {
            self.install(RELEASE, SYSTEM, &["--wait"]).await;
        }
    }

    /// Says whether the release of the documents is there.
    pub(crate) fn is_installed(&self, installed: bool) {
        self.installed.set(installed);
    }

    /// Floodway, and the application behind it in three pods, for the host `shop.test`.
    pub(crate) async fn staged(&self) -> Target {
        self.installed().await;
        if !self.staged.replace(true) {
            create_namespace(&self.client, SHOP).await;
            self.deploy(SHOP, "web", "one", 3).await;
            self.expose(SHOP, "web").await;
            self.route("shop", "shop.test", &[("web", 1)]).await;
        }
        self.rolled_out(SHOP, "web").await;
        self.rolled_out(SYSTEM, RELEASE).await;
        let target = self.target("shop.test").await;
        self.answers(&target, 200).await;
        target
    }

    /// Floodway's address in the cluster, for a host.
    pub(crate) async fn target(&self, host: &str) -> Target {
        let services: Api<Service> = Api::namespaced(self.client.clone(), SYSTEM);
        let ip = services.get(RELEASE).await.unwrap().spec.unwrap().cluster_ip.unwrap();
        Target { address: SocketAddr::new(ip.parse().unwrap(), 80), host: host.to_owned() }
    }

    /// Waits until a host's root answers so; the answer.
    pub(crate) async fn answers(&self, target: &Target, status: u16) -> Value {
        let what = format!("{} to answer {status}", target.host);
        eventually(&what, async || {
            let (said, body) = get(target.address, &target.host, "/").await.ok()?;
            (said.as_u16() == status).then(|| serde_json::from_str(&body).unwrap_or_default())
        })
        .await
    }

    pub(crate) async fn apply(&self, namespace: &str, object: Value) {
        apply(&self.client, Some(namespace), &object).await;
    }

    /// A deployment of the application, which answers with `says`.
    pub(crate) async fn deploy(&self, namespace: &str, name: &str, says: &str, replicas: u32) {
        let labels = json!({"app": name});
        let container = json!({
            "name": "app", "image": APP_IMAGE, "imagePullPolicy": "Never", "args": [says],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
        });
        let pod = json!({"terminationGracePeriodSeconds": 20, "containers": [container]});
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": labels},
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        });
        self.apply(namespace, object).await;
    }

    /// A Service of a deployment.
    pub(crate) async fn expose(&self, namespace: &str, name: &str) {
        let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
        let spec = json!({"selector": {"app": name}, "ports": ports});
        self.apply(namespace, json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}))
            .await;
    }

    /// A route of the shop: a host to Services by weight.
    pub(crate) async fn route(&self, name: &str, host: &str, services: &[(&str, u32)]) {
        let backend =
            |(name, weight): &(&str, u32)| json!({"service": {"name": name, "port": "http"}, "weight": weight});
        let backends: Vec<Value> = services.iter().map(backend).collect();
        let spec = json!({"hosts": [host], "rules": [{"name": "all", "backends": backends}]});
        let route = json!({"apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": name}, "spec": spec});
        self.apply(SHOP, route).await;
    }

    /// Waits until the status of the newest version of a route is written and good.
    pub(crate) async fn status_is_written(&self, name: &str) {
        eventually("the status of a route", async || {
            let conditions = conditions(&self.client, SHOP, name).await?;
            (conditions == ["Accepted=True", "Programmed=True", "ResolvedRefs=True"]).then_some(())
        })
        .await;
    }

    /// Waits until a deployment has the pods it wants, all of its newest version, and those that go are gone.
    pub(crate) async fn rolled_out(&self, namespace: &str, name: &str) {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("deployment {name} to be rolled out");
        let probe = async || {
            let deployment = deployments.get(name).await.ok()?;
            let (spec, status) = (deployment.spec?, deployment.status?);
            let wanted = spec.replicas?;
            // What is none is left out.
            let counts = [status.replicas, status.updated_replicas, status.available_replicas];
            let newest = status.observed_generation == deployment.metadata.generation;
            let selector = spec.selector.match_labels?;
            let pods = self.pods(namespace, &labels(&selector)).await;
            let all = pods.len() == usize::try_from(wanted).ok()?;
            (newest && all && counts.iter().all(|count| count.unwrap_or_default() == wanted)).then_some(())
        };
        // Pods that go may take as long as their grace.
        for _ in 0..3 {
            if tokio::time::timeout(Duration::from_secs(39), eventually(&what, probe)).await.is_ok() {
                return;
            }
        }
        panic!("waited two minutes for {what}");
    }

    /// Restarts the pods of a deployment one after the other, as `kubectl rollout restart` does.
    pub(crate) async fn restart(&self, namespace: &str, name: &str) {
        self.kubectl(&["-n", namespace, "rollout", "restart", &format!("deployment/{name}")]).await;
    }

    pub(crate) async fn pods(&self, namespace: &str, selector: &str) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        pods.list(&ListParams::default().labels(selector)).await.map(|list| list.items).unwrap_or_default()
    }

    /// The pods of a release of the chart.
    pub(crate) async fn gateways(&self, release: &str, namespace: &str) -> Vec<Pod> {
        let selector = format!("app.kubernetes.io/name=floodway,app.kubernetes.io/instance={release}");
        self.pods(namespace, &selector).await
    }

    /// What a container has logged, without the access log.
    pub(crate) async fn log(&self, pod: &Pod) -> String {
        let name = pod.metadata.name.as_deref().unwrap();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap());
        let text = pods.logs(name, &LogParams::default()).await.unwrap_or_else(|error| error.to_string());
        text.lines().filter(|line| !line.contains("\"request_id\"")).map(|line| format!("{line}\n")).collect()
    }

    /// An answer of a pod itself.
    pub(crate) async fn ask(&self, pod: &Pod, port: u16, path: &str) -> Option<(u16, String)> {
        let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
        let (status, body) = get(SocketAddr::new(ip, port), "pod", path).await.ok()?;
        Some((status.as_u16(), body))
    }

    /// Deletes a pod, with its own grace or at once.
    pub(crate) async fn delete(&self, pod: &Pod, at_once: bool) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap());
        let params = if at_once { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
        pods.delete(pod.metadata.name.as_deref().unwrap(), &params).await.unwrap();
    }
}

/// A selector of labels.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// Whether the pod counts as ready.
pub(crate) fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// How often its containers were started again.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    containers.iter().map(|container| container.restart_count).sum()
}

/// The process of a pod that runs `program`. Its cgroups are named after the pod.
pub(crate) fn process(pod: &Pod, program: &str) -> Option<u32> {
    let uid = pod.metadata.uid.as_deref()?;
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let cgroups = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let first = command.split(|byte| *byte == 0).next()?;
        let named = Path::new(std::str::from_utf8(first).ok()?).file_name()? == program;
        (cgroups.contains(uid) && named).then_some(id)
    })
}

/// Kills a pod's process at once.
pub(crate) fn kill(pod: &Pod, program: &str) {
    let id = process(pod, program).unwrap_or_else(|| panic!("no process {program} in the pod"));
    let killed = Command::new("kill").args(["-KILL", &id.to_string()]).status().unwrap();
    assert!(killed.success());
}
