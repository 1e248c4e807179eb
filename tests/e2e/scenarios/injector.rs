//! The injector: whom it concerns, and that nobody is blocked by one that is broken.

use std::cell::Cell;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::mesh::{INJECTOR, MESH, application, has_sidecar, meshed, pod, removed, started, would_get_one};
use crate::cluster::{Cluster, SHOP, SYSTEM, eventually};
use crate::pods::ready;

fn asking() -> Value {
    pod("asking", &[("inject", "true")], &application("asking"))
}

/// An annotation that cannot be read refuses the pod that has it, in a sentence.
pub(crate) async fn a_wrong_annotation_is_refused_in_a_sentence(cluster: &Cluster) {
    meshed(cluster).await;
    let wrong = pod("wrong", &[("inject", "true"), ("mode", "magic")], &application("wrong"));
    let refused = crate::objects::try_apply(&cluster.client, Some(MESH), &wrong).await;
    let said = refused.expect_err("a wrong annotation").to_string();
    assert!(
        said.contains("sidecar.floodway.dev/mode") && said.contains("magic") && said.contains("transparent"),
        "{said}"
    );
}

/// A namespace has to be labelled, and some cannot be.
pub(crate) async fn other_namespaces_are_not_concerned(cluster: &Cluster) {
    meshed(cluster).await;
    assert!(would_get_one(cluster, MESH, &asking()).await);
    assert!(!would_get_one(cluster, SHOP, &asking()).await);
    // As strict as Floodway's own namespace wants it.
    let mut strict = asking();
    strict["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}});
    strict["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    for namespace in ["kube-system", "kube-public", SYSTEM] {
        let label = |value: &'static str| ["label", "namespace", namespace, value];
        cluster.kubectl(&label("floodway.dev/injection=enabled")).await;
        eventually("the account of pods", async || {
            cluster.run("kubectl", &["-n", namespace, "get", "serviceaccount", "default"], "").await.ok()
        })
        .await;
        assert!(!would_get_one(cluster, namespace, &strict).await, "{namespace}");
        cluster.kubectl(&label("floodway.dev/injection-")).await;
    }
}

/// While its two replicas are replaced, every pod that asks gets its sidecar.
pub(crate) async fn a_rollout_of_the_injector_misses_no_pod(cluster: &Cluster) {
    meshed(cluster).await;
    assert_eq!(cluster.pods(SYSTEM, "app.kubernetes.io/name=floodway-injector").await.len(), 2);
    let done = Cell::new(false);
    let rollout = async {
        cluster.restart(SYSTEM, INJECTOR).await;
        cluster.rolled_out(SYSTEM, INJECTOR).await;
        done.set(true);
    };
    let pods = async {
        let mut asked = 0;
        while !done.get() {
            asked += 1;
            assert!(would_get_one(cluster, MESH, &asking()).await, "pod {asked} was let in without its sidecar");
            sleep(Duration::from_millis(20)).await;
        }
        asked
    };
    let ((), asked) = futures_util::future::join(rollout, pods).await;
    cluster.figures.add("Pods that missed their sidecar while the injector was rolled", format!("0 of {asked}"));
}

/// Whatever happens to the injector, pods that did not ask are made; those that asked are, too, without a sidecar.
pub(crate) async fn without_the_injector_nobody_is_blocked(cluster: &Cluster) {
    meshed(cluster).await;
    // It is there, and leaves alone who does not ask.
    let left = started(cluster, pod("left", &[], &application("left"))).await;
    assert!(!has_sidecar(&left));
    let scale = async |replicas: &str| {
        cluster.kubectl(&["-n", SYSTEM, "scale", "deployment", INJECTOR, "--replicas", replicas]).await;
        cluster.rolled_out(SYSTEM, INJECTOR).await;
    };
    scale("0").await;
    for (name, annotations) in [("plain-pod", &[][..]), ("asking", &[("inject", "true")])] {
        let made = started(cluster, pod(name, annotations, &application(name))).await;
        assert!(!has_sidecar(&made));
    }
    scale("2").await;
    let again = eventually("pods that ask to get one again", async || {
        let made = started(cluster, pod("again", &[("inject", "true")], &application("again"))).await;
        if has_sidecar(&made) {
            return Some(made);
        }
        removed(cluster, &["again"]).await;
        None
    })
    .await;
    assert!(ready(&again));
    removed(cluster, &["left", "plain-pod", "asking", "again"]).await;
}

/// The same with one that runs, and that the API server does not believe: as after somebody broke its certificate.
pub(crate) async fn with_a_certificate_that_is_not_trusted_nobody_is_blocked(cluster: &Cluster) {
    meshed(cluster).await;
    let name = format!("{INJECTOR}-{SYSTEM}");
    // Without this right it cannot mend what we break.
    let binding = format!("clusterrolebinding/{name}");
    let kept = cluster.kubectl(&["get", &binding, "-o", "yaml"]).await;
    cluster.kubectl(&["delete", &binding]).await;
    let key = KeyPair::generate().unwrap();
    let other = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
    let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": BASE64.encode(other)}]);
    let (configuration, patch) = (format!("mutatingwebhookconfiguration/{name}"), patch.to_string());
    eventually("a pod that asks to be let in without its sidecar", async || {
        // Again: it may have mended it while the right was still in force.
        cluster.kubectl(&["patch", &configuration, "--type=json", "-p", &patch]).await;
        (!would_get_one(cluster, MESH, &asking()).await).then_some(())
    })
    .await;
    assert!(!would_get_one(cluster, MESH, &pod("left", &[], &application("left"))).await);
    cluster.run("kubectl", &["create", "-f", "-"], &kept).await.unwrap();
    eventually("the injector to have mended it", async || would_get_one(cluster, MESH, &asking()).await.then_some(()))
        .await;
}
