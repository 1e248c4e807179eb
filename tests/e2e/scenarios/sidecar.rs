//! Pods with a sidecar, in both modes: what comes is guarded, what goes is balanced, and nobody is in the way of a start or an end.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::mesh::{ADMIN, INBOUND, MESH, OUTBOUND, application, has_sidecar, meshed, pod, removed, started, via};
use crate::cluster::{Cluster, SHOP, eventually};
use crate::node::APP_IMAGE;
use crate::pods::{memory, restarts, time_to_start, watch};

/// The sum of a metric of a sidecar over series that have all of `labels`.
async fn metric(cluster: &Cluster, pod: &Pod, name: &str, labels: &[&str]) -> f64 {
    let (_, text) = cluster.ask(pod, 15190, "/metrics").await.unwrap();
    let series = text
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label)));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
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
    let (status, body) = cluster.ask(&open, INBOUND, "/").await.unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("x-request-id"), "{body}");
    let shut = started(cluster, pod("shut", &[("inject", "true"), ("policies", "nobody")], &application("shut"))).await;
    let (status, body) = cluster.ask(&shut, INBOUND, "/").await.unwrap();
    assert_eq!(status, 403, "{body}");
    // Outbound: each request to any pod of the Service. Which one is by chance, so that a few requests may all miss one of them.
    let mut pods = BTreeSet::new();
    for _ in 0..200 {
        if pods.len() == 3 {
            break;
        }
        let (status, said) = eventually("an answer through the sidecar", async || {
            via(cluster, &open, 8080, OUTBOUND, "plain").await.filter(|(status, _)| *status == 200)
        })
        .await;
        assert_eq!((status, &said["name"]), (200, &json!("plain")));
        pods.insert(said["pod"].to_string());
    }
    assert_eq!(pods.len(), 3, "{pods:?}");
    let unknown = via(cluster, &open, 8080, OUTBOUND, "nowhere").await.unwrap();
    assert_eq!(unknown.0, 404, "{unknown:?}");
    cluster.figures.add("From a pod with a sidecar being made to it being ready", format!("{took:.1} s"));
    cluster.figures.add("Resident memory of a sidecar", memory(&open));

    // Killed, it comes back, and the app does not notice more than that.
    let took = time_to_start(cluster, &open, ADMIN).await;
    let (status, body) = eventually("it to serve again", async || cluster.ask(&open, INBOUND, "/").await).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(restarts(&cluster.pods(MESH, "app=local").await.remove(0)), 0);
    cluster.figures.add(
        "From the start of a sidecar's process to its first answer that it is ready",
        format!("{} ms", took.as_millis()),
    );
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
    let mut pods = BTreeSet::new();
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
    let address = format!("web.{}.svc.cluster.local:80", SHOP);
    let (status, said) = via(cluster, &open, 8080, &address, "web").await.unwrap();
    assert_eq!((status, &said["name"]), (200, &json!("one")));
    assert!(said["headers"].get("x-request-id").is_none(), "{said}");
    for pod in [&open, &shut] {
        assert_eq!(restarts(pod), 0);
    }
    cluster.figures.add("Resident memory of a transparent sidecar", memory(&open));
    removed(cluster, &["open", "closed"]).await;
}

/// The sidecar of a Job ends when the Job is done.
pub(crate) async fn a_job_with_a_sidecar_finishes(cluster: &Cluster) {
    meshed(cluster).await;
    for (name, mode, address) in [("job-local", "local", OUTBOUND), ("job-transparent", "transparent", "plain:80")] {
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

/// Told to end, the sidecar serves until the app has ended, whose last request is answered.
pub(crate) async fn a_sidecar_outlives_the_last_request_of_its_app(cluster: &Cluster) {
    meshed(cluster).await;
    let modes = [("last-local", "local", OUTBOUND), ("last-transparent", "transparent", "plain:80")];
    // How containers ended is told right before the pod is gone.
    let ends: Rc<RefCell<BTreeMap<String, i32>>> = Rc::default();
    let seen = Rc::clone(&ends);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), MESH);
    let _watching = watch(pods, "app in (last-local, last-transparent)", move |pod: Pod| {
        let statuses = pod.status.unwrap_or_default().container_statuses.unwrap_or_default();
        let ended = statuses.iter().find_map(|of| Some(of.state.as_ref()?.terminated.as_ref()?.exit_code));
        if let Some(code) = ended {
            seen.borrow_mut().insert(pod.metadata.name.unwrap_or_default(), code);
        }
    });
    for (name, mode, address) in modes {
        let spec = json!({"restartPolicy": "Never", "containers": [{
            "name": "app", "image": APP_IMAGE, "imagePullPolicy": "Never", "args": ["last", address, "plain"],
        }]});
        started(cluster, pod(name, &[("inject", "true"), ("mode", mode)], &spec)).await;
    }
    cluster.kubectl(&["-n", MESH, "delete", "pod", "--wait=false", "last-local", "last-transparent"]).await;
    eventually("both to have ended", async || (ends.borrow().len() == 2).then_some(())).await;
    assert!(ends.borrow().values().all(|code| *code == 0), "a last request was not answered: {ends:?}");
}

/// TLS with certificates on both sides, between two apps that know nothing of it.
pub(crate) async fn two_sidecars_speak_mutual_tls(cluster: &Cluster) {
    meshed(cluster).await;
    let secret = |name: &str, kind: &str, data: &Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": {"floodway.dev/use": "true"}}, "type": kind, "stringData": data});
    let (authority, [server, client]) = certificates(["guarded.mesh.svc", "caller.mesh.svc"]);
    cluster.apply(MESH, secret("authority", "Opaque", &json!({"ca.crt": authority}))).await;
    for (name, (certificate, key)) in [("server-tls", server), ("client-tls", client)] {
        let data = json!({"tls.crt": certificate, "tls.key": key});
        cluster.apply(MESH, secret(name, "kubernetes.io/tls", &data)).await;
    }
    let upstream = json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyUpstream", "metadata": {"name": "guarded"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "guarded"}],
            "tls": {"caSecretName": "authority", "clientCertificateSecretName": "client-tls"},
        },
    });
    cluster.apply(MESH, upstream).await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": INBOUND}]);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "guarded"}, "spec": {"selector": {"app": "guarded"}, "ports": ports}});
    cluster.apply(MESH, service).await;

    let demanding = [("inject", "true"), ("tls-secret", "server-tls"), ("client-ca-secret", "authority")];
    let guarded = started(cluster, pod("guarded", &demanding, &application("guarded"))).await;
    // It reads Secrets because it has a policy.
    let caller = [("inject", "true"), ("policies", "node-only")];
    let caller = started(cluster, pod("caller", &caller, &application("caller"))).await;
    let (_, said) = eventually("an answer by TLS", async || {
        via(cluster, &caller, 8080, OUTBOUND, "guarded").await.filter(|(status, _)| *status == 200)
    })
    .await;
    assert_eq!(said["name"], "guarded");
    // Nobody else gets in: not in cleartext, and not without a certificate.
    assert!(cluster.ask(&guarded, INBOUND, "/").await.is_none());
    let address = guarded.status.as_ref().unwrap().pod_ip.as_ref().unwrap();
    let url = format!("https://{address}:{INBOUND}/");
    let refused = cluster.run("curl", &["--silent", "--show-error", "--insecure", "--max-time", "5", &url], "").await;
    // A client of TLS 1.3 may learn of it while it sends its request; how it puts that differs.
    assert!(refused.as_ref().is_err_and(|said| !said.contains("Failed to connect")), "{refused:?}");
    removed(cluster, &["guarded", "caller"]).await;
    let objects =
        ["secret/authority", "secret/server-tls", "secret/client-tls", "service/guarded", "proxyupstream/guarded"];
    cluster.kubectl(&[&["-n", MESH, "delete"], &objects[..]].concat()).await;
}

/// An authority, and a certificate and key for each name that it has signed, for clients and servers.
fn certificates(names: [&str; 2]) -> (String, [(String, String); 2]) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let signed = names.map(|name| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    });
    (authority, signed)
}
