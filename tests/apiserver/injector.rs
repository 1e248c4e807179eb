//! The injector as the chart installs it, asked by a real API server: pods get the sidecar, or their sentence, or nothing; the
//! certificate is agreed on, renewed, and comes back.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::control_plane::{ADMIN, ControlPlane, INJECTOR, free_port, shared};
use crate::guarded::Guarded;
use crate::helm::render;
use crate::http1::get;
use crate::objects::{api_of, apply, create_namespace, eventually};

/// A pod of the injector.
struct Replica {
    process: Guarded,
    webhook: SocketAddr,
    admin: SocketAddr,
}

/// An installation of its own: its namespace, and the namespace of its apps.
struct Installed<'a> {
    plane: &'a ControlPlane,
    client: Client,
    namespace: String,
    apps: String,
}

/// What the chart makes in `namespace`.
fn rendered(namespace: &str, values: &str) -> Vec<Value> {
    let values = format!("injector: {{enabled: true, {values}}}\ntests: {{enabled: false}}");
    let objects = render(&values, &["--show-only", "templates/injector.yaml", "--namespace", namespace]).unwrap();
    assert!(objects.len() > 8, "{} objects", objects.len());
    objects
}

impl Installed<'_> {
    async fn new(values: &str) -> Installed<'static> {
        let plane = shared().await;
        let client = plane.client(ADMIN).await;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let (namespace, apps) = (format!("injector-{unique}"), format!("injected-{unique}"));
        create_namespace(&client, &namespace).await;
        // Of all installations the namespaces are marked; each is told apart by a label of its own.
        let labels = json!({"floodway.dev/injection": "enabled", "of": namespace});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": apps, "labels": labels}});
        apply(&client, None, &object).await;
        // No controller makes this one here.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        apply(&client, Some(&apps), &account).await;
        let installed = Installed { plane, client, namespace, apps };
        for mut object in rendered(&installed.namespace, values) {
            match object["kind"].as_str().unwrap() {
                "Deployment" | "PodDisruptionBudget" | "ConfigMap" => continue,
                // The user of the tests is who the pods are otherwise.
                "RoleBinding" | "ClusterRoleBinding" => {
                    object["subjects"] =
                        json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": INJECTOR}]);
                }
                // Nothing routes the addresses of Services here: this one leads to the loopback of the test.
                "Service" => object["spec"] = json!({"type": "ExternalName", "externalName": "127.0.0.1"}),
                "MutatingWebhookConfiguration" => installed.narrow(&mut object, 1),
                _ => {}
            }
            let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
            apply(&installed.client, namespace.as_deref(), &object).await;
        }
        installed
    }

    /// Leads the webhook to a port, and to the pods of this installation alone.
    fn narrow(&self, object: &mut Value, port: u16) {
        object["webhooks"][0]["clientConfig"]["service"]["port"] = port.into();
        let chosen = object["webhooks"][0]["namespaceSelector"]["matchExpressions"].as_array_mut().unwrap();
        chosen.push(json!({"key": "of", "operator": "In", "values": [self.namespace]}));
    }

    fn configuration(&self) -> String {
        format!("floodway-injector-{}", self.namespace)
    }

    fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn secret(&self) -> Option<Secret> {
        self.secrets().get_opt("floodway-injector-certificate").await.unwrap()
    }

    async fn bundle(&self) -> Vec<u8> {
        let configuration = self.configurations().get(&self.configuration()).await.unwrap();
        let webhook = configuration.webhooks.unwrap().remove(0);
        webhook.client_config.ca_bundle.map(|bundle| bundle.0).unwrap_or_default()
    }

    /// Starts a pod, with the arguments of the chart.
    fn start(&self, more: &[&str]) -> Replica {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("injector-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let objects = rendered(&self.namespace, "replicas: 2");
        let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        let template = self.plane.path(&format!("{name}.yaml"));
        std::fs::write(&template, of_kind("ConfigMap")["data"]["template.yaml"].as_str().unwrap()).unwrap();
        let webhook = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let arguments = of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
        let mut command = Command::new(crate::program());
        for argument in arguments.iter().map(|argument| argument.as_str().unwrap()) {
            let flag = argument.split('=').next().unwrap();
            match flag {
                _ if more.iter().any(|more| more.starts_with(flag) && flag.starts_with("--")) => {}
                "--template" => drop(command.arg(format!("--template={}", template.display()))),
                "--listen" => drop(command.arg(format!("--listen={webhook}"))),
                "--admin" => drop(command.arg(format!("--admin={admin}"))),
                _ => drop(command.arg(argument)),
            }
        }
        command.args(more).arg("--drain-delay=0s");
        command
            .env("KUBECONFIG", self.plane.kubeconfig(INJECTOR))
            .env("POD_NAME", &name)
            .env("POD_NAMESPACE", &self.namespace);
        let process = Guarded::spawn(&command, &self.plane.path(&format!("{name}.log")), None);
        Replica { process, webhook, admin }
    }

    /// Starts a pod, and waits until it is ready.
    async fn ready(&self, more: &[&str]) -> Replica {
        let replica = self.start(more);
        replica.is_ready().await;
        replica
    }

    /// Leads the Service to a pod.
    async fn lead_to(&self, replica: &Replica) {
        let port = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": replica.webhook.port()}]);
        let patch = Patch::Json::<()>(serde_json::from_value(port).unwrap());
        self.configurations().patch(&self.configuration(), &PatchParams::default(), &patch).await.unwrap();
    }

    /// Creates a pod, and shows what came of it.
    async fn create(&self, annotations: Value) -> Result<Value, String> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-", "annotations": annotations},
            "spec": {"containers": [{
                "name": "app", "image": "app", "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            }]},
        });
        let created = api_of(&self.client, Some(&self.apps), &pod)
            .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await;
        created.map(|pod| serde_json::to_value(pod).unwrap()).map_err(|error| error.to_string())
    }

    /// Waits until pods that ask get the sidecar: API servers learn of another authority with a delay.
    async fn injects(&self) -> Value {
        eventually("a pod with the sidecar", async || {
            let pod = self.create(asks(&[])).await.unwrap();
            has_sidecar(&pod).then_some(pod)
        })
        .await
    }
}

impl Replica {
    async fn is_ready(&self) {
        eventually("the injector to be ready", async || {
            assert!(self.process.alive(), "it ended:\n{}", self.process.output());
            let (status, _) = get(self.admin, "admin", "/readyz").await.ok()?;
            status.is_success().then_some(())
        })
        .await;
    }

    async fn metric(&self, line: &str) -> Option<f64> {
        let (_, text) = get(self.admin, "admin", "/metrics").await.ok()?;
        text.lines().find_map(|shown| shown.strip_prefix(line)?.trim().parse().ok())
    }

    /// The certificate that is served, whoever signed it.
    async fn certificate(&self, trusted: &[u8], name: &str) -> Option<Vec<u8>> {
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(trusted) {
            roots.add(root.unwrap()).unwrap();
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.webhook).await.ok()?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
    }
}

fn asks(more: &[(&str, &str)]) -> Value {
    let mut all = serde_json::Map::from_iter([("sidecar.floodway.dev/inject".to_owned(), json!("true"))]);
    all.extend(more.iter().map(|(name, value)| (format!("sidecar.floodway.dev/{name}"), json!(value))));
    Value::Object(all)
}

fn has_sidecar(pod: &Value) -> bool {
    let init = pod["spec"]["initContainers"].as_array();
    init.is_some_and(|all| all.iter().any(|container| container["name"] == "floodway-sidecar"))
}

#[tokio::test]
async fn pods_that_ask_get_the_sidecar_and_others_are_not_concerned() {
    let installed = Installed::new("").await;
    // Before any injector runs, nobody is kept out.
    assert!(!has_sidecar(&installed.create(json!({})).await.unwrap()));
    assert!(!has_sidecar(&installed.create(asks(&[])).await.unwrap()), "fail-open");

    let replica = installed.ready(&[]).await;
    installed.lead_to(&replica).await;
    let pod = installed.injects().await;
    let init = pod["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(init.len(), 1);
    assert_eq!(init[0]["restartPolicy"], "Always");
    assert_eq!(pod["metadata"]["annotations"]["sidecar.floodway.dev/status"], "injected");
    // Its own token, and not that of the pod twice.
    let mounts = init[0]["volumeMounts"].as_array().unwrap();
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    assert_eq!(mounts[0]["name"], "floodway-api-access");

    let before = replica.metric("floodway_injections_total{result=\"injected\"}").await.unwrap();
    let pod = installed.create(json!({})).await.unwrap();
    assert!(!has_sidecar(&pod) && pod["metadata"]["annotations"].is_null());
    let pod = installed
        .create(json!({"sidecar.floodway.dev/inject": "false", "sidecar.floodway.dev/mode": "x"}))
        .await
        .unwrap();
    assert!(!has_sidecar(&pod));
    assert_eq!(
        replica.metric("floodway_injections_total{result=\"skipped\"}").await,
        Some(0.0),
        "nobody asked about them"
    );
    assert_eq!(replica.metric("floodway_injections_total{result=\"injected\"}").await, Some(before));

    let refused = installed.create(asks(&[("polices", "signed-in")])).await.unwrap_err();
    assert!(refused.contains("did you mean sidecar.floodway.dev/policies?"), "{refused}");
    assert_eq!(replica.metric("floodway_injections_total{result=\"refused\"}").await, Some(1.0));

    // Both modes, with everything that may be asked for, are pods that the API server takes.
    let more = [
        ("policies", "signed-in"),
        ("tls-secret", "app-tls"),
        ("client-ca-secret", "clients"),
        ("memory-limit", "96Mi"),
    ];
    let pod = installed.create(asks(&more)).await.unwrap();
    let probe = &pod["spec"]["containers"][0]["readinessProbe"]["httpGet"];
    assert_eq!((&probe["path"], &probe["port"]), (&json!("/probe/app/readiness"), &json!(15190)));
    let transparent = [("mode", "transparent"), ("exclude-outbound-addresses", "10.0.0.0/8")];
    let pod = installed.create(asks(&transparent)).await.unwrap();
    assert_eq!(pod["spec"]["initContainers"][0]["name"], "floodway-capture");
    assert_eq!(pod["spec"]["initContainers"][1]["name"], "floodway-sidecar");

    // Gone again: who asks is let in without, who does not is not concerned.
    replica.process.signal("TERM");
    assert!(replica.process.ended(Duration::from_secs(15)).await, "{}", replica.process.output());
    assert!(!has_sidecar(&installed.create(asks(&[])).await.unwrap()));
    assert!(!has_sidecar(&installed.create(json!({})).await.unwrap()));
}

/// With the strictest policies in force: on the webhook, and on the pods.
#[tokio::test]
async fn a_failure_that_is_closed_keeps_out_only_who_asks_and_restricted_pods_stay_so() {
    let installed = Installed::new("failurePolicy: Fail").await;
    let refused = installed.create(asks(&[])).await.unwrap_err();
    assert!(refused.contains("failed calling webhook"), "{refused}");
    assert!(installed.create(json!({})).await.is_ok(), "who does not ask is not concerned");

    let replica = installed.ready(&[]).await;
    installed.lead_to(&replica).await;
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(installed.client.clone());
    namespaces.patch(&installed.apps, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    let create = async |annotations: Value| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-", "annotations": annotations},
            "spec": {
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "app", "image": "app",
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        let api = api_of(&installed.client, Some(&installed.apps), &pod);
        api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .map_err(|error| error.to_string())
    };
    eventually("a restricted pod with the sidecar", async || match create(asks(&[])).await {
        Ok(pod) => has_sidecar(&serde_json::to_value(pod).unwrap()).then_some(()),
        Err(refused) => {
            // The API server does not know the authority yet.
            assert!(refused.contains("failed calling webhook"), "{refused}");
            None
        }
    })
    .await;
    assert!(create(asks(&[])).await.is_ok());
    let refused = create(asks(&[("mode", "transparent")])).await.unwrap_err();
    assert!(refused.contains("NET_ADMIN") && refused.contains("floodway-capture"), "{refused}");
}

#[tokio::test]
async fn replicas_agree_and_what_is_deleted_or_overwritten_comes_back() {
    let installed = Installed::new("").await;
    // At the same time, so that both would make one.
    let (one, other) = (installed.start(&[]), installed.start(&[]));
    one.is_ready().await;
    other.is_ready().await;
    let name = format!("floodway-injector.{}.svc", installed.namespace);
    let bundle = installed.bundle().await;
    let certificate = one.certificate(&bundle, &name).await.unwrap();
    assert_eq!(other.certificate(&bundle, &name).await.as_ref(), Some(&certificate), "one certificate for both");
    for replica in [&one, &other] {
        installed.lead_to(replica).await;
        installed.injects().await;
        let metric = format!(
            "floodway_certificate_expiry_seconds{{secret=\"{}/floodway-injector-certificate\"}}",
            installed.namespace
        );
        let expires = replica.metric(&metric).await.unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(expires > now + 80.0 * 86_400.0 && expires < now + 91.0 * 86_400.0, "{expires}");
        assert!(!replica.process.output().contains("PRIVATE KEY"));
    }

    // What is served goes on to be, and is put back.
    let before = installed.secret().await.unwrap();
    installed.secrets().delete("floodway-injector-certificate", &DeleteParams::default()).await.unwrap();
    let back = eventually("the Secret", async || installed.secret().await).await;
    assert_ne!(back.metadata.uid, before.metadata.uid);
    assert_eq!(back.data, before.data);

    // So it is if somebody writes nonsense into it.
    let nonsense = json!({"data": {"tls.key": "bm9uc2Vuc2U="}});
    installed
        .secrets()
        .patch("floodway-injector-certificate", &PatchParams::default(), &Patch::Merge(nonsense))
        .await
        .unwrap();
    eventually("the key", async || (installed.secret().await?.data == before.data).then_some(())).await;

    // And if somebody tells API servers to trust another authority, or nobody.
    let other_authority = String::from_utf8(bundle.clone()).unwrap().replace("MII", "MIJ");
    for wrong in [k8s_openapi::ByteString(other_authority.into_bytes()), k8s_openapi::ByteString(Vec::new())] {
        let overwritten = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": wrong}]);
        let patch = Patch::Json::<()>(serde_json::from_value(overwritten).unwrap());
        let written =
            installed.configurations().patch(&installed.configuration(), &PatchParams::default(), &patch).await;
        if written.is_err() {
            // The API server itself does not take what is no certificate.
            continue;
        }
        eventually("the authority", async || (installed.bundle().await == bundle).then_some(())).await;
    }
    installed.injects().await;
    assert_eq!(one.certificate(&bundle, &name).await, Some(certificate), "nothing was made anew");
}

/// Certificates of half a minute: a pod is created again and again, and none of them misses its sidecar while the certificate changes twice.
#[tokio::test]
async fn certificates_change_while_pods_are_created() {
    let installed = Installed::new("").await;
    let short = ["--certificate-lifetime=30s"];
    let (one, other) = (installed.start(&short), installed.start(&short));
    one.is_ready().await;
    other.is_ready().await;
    installed.lead_to(&one).await;
    installed.injects().await;
    let served = async || installed.secret().await.and_then(|secret| secret.data?.get("tls.crt").cloned());
    let (mut last, mut changes, mut pods) = (served().await, 0, 0);
    let mut overlapped = false;
    let began = tokio::time::Instant::now();
    while changes < 2 {
        assert!(began.elapsed() < Duration::from_secs(90), "{changes} changes\n{}", one.process.output());
        let pod = installed.create(asks(&[])).await.unwrap();
        assert!(has_sidecar(&pod), "pod {pods} after {changes} changes\n{}", one.process.output());
        pods += 1;
        overlapped |= installed.bundle().await.windows(5).filter(|window| window == b"BEGIN").count() > 1;
        let now = served().await;
        changes += i32::from(now != last);
        last = now;
    }
    assert!(pods > 10 && overlapped, "{pods} pods");
    // The other one serves the same.
    let name = format!("floodway-injector.{}.svc", installed.namespace);
    eventually("the same certificate", async || {
        let bundle = installed.bundle().await;
        let (one, other) = (one.certificate(&bundle, &name).await?, other.certificate(&bundle, &name).await?);
        (one == other).then_some(())
    })
    .await;
}

/// Helm has all fields of the webhook configuration but one, and leaves that one alone.
#[tokio::test]
async fn an_upgrade_by_helm_leaves_the_authority() {
    // Of its own: nothing leads to this webhook, and API servers would wait for it with the pods of other tests.
    let plane = ControlPlane::start().await;
    let kubeconfig = plane.kubeconfig(ADMIN);
    let run = |arguments: &[&str]| {
        let mut all = vec!["--kubeconfig", kubeconfig.to_str().unwrap(), "--namespace", "helm-injector"];
        all.extend(arguments);
        crate::helm::helm(&all).unwrap_or_else(|said| panic!("{arguments:?}: {said}"))
    };
    run(&[
        "install",
        "floodway-h",
        "charts/floodway",
        "--create-namespace",
        "--skip-crds",
        "--set",
        "injector.enabled=true",
    ]);
    let client = plane.client(ADMIN).await;
    let installed =
        Installed { plane: &plane, client, namespace: "helm-injector".to_owned(), apps: "nobody".to_owned() };
    let name = "floodway-h-injector-helm-injector";
    let configurations = installed.configurations();
    let bundle = async || {
        let configuration = configurations.get(name).await.unwrap();
        configuration.webhooks.unwrap().remove(0).client_config.ca_bundle.map(|bundle| bundle.0).unwrap_or_default()
    };
    assert!(bundle().await.is_empty(), "the chart says nothing of it");
    let grant = json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": INJECTOR}]);
    for (kind, binding, of) in
        [("RoleBinding", "floodway-h-injector", Some("helm-injector")), ("ClusterRoleBinding", name, None)]
    {
        let object = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": format!("{binding}-test")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind.trim_end_matches("Binding"), "name": binding},
            "subjects": grant,
        });
        apply(&installed.client, of, &object).await;
    }
    let _replica = installed
        .ready(&[
            "--service=floodway-h-injector",
            "--secret=floodway-h-injector-certificate",
            "--configuration=floodway-h-injector-helm-injector",
        ])
        .await;
    let before = bundle().await;
    assert!(!before.is_empty());
    run(&[
        "upgrade",
        "floodway-h",
        "charts/floodway",
        "--reset-then-reuse-values",
        "--set",
        "injector.timeoutSeconds=7",
    ]);
    let configuration = configurations.get(name).await.unwrap();
    assert_eq!(configuration.webhooks.unwrap()[0].timeout_seconds, Some(7));
    assert_eq!(bundle().await, before);
    run(&["uninstall", "floodway-h"]);
    assert!(configurations.get_opt(name).await.unwrap().is_none());
}
