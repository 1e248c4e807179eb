//! What Floodway is not let see, or what is not there: it says so, waits, and does not crash.

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::{Cluster, eventually};
use crate::pods::{ready, restarts};

/// A release whose first pod waits for something: what its readiness and its log say of it.
async fn waits(cluster: &Cluster, release: &str, said: &[&str]) -> Pod {
    let pod = eventually("a pod that says what it waits for", async || {
        let pod = cluster.gateways(release, release).await.pop()?;
        let (status, text) = cluster.ask(&pod, 9901, "/readyz").await?;
        (status == 503 && said.iter().all(|word| text.contains(word))).then_some(pod)
    })
    .await;
    eventually("its log to say so", async || {
        let log = cluster.log(&pod).await;
        said.iter().all(|word| log.contains(word)).then_some(())
    })
    .await;
    pod
}

/// Without the definitions: `helm install --skip-crds`, or a cluster in which somebody has deleted them.
pub(crate) async fn missing_definitions_are_told(cluster: &Cluster) {
    cluster.install("early", "early", &["--skip-crds", "--set", "replicas=1"]).await;
    let pod = waits(cluster, "early", &["ProxyRoute", "ProxyUpstream", "ProxyPolicy"]).await;
    assert_eq!(restarts(&pod), 0);
    let definitions = cluster.helm(&["show", "crds", "charts/floodway"]).await;
    let apply = ["apply", "--server-side", "-f", "-"];
    cluster.run("kubectl", &apply, &definitions).await.unwrap();
    becomes_ready(cluster, "early", &pod).await;
    cluster.helm(&["uninstall", "early", "-n", "early", "--wait"]).await;
    let delete = ["delete", "--wait", "-f", "-"];
    cluster.run("kubectl", &delete, &definitions).await.unwrap();
    cluster.kubectl(&["delete", "namespace", "early", "--wait=false"]).await;
}

/// Without the right to see what it needs.
pub(crate) async fn missing_rights_are_told(cluster: &Cluster) {
    cluster.staged().await;
    let (release, in_namespace) = ("denied", "denied");
    // A class of its own: it must not write over what the other one writes.
    cluster.install(release, in_namespace, &["--set", "replicas=1,className=denied"]).await;
    let binding = "clusterrolebinding/denied-floodway-denied";
    let kept = cluster.kubectl(&["get", binding, "-o", "yaml"]).await;
    cluster.kubectl(&["delete", binding]).await;
    // What it has listed stays in force in a pod that runs; this is about one that begins.
    cluster.kubectl(&["-n", in_namespace, "delete", "pod", "--all", "--grace-period=0", "--force"]).await;
    let pod = waits(cluster, release, &["EndpointSlice", "ProxyRoute"]).await;
    let log = cluster.log(&pod).await;
    assert!(log.contains("endpointslices") && log.contains("forbidden"), "{log}");
    assert_eq!(restarts(&pod), 0);
    cluster.run("kubectl", &["create", "-f", "-"], &kept).await.unwrap();
    becomes_ready(cluster, release, &pod).await;
    cluster.helm(&["uninstall", release, "-n", in_namespace, "--wait"]).await;
    cluster.kubectl(&["delete", "namespace", in_namespace, "--wait=false"]).await;
}

/// The same pod, without a restart, once it has what it waited for.
async fn becomes_ready(cluster: &Cluster, release: &str, pod: &Pod) {
    eventually("the pod to be ready", async || {
        let now = cluster.gateways(release, release).await.pop()?;
        assert_eq!(now.metadata.uid, pod.metadata.uid);
        assert_eq!(restarts(&now), 0);
        ready(&now).then_some(())
    })
    .await;
}
