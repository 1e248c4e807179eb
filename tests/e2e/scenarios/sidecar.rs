//! Pods that ask for a sidecar get one, in both modes; those that do not are left alone, whatever happens.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::{Cluster, RELEASE, SYSTEM, process, ready, restarts};
use crate::node::APP_IMAGE;
use crate::objects::eventually;

/// The namespace whose pods may ask.
pub(crate) const MESH: &str = "mesh";
const INJECTOR: &str = "floodway-injector";

/// The release with the injector, and a namespace with an application of three pods that nothing stands in front of.
async fn meshed(cluster: &Cluster) {
    cluster.staged().await;
    let set = format!("injector.enabled=true,sidecar.namespaces={{{MESH}}}");
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

fn pod(name: &str, annotations: &[(&str, &str)], spec: &Value) -> Value {
    let annotations: BTreeMap<String, &str> =
        annotations.iter().map(|(key, value)| (format!("sidecar.floodway.dev/{key}"), *value)).collect();
    let metadata = json!({"name": name, "labels": {"app": name}, "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn application(says: &str) -> Value {
    json!({"terminationGracePeriodSeconds": 5, "containers": [{
        "name": "app", "image": APP_IMAGE, "imagePullPolicy": "Never", "args": [says],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
    }]})
}

/// Makes a pod, and waits until it is ready.
async fn started(cluster: &Cluster, pod: Value) -> Pod {
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.apply(MESH, pod).await;
    eventually(&format!("pod {name} to be ready"), async || {
        cluster.pods(MESH, &format!("app={name}")).await.pop().filter(ready)
    })
    .await
}

fn has_sidecar(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref().unwrap();
    spec.init_containers.iter().flatten().any(|container| container.name == "floodway-sidecar")
}

/// The sum of a metric of a sidecar over series that have all of `labels`.
async fn metric(cluster: &Cluster, pod: &Pod, name: &str, labels: &[&str]) -> f64 {
    let (_, text) = cluster.ask(pod, 15190, "/metrics").await.unwrap();
    let series = text
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label)));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// What the application in a pod gets from `address` for `host`, asked through its sidecar.
async fn via(cluster: &Cluster, pod: &Pod, port: u16, address: &str, host: &str) -> Option<(u64, Value)> {
    let (status, body) = cluster.ask(pod, port, &format!("/via/{address}/{host}")).await?;
    let said: Value = serde_json::from_str(&body).ok()?;
    (status == 200).then(|| (said["status"].as_u64().unwrap_or_default(), said["said"].clone()))
}

fn resident(pod: &Pod) -> f64 {
    let id = process(pod, "floodway").expect("the sidecar runs");
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Local mode: no redirection and no privilege.
pub(crate) async fn a_local_sidecar_guards_the_port_and_balances(cluster: &Cluster) {
    meshed(cluster).await;
    let began = Instant::now();
    let open =
        started(cluster, pod("local", &[("inject", "true"), ("policies", "node-only")], &application("local"))).await;
    let took = began.elapsed().as_secs_f64();
    assert!(has_sidecar(&open));
    // Inbound: by the policy, and marked as having come through.
    let (status, body) = cluster.ask(&open, 15106, "/").await.unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("x-request-id"), "{body}");
    let shut = started(cluster, pod("shut", &[("inject", "true"), ("policies", "nobody")], &application("shut"))).await;
    let (status, body) = cluster.ask(&shut, 15106, "/").await.unwrap();
    assert_eq!(status, 403, "{body}");
    // Outbound: each request to any pod of the Service. Which one is by chance, so that a few requests may all miss one of them.
    let mut pods = std::collections::BTreeSet::new();
    for _ in 0..200 {
        if pods.len() == 3 {
            break;
        }
        let (status, said) = eventually("an answer through the sidecar", async || {
            via(cluster, &open, 8080, "127.0.0.1:15101", "plain").await.filter(|(status, _)| *status == 200)
        })
        .await;
        assert_eq!((status, &said["name"]), (200, &json!("plain")));
        pods.insert(said["pod"].to_string());
    }
    assert_eq!(pods.len(), 3, "{pods:?}");
    let unknown = via(cluster, &open, 8080, "127.0.0.1:15101", "nowhere").await.unwrap();
    assert_eq!(unknown.0, 404, "{unknown:?}");
    cluster.figures.add("From a pod with a sidecar asked for to it being ready", format!("{took:.1} s"));
    cluster.figures.add("Resident memory of a sidecar", format!("{:.1} MiB", resident(&open)));
    removed(cluster, &["local", "shut"]).await;
}

/// Transparent mode: what comes and what goes is captured; the kubelet's probes pass all the same.
pub(crate) async fn a_transparent_sidecar_captures_and_probes_pass(cluster: &Cluster) {
    meshed(cluster).await;
    let annotations = |policy| [("inject", "true"), ("mode", "transparent"), ("policies", policy)];
    let open = started(cluster, pod("open", &annotations("node-only"), &application("open"))).await;
    // Ready although nobody may come in: probes go another way.
    let shut = started(cluster, pod("closed", &annotations("nobody"), &application("closed"))).await;
    let (status, body) = cluster.ask(&shut, 8080, "/").await.unwrap();
    assert_eq!(status, 403, "{body}");
    let (status, body) = cluster.ask(&open, 8080, "/").await.unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("x-request-id"), "{body}");

    // The application asks a Service by its name, and knows nothing of a sidecar.
    let mut pods = std::collections::BTreeSet::new();
    for _ in 0..200 {
        if pods.len() == 3 {
            break;
        }
        let (_, said) = eventually("an answer through the sidecar", async || {
            via(cluster, &open, 8080, "plain:80", "plain").await.filter(|(status, _)| *status == 200)
        })
        .await;
        assert!(said["headers"]["x-request-id"].is_string(), "it did not come through: {said}");
        pods.insert(said["pod"].to_string());
    }
    assert_eq!(pods.len(), 3, "{pods:?}");
    assert!(metric(cluster, &open, "floodway_requests_total", &["outbound"]).await >= 3.0);
    // What no route or upstream names passes untouched.
    let address = format!("web.{}.svc.cluster.local:80", crate::cluster::SHOP);
    let (status, said) = via(cluster, &open, 8080, &address, "web").await.unwrap();
    assert_eq!((status, &said["name"]), (200, &json!("one")));
    assert!(said["headers"].get("x-request-id").is_none(), "{said}");
    for pod in [&open, &shut] {
        assert_eq!(restarts(pod), 0);
    }
    cluster.figures.add("Resident memory of a transparent sidecar", format!("{:.1} MiB", resident(&open)));
    removed(cluster, &["open", "closed"]).await;
}

/// The sidecar of a Job ends when the Job is done.
pub(crate) async fn a_job_with_a_sidecar_finishes(cluster: &Cluster) {
    meshed(cluster).await;
    for (name, mode, address) in
        [("job-local", "local", "127.0.0.1:15101"), ("job-transparent", "transparent", "plain:80")]
    {
        let spec = json!({"restartPolicy": "Never", "containers": [{
            "name": "app", "image": APP_IMAGE, "imagePullPolicy": "Never", "args": ["get", address, "plain"],
        }]});
        let template = pod(name, &[("inject", "true"), ("mode", mode)], &spec);
        let template = json!({"metadata": template["metadata"], "spec": template["spec"]});
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": template}});
        cluster.apply(MESH, job).await;
        let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), MESH);
        eventually("the Job to be done", async || {
            let status = jobs.get(name).await.ok()?.status?;
            assert_eq!(status.failed.unwrap_or_default(), 0, "{name} failed: {status:?}");
            (status.succeeded == Some(1)).then_some(())
        })
        .await;
        let done = cluster.pods(MESH, &format!("app={name}")).await.remove(0);
        assert!(has_sidecar(&done));
        cluster.kubectl(&["-n", MESH, "delete", "job", name]).await;
    }
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

async fn removed(cluster: &Cluster, names: &[&str]) {
    cluster.kubectl(&[&["-n", MESH, "delete", "pod", "--grace-period=1"], names].concat()).await;
}
