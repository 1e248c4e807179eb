//! The namespace whose pods may ask for sidecars, and what scenarios do with such pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::cluster::{Cluster, RELEASE, SYSTEM, eventually};
use crate::pods::{container, ready};

pub(crate) const MESH: &str = "mesh";
pub(crate) const INJECTOR: &str = "floodway-injector";
/// Where a sidecar answers what the kubelet and scrapers ask, and where it takes what comes for its app.
pub(crate) const ADMIN: u16 = 15190;
pub(crate) const INBOUND: u16 = 15106;
/// Where an app in local mode asks its sidecar.
pub(crate) const OUTBOUND: &str = "127.0.0.1:15101";

/// The release with the injector, and a namespace with an application of three pods that nothing stands in front of.
pub(crate) async fn meshed(cluster: &Cluster) {
    cluster.staged().await;
    let set = format!("injector.enabled=true,sidecar.secrets=true,sidecar.namespaces={{{MESH}}}");
    let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": MESH, "labels": {"floodway.dev/injection": "enabled"},
    }});
    crate::objects::apply(&cluster.client, None, &made).await;
    let deployed = cluster.run("kubectl", &["-n", SYSTEM, "get", "deployment", INJECTOR], "").await;
    if deployed.is_err() {
        let upgrade = ["upgrade", RELEASE, "charts/floodway", "-n", SYSTEM, "--reset-then-reuse-values", "--wait"];
        cluster.helm(&[&upgrade[..], &["--set", &set]].concat()).await;
    }
    cluster.rolled_out(SYSTEM, INJECTOR).await;
    cluster.deploy(MESH, "plain", "plain", 3).await;
    cluster.expose(MESH, "plain").await;
    cluster.rolled_out(MESH, "plain").await;
    let upstream = json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyUpstream", "metadata": {"name": "plain"},
        "spec": {"targetRefs": [{"kind": "Service", "name": "plain"}]},
    });
    cluster.apply(MESH, upstream).await;
    // Lets nobody in but the node, which asks for what the tests want to know.
    let policy = |name: &str, allow: &str| {
        json!({
            "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyPolicy", "metadata": {"name": name},
            "spec": {"ipAccess": {"allow": [allow]}},
        })
    };
    cluster.apply(MESH, policy("node-only", "10.0.0.0/8")).await;
    cluster.apply(MESH, policy("nobody", "192.0.2.1/32")).await;
}

/// A pod with annotations of the sidecar.
pub(crate) fn pod(name: &str, annotations: &[(&str, &str)], spec: &Value) -> Value {
    let annotations: BTreeMap<String, &str> =
        annotations.iter().map(|(key, value)| (format!("sidecar.floodway.dev/{key}"), *value)).collect();
    let metadata = json!({"name": name, "labels": {"app": name}, "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// The spec of a pod of the application, whose probes pass only by way of the sidecar where it lets nobody in.
pub(crate) fn application(says: &str) -> Value {
    let mut app = container(says);
    app["livenessProbe"] = app["readinessProbe"].clone();
    json!({"terminationGracePeriodSeconds": 5, "containers": [app]})
}

/// Makes a pod, and waits until it is ready.
pub(crate) async fn started(cluster: &Cluster, pod: Value) -> Pod {
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.apply(MESH, pod).await;
    eventually(&format!("pod {name} to be ready"), async || {
        cluster.pods(MESH, &format!("app={name}")).await.pop().filter(ready)
    })
    .await
}

/// Whether it was given one.
pub(crate) fn has_sidecar(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref().unwrap();
    spec.init_containers.iter().flatten().any(|container| container.name == "floodway-sidecar")
}

/// Whether a pod that is made as `pod` says would get a sidecar.
pub(crate) async fn would_get_one(cluster: &Cluster, namespace: &str, pod: &Value) -> bool {
    let made: Pod = serde_json::from_value(cluster.would_be(namespace, pod).await).unwrap();
    has_sidecar(&made)
}

/// What the application in a pod gets from `address` for `host`, asked through its sidecar.
pub(crate) async fn via(cluster: &Cluster, pod: &Pod, port: u16, address: &str, host: &str) -> Option<(u64, Value)> {
    let (status, body) = cluster.ask(pod, port, &format!("/via/{address}/{host}")).await?;
    let said: Value = serde_json::from_str(&body).ok()?;
    (status == 200).then(|| (said["status"].as_u64().unwrap_or_default(), said["said"].clone()))
}

pub(crate) async fn removed(cluster: &Cluster, names: &[&str]) {
    cluster.kubectl(&[&["-n", MESH, "delete", "pod", "--grace-period=1"], names].concat()).await;
}
