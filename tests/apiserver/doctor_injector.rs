//! `floodway doctor` and the injector: its pods, its webhook and whether API servers believe it, its rights, and pods that ask for a
//! sidecar. In a control plane of its own, because labels of namespaces are everybody's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams};
use rcgen::date_time_ymd;
use serde_json::{Value, json};

use crate::control_plane::{ADMIN, ControlPlane};
use crate::doctor::{Said, doctor, signed};
use crate::helm::render;
use crate::objects::{api_of, apply};

const VALUES: &str = "{injector: {enabled: true}, sidecar: {namespaces: [shop]}, tests: {enabled: false}}";
const NAME: &str = "floodway-injector-edge";

/// A cluster with everything that the chart makes in `edge`, as far as there are controllers in these tests.
struct Cluster {
    plane: ControlPlane,
    client: Client,
    objects: Vec<Value>,
}

impl Cluster {
    async fn new() -> Cluster {
        let plane = ControlPlane::start().await;
        let client = plane.client(ADMIN).await;
        let cluster = Cluster { plane, client, objects: render(VALUES, &[]).unwrap() };
        for (name, labels) in
            [("edge", json!({})), ("shop", json!({"floodway.dev/injection": "enabled"})), ("deaf", json!({}))]
        {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
            apply(&cluster.client, None, &namespace).await;
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
            apply(&cluster.client, Some(name), &account).await;
        }
        for object in &cluster.objects {
            if object["kind"] != "MutatingWebhookConfiguration" {
                cluster.put(object).await;
            }
            if object["kind"] == "Deployment" {
                let ready = json!({"status": {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "updatedReplicas": 2}});
                let name = object["metadata"]["name"].as_str().unwrap();
                let api = api_of(&cluster.client, Some("edge"), object);
                api.patch_status(name, &PatchParams::default(), &Patch::Merge(&ready)).await.unwrap();
            }
        }
        cluster
    }

    async fn put(&self, object: &Value) {
        apply(&self.client, object["metadata"]["namespace"].as_str(), object).await;
    }

    fn of_chart(&self, kind: &str, name: &str) -> &Value {
        self.objects.iter().find(|it| it["kind"] == kind && it["metadata"]["name"] == name).unwrap()
    }

    async fn take_away(&self, object: &Value) {
        let api = api_of(&self.client, object["metadata"]["namespace"].as_str(), object);
        let now = DeleteParams::default().grace_period(0);
        api.delete(object["metadata"]["name"].as_str().unwrap(), &now).await.unwrap();
    }

    /// Has the injector's Secret hold a certificate, and API servers trust an authority.
    async fn trust(&self, certificate: &str, authority: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "floodway-injector-certificate", "namespace": "edge"},
            "stringData": {"tls.crt": certificate, "tls.key": "of no interest"},
        });
        self.put(&secret).await;
        self.webhook("replace", "clientConfig/caBundle", json!(STANDARD.encode(authority))).await;
    }

    async fn webhook(&self, how: &str, field: &str, value: Value) {
        let patch = json!([{"op": how, "path": format!("/webhooks/0/{field}"), "value": value}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
        let webhook = self.of_chart("MutatingWebhookConfiguration", NAME);
        api_of(&self.client, None, webhook).patch(NAME, &PatchParams::default(), &patch).await.unwrap();
    }

    /// A pod of a Deployment with these annotations, and with a sidecar of an image.
    async fn pod(&self, namespace: &str, of: &str, annotations: &[(&str, &str)], sidecar: Option<&str>) -> Value {
        let annotations =
            annotations.iter().map(|(name, value)| (format!("sidecar.floodway.dev/{name}"), json!(value)));
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{of}-5d8f-x"), "namespace": namespace, "labels": {"pod-template-hash": "5d8f"},
                "annotations": Value::Object(annotations.collect()),
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{of}-5d8f"), "uid": of}],
            },
            "spec": {"containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 8080}]}]},
        });
        if let Some(image) = sidecar {
            pod["spec"]["initContainers"] =
                json!([{"name": "floodway-sidecar", "image": image, "restartPolicy": "Always"}]);
        }
        self.put(&pod).await;
        pod
    }

    fn ask(&self) -> Said {
        doctor(&self.plane, ADMIN, &["-n", "edge"])
    }
}

const ASKS: (&str, &str) = ("inject", "true");

#[tokio::test]
async fn injector_and_sidecars_are_looked_at() {
    let cluster = Cluster::new().await;
    let image = format!("floodway:{}", env!("CARGO_PKG_VERSION"));

    // The webhook is not there yet.
    let said = cluster.ask();
    said.fails_for(&["injector"]);
    said.has(
        "injector",
        "FAIL",
        &format!("MutatingWebhookConfiguration {NAME}: it does not exist, so no pod gets a sidecar"),
    );

    // Before API servers ask about pods: nobody answers here.
    let lost = cluster.pod("shop", "lost", &[ASKS], None).await;
    let typed = cluster.pod("shop", "typed", &[ASKS, ("polices", "signed-in")], None).await;
    let deaf = cluster.pod("deaf", "deaf", &[ASKS], None).await;
    let old = cluster.pod("shop", "old", &[ASKS], Some("floodway:0.0.9")).await;
    cluster.pod("shop", "fine", &[ASKS], Some(&image)).await;
    cluster.pod("shop", "silent", &[], None).await;
    cluster.put(cluster.of_chart("MutatingWebhookConfiguration", NAME)).await;
    let said = cluster.ask();
    said.fails_for(&["injector", "sidecars"]);
    said.has("injector", "FAIL", "its caBundle has no authority: API servers do not believe the injector");
    said.advises("its caBundle has no authority", "the log of its pods");

    cluster.webhook("add", "clientConfig/caBundle", json!("")).await;
    let host = "floodway-injector.edge.svc";
    let good = signed(&[host], |it| it.not_after = date_time_ymd(2900, 1, 1));
    cluster.trust(&good.certificate, &good.ca).await;
    let said = cluster.ask();
    said.fails_for(&["sidecars"]);
    said.has("injector", "OK", "Deployment edge/floodway-injector: 2 of 2 pods ready");
    said.has(
        "injector",
        "OK",
        "failurePolicy Ignore: while no injector answers, pods that ask for a sidecar start without one",
    );
    said.has(
        "injector",
        "OK",
        "the certificate of the webhook is good until 2900-01-01T00:00:00Z, and API servers trust it",
    );
    said.has("rights", "OK", "service account edge/floodway-injector: it has all 9 rights that the injector needs");
    said.has("sidecars", "FAIL", "Namespace shop: 1 pod asks for a sidecar and has none, from before the label or while no injector answered: lost-5d8f-x");
    said.advises("1 pod asks for a sidecar and has none", "kubectl -n shop rollout restart deployment/lost");
    said.has("sidecars", "FAIL", "did you mean sidecar.floodway.dev/policies?");
    said.has(
        "sidecars",
        "WARN",
        &format!("Namespace shop: 1 pod with a sidecar of floodway:0.0.9, and the injector gives {image}: old-5d8f-x"),
    );
    said.advises("with a sidecar of floodway:0.0.9", "kubectl -n shop rollout restart deployment/old");
    said.has("sidecars", "OK", "Namespace shop: 1 of 4 pods that ask for a sidecar have it");
    said.has(
        "sidecars",
        "FAIL",
        "Namespace deaf: it has no label floodway.dev/injection=enabled, and 1 pod asks for a sidecar: deaf-5d8f-x",
    );
    said.advises("it has no label", "kubectl label namespace deaf floodway.dev/injection=enabled");

    // As it should be.
    for pod in [&lost, &typed, &deaf, &old] {
        cluster.take_away(pod).await;
    }
    cluster.ask().fails_for(&[]);

    // Certificates that API servers do not take, or soon will not.
    let other = signed(&[host], |_| {});
    let late = signed(&[host], |it| it.not_after = date_time_ymd(2020, 1, 1));
    let elsewhere = signed(&["floodway-injector.chat.svc"], |_| {});
    for (certificate, authority, sentence) in [
        (
            &good.certificate,
            &other.ca,
            "its caBundle does not have the authority of Secret edge/floodway-injector-certificate",
        ),
        (&late.certificate, &late.ca, "the certificate of the webhook has expired, at 2020-01-01T00:00:00Z"),
        (&elsewhere.certificate, &elsewhere.ca, "the certificate of the webhook is not for floodway-injector.edge.svc"),
        (&"nonsense".to_owned(), &good.ca, "its tls.crt is no certificate"),
    ] {
        cluster.trust(certificate, authority).await;
        let said = cluster.ask();
        said.fails_for(&["injector"]);
        said.has("injector", "FAIL", sentence);
    }
    let near = jiff::Timestamp::now().as_second() + 20 * 86_400;
    let near = std::time::Duration::from_secs(near.try_into().unwrap());
    let near = signed(&[host], |it| it.not_after = date_time_ymd(1970, 1, 1) + near);
    cluster.trust(&near.certificate, &near.ca).await;
    let said = cluster.ask();
    said.fails_for(&[]);
    said.has("injector", "WARN", "and should have been renewed by now");
    cluster.trust(&good.certificate, &good.ca).await;

    // Where it leads, and what becomes of pods.
    cluster.webhook("replace", "clientConfig/service/name", json!("somebody")).await;
    cluster.webhook("replace", "failurePolicy", json!("Fail")).await;
    let said = cluster.ask();
    said.fails_for(&["injector"]);
    said.has("injector", "FAIL", "it leads to Service edge/somebody, and the injector's is edge/floodway-injector");
    said.has(
        "injector",
        "OK",
        "failurePolicy Fail: while no injector answers, pods that ask for a sidecar are refused",
    );
    cluster.webhook("replace", "clientConfig/service/name", json!("floodway-injector")).await;

    // Rights: its own, and those of sidecars.
    cluster.take_away(cluster.of_chart("ClusterRole", NAME)).await;
    cluster.take_away(cluster.of_chart("RoleBinding", "floodway-sidecar")).await;
    let mut said = cluster.ask();
    crate::objects::eventually("the rights to be known", async || {
        said = cluster.ask();
        (!said.of("sidecars", "FAIL").is_empty() && !said.of("rights", "FAIL").is_empty()).then_some(())
    })
    .await;
    said.fails_for(&["rights", "sidecars"]);
    said.has("rights", "FAIL", &format!("service account edge/floodway-injector: it may not get mutatingwebhookconfigurations.admissionregistration.k8s.io {NAME}; without this API servers do not trust it"));
    said.has("sidecars", "FAIL", "Namespace shop: its sidecars (service account default) may not list proxyroutes.floodway.dev in namespace shop and 9 more; without this nothing is balanced");
    said.advises("its sidecars (service account default) may not", "add shop to sidecar.namespaces of the chart");
    cluster.put(cluster.of_chart("ClusterRole", NAME)).await;
    cluster.put(cluster.of_chart("RoleBinding", "floodway-sidecar")).await;

    // One pod is not enough, and an injector that went leaves a webhook behind.
    let deployment = cluster.of_chart("Deployment", "floodway-injector");
    let mut single = deployment.clone();
    single["spec"]["replicas"] = json!(1);
    cluster.put(&single).await;
    cluster.ask().has("injector", "WARN", "it has 1 pod: whenever that one goes, nobody answers");
    cluster.take_away(deployment).await;
    let said = cluster.ask();
    said.fails_for(&["injector"]);
    said.has("injector", "FAIL", "API servers ask an injector of this namespace, which is gone; failurePolicy Fail");
    said.advises("which is gone", &format!("kubectl delete mutatingwebhookconfiguration {NAME}"));
    cluster.take_away(cluster.of_chart("MutatingWebhookConfiguration", NAME)).await;
    let said = cluster.ask();
    said.fails_for(&[]);
    said.has(
        "sidecars",
        "WARN",
        "Namespace shop: it has the label floodway.dev/injection=enabled, and there is no injector",
    );
}
