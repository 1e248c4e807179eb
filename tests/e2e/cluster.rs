//! What scenarios use of the cluster: helm and kubectl as people run them, objects, and Floodway as clients reach it. What is asked of a
//! pod once somebody has it is in `pods`.

use std::cell::Cell;
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

use crate::clients::Target;
use crate::control_plane::{ADMIN, ControlPlane};
use crate::figures::Figures;
use crate::http1::get;
use crate::node::{Node, kube_tools};
use crate::objects::{apply, conditions, create_namespace, dry_run, within};
use crate::pods::{container, labels};

/// The namespace and the release of the documents.
pub(crate) const SYSTEM: &str = "floodway-system";
pub(crate) const RELEASE: &str = "floodway";
/// The namespace of the application.
pub(crate) const SHOP: &str = "shop";
/// Where the documents' registry has the image, and what a node without load balancers and with little time needs besides.
pub(crate) const VALUES: &str = "service.type=NodePort,drain.delaySeconds=5,drain.graceSeconds=15";
const IMAGE: &str = "image.repository=registry.example.com/floodway";

/// Longer than anything here takes on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// Polls until there is an answer.
pub(crate) async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe).await
}

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

    /// A path in the folder of the run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
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
        // What runs later has to pass the strictest Pod Security Standard.
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        self.kubectl(&["label", "namespace", SYSTEM, enforce, "--overwrite"]).await;
    }

    /// What would become of an object that somebody makes; nothing is kept.
    pub(crate) async fn would_be(&self, namespace: &str, object: &Value) -> Value {
        dry_run(&self.client, namespace, object).await.unwrap_or_else(|error| panic!("{error}\n{object:#}"))
    }

    /// Whether an account of pods may do something, by the API server's answer.
    pub(crate) async fn may(&self, account: &str, namespace: &str, verb: &str, group: &str, resource: &str) -> bool {
        let attributes = json!({"namespace": namespace, "verb": verb, "group": group, "resource": resource});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": format!("system:serviceaccount:{account}"), "resourceAttributes": attributes},
        });
        let request = http::Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews")
            .header("content-type", "application/json")
            .body(review.to_string().into_bytes());
        let said: Value = self.client.request(request.unwrap()).await.unwrap();
        said["status"]["allowed"] == true
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
        let pod = json!({"terminationGracePeriodSeconds": 20, "containers": [container(says)]});
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
        eventually(&what, probe).await;
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
