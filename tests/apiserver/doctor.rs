//! `floodway doctor` at a real API server: what is well, and each thing that may not be, with its place and its remedy.

use std::process::Command;

use floodway::app::RIGHTS;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::control_plane::{ADMIN, ControlPlane, FLOODWAY, PATIENT, free_port, shared};
use crate::gateway::{Gateway, Options};
use crate::objects::{api_of, apply, documents, eventually, grant_lease, grant_rules, namespace, responding};

/// What it said, and its exit code.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) report: Value,
    pub(crate) text: String,
}

impl Said {
    /// The messages of a check and level, with their places.
    pub(crate) fn of(&self, check: &str, level: &str) -> Vec<String> {
        let findings = self.report["findings"].as_array().cloned().unwrap_or_default();
        let wanted = findings.iter().filter(|it| it["check"] == check && it["level"] == level);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        wanted.map(|it| format!("{}: {}", text(&it["place"]), text(&it["message"]))).collect()
    }

    /// Fails unless a finding with this part has a remedy with that part.
    #[track_caller]
    pub(crate) fn advises(&self, message: &str, remedy: &str) {
        let findings = self.report["findings"].as_array().cloned().unwrap_or_default();
        let has = |value: &Value, part: &str| value.as_str().is_some_and(|text| text.contains(part));
        let there = findings.iter().any(|it| has(&it["message"], message) && has(&it["remedy"], remedy));
        assert!(there, "nothing says {message:?} and advises {remedy:?}:\n{}", self.text);
    }

    #[track_caller]
    pub(crate) fn has(&self, check: &str, level: &str, part: &str) {
        let there = self.of(check, level).iter().any(|message| message.contains(part));
        assert!(there, "no {level} of {check} says {part:?}:\n{}", self.text);
    }

    #[track_caller]
    pub(crate) fn fails_for(&self, checks: &[&str]) {
        let findings = self.report["findings"].as_array().unwrap();
        let mut failing: Vec<&str> =
            findings.iter().filter(|it| it["level"] == "FAIL").filter_map(|it| it["check"].as_str()).collect();
        failing.dedup();
        assert_eq!(failing, checks, "{}", self.text);
        assert_eq!(self.code, i32::from(!checks.is_empty()), "{}", self.text);
    }
}

/// Asks as a user.
pub(crate) fn doctor(plane: &ControlPlane, user: &str, arguments: &[&str]) -> Said {
    let kubeconfig = plane.kubeconfig(user);
    let mut all = vec!["--kubeconfig", kubeconfig.to_str().unwrap(), "--json"];
    all.extend(arguments);
    run(&all)
}

pub(crate) fn run(arguments: &[&str]) -> Said {
    let mut command = Command::new(crate::program());
    // Whatever this machine trusts, the certificates of these tests are not among it.
    let output = command.arg("doctor").args(arguments).env_remove("KUBERNETES_SERVICE_HOST").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_str(&text).unwrap_or_default();
    Said { code: output.status.code().unwrap(), report, text: text + &said }
}

/// A namespace of a test, and a settings file that names it.
pub(crate) struct Ward {
    plane: &'static ControlPlane,
    client: Client,
    namespace: String,
    settings: tempfile::NamedTempFile,
}

pub(crate) async fn ward(more: &str) -> Ward {
    let plane = shared().await;
    let client = plane.client(ADMIN).await;
    let namespace = namespace(&client).await;
    let settings = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(settings.path(), format!("watchNamespaces: [{namespace}]\n{more}")).unwrap();
    Ward { plane, client, namespace, settings }
}

impl Ward {
    async fn apply(&self, object: Value) {
        apply(&self.client, Some(&self.namespace), &object).await;
    }

    pub(crate) fn ask(&self, user: &str, more: &[&str]) -> Said {
        let mut all = vec!["--namespace", &self.namespace, "--config", self.settings.path().to_str().unwrap()];
        all.extend(more);
        doctor(self.plane, user, &all)
    }

    /// A Service whose slice has one endpoint, ready or not.
    async fn service(&self, name: &str, ready: bool) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        }))
        .await;
        self.apply(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": ready, "serving": ready}}],
        }))
        .await;
    }

    async fn route(&self, name: &str, spec: Value) {
        let route = json!({
            "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": name}, "spec": spec,
        });
        self.apply(route).await;
    }

    async fn secret(&self, name: &str, certificate: String, key: String) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate, "tls.key": key},
        }))
        .await;
    }
}

fn to(service: &str) -> Value {
    json!([{"backends": [{"service": {"name": service, "port": 80}}]}])
}

#[tokio::test]
async fn a_cluster_that_is_well_is_said_to_be() {
    let ward = ward("").await;
    ward.service("shop", true).await;
    ward.route("shop", json!({"hosts": ["shop.test"], "rules": to("shop")})).await;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "floodway-leader"},
        "spec": {"holderIdentity": "floodway-0", "leaseDurationSeconds": 15, "renewTime": "2999-01-01T00:00:00.000000Z"},
    });
    ward.apply(lease).await;
    let said = ward.ask(ADMIN, &[]);
    said.fails_for(&[]);
    said.has("apiServer", "OK", "Kubernetes v1.");
    for kind in ["proxyroutes", "proxyupstreams", "proxypolicies"] {
        said.has("definitions", "OK", &format!("{kind}.floodway.dev: v1alpha1 is served, with the fields and rules"));
    }
    said.has("installation", "WARN", "no Deployment or DaemonSet of Floodway is here");
    said.has("rights", "OK", "whoever asks: it has all ");
    said.has("lease", "OK", "floodway-0 holds it");
    said.has("objects", "OK", "ProxyRoute: 1 of 1 as their owners want it");
    said.has(
        "objects",
        "WARN",
        &format!("1 object without conditions of its present generation: ProxyRoute {}/shop", ward.namespace),
    );
    said.has("endpoints", "OK", "1 of 1 upstreams");
    let backend = format!("{}/shop:80", ward.namespace);
    let expected = json!([{"host": "shop.test", "tls": "none", "rules": [{
        "route": format!("{}/shop/0", ward.namespace), "matches": ["/*"],
        "backends": [{"name": backend, "weight": 1, "ready": 1, "endpoints": 1}],
    }]}]);
    assert_eq!(said.report["served"], expected);

    // As text, without colours, because this is no terminal.
    let kubeconfig = ward.plane.kubeconfig(ADMIN);
    let settings = ward.settings.path().to_str().unwrap();
    let text = run(&["--kubeconfig", kubeconfig.to_str().unwrap(), "-n", &ward.namespace, "--config", settings]);
    assert_eq!(text.code, 0);
    assert!(
        text.text.contains(&format!(
            "  shop.test\n    /*  {}/shop/0 -> {backend} (weight 1, 1 of 1 ready)\n",
            ward.namespace
        )),
        "{}",
        text.text
    );
    assert!(text.text.ends_with(" 0 failures\n") && !text.text.contains('\x1b'), "{}", text.text);
}

#[tokio::test]
async fn whoever_may_do_no_more_than_the_gateway_is_told_what_was_not_seen() {
    let ward = ward("").await;
    grant_lease(&ward.client, &ward.namespace).await;
    ward.service("shop", true).await;
    ward.route("shop", json!({"hosts": ["shop.test"], "rules": to("shop")})).await;
    let mut said = ward.ask(FLOODWAY, &[]);
    eventually("the rights to be known", async || {
        said = ward.ask(FLOODWAY, &[]);
        (said.code == 0).then_some(())
    })
    .await;
    said.has("definitions", "WARN", "proxyroutes.floodway.dev: v1alpha1 is served; whether its fields");
    said.has("installation", "WARN", "deployments could not be looked at");
    said.has("rights", "OK", "whoever asks: it has all ");
    assert_eq!(said.report["served"][0]["host"], "shop.test");
}

#[tokio::test]
async fn definitions_that_are_missing_older_or_newer_are_named() {
    let plane = ControlPlane::start().await;
    let client = plane.client(ADMIN).await;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let said = doctor(&plane, ADMIN, &[]);
    said.fails_for(&[]);

    let patch = async |name: &str, patch: Value| {
        let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
        crds.patch(name, &PatchParams::default(), &patch).await.unwrap();
    };
    const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let rule = format!("{SPEC}/rules/items/properties/policies");
    patch("proxyroutes.floodway.dev", json!([{"op": "remove", "path": rule}])).await;
    let said = doctor(&plane, ADMIN, &[]);
    said.fails_for(&["definitions"]);
    said.has(
        "definitions",
        "FAIL",
        "proxyroutes.floodway.dev: it is older than this program, and lacks spec.rules[].policies: ",
    );

    let field = json!({"type": "string", "maxLength": 9});
    patch("proxypolicies.floodway.dev", json!([{"op": "add", "path": format!("{SPEC}/tomorrow"), "value": field}]))
        .await;
    let bound = json!([{"op": "replace", "path": format!("{SPEC}/hosts/maxItems"), "value": 65}]);
    crds.delete("proxyroutes.floodway.dev", &DeleteParams::default()).await.unwrap();
    eventually("it to be gone", async || {
        crds.get_opt("proxyroutes.floodway.dev").await.unwrap().is_none().then_some(())
    })
    .await;
    let said = doctor(&plane, ADMIN, &[]);
    said.has("definitions", "WARN", "it is newer than this program, which does not know spec.tomorrow: ");
    said.has("definitions", "FAIL", "proxyroutes.floodway.dev: it is not installed");
    assert!(said.text.contains("floodway crd | kubectl apply --server-side"), "{}", said.text);

    for crd in crate::objects::files("crds") {
        apply(&client, None, &crd).await;
    }
    crate::objects::established(&client, "proxyroutes.floodway.dev").await;
    patch("proxyroutes.floodway.dev", bound).await;
    let said = doctor(&plane, ADMIN, &[]);
    said.has(
        "definitions",
        "WARN",
        "proxyroutes.floodway.dev: its fields are those of this program, but not the rules for spec.hosts",
    );
}

/// Each right of the table, taken away, is missed by name; with all of them nothing is.
#[tokio::test]
async fn each_missing_right_is_named() {
    let ward = ward("").await;
    let all: Vec<(&str, &str, &[&str], &str)> = RIGHTS
        .iter()
        .flat_map(|right| right.resources.iter().map(move |resource| (right, *resource)))
        .flat_map(|(right, resource)| right.verbs.iter().map(move |verb| (right.group, resource, right.names, *verb)))
        .collect();
    let rules = |without: Option<usize>| -> Vec<Value> {
        let kept = all.iter().enumerate().filter(|(at, _)| Some(*at) != without);
        let rules = kept.map(|(_, (group, resource, names, verb))| {
            let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            rule
        });
        rules.collect()
    };
    // Whether a route is served is another question.
    let asked = async |without: Option<usize>, done: &dyn Fn(&Said) -> bool| {
        grant_rules(&ward.client, PATIENT, Some(&ward.namespace), "patient", &rules(without)).await;
        let mut last = ward.ask(PATIENT, &[]);
        eventually("the rights to be known", async || {
            last = ward.ask(PATIENT, &[]);
            done(&last).then_some(())
        })
        .await;
        last
    };
    for (at, (group, resource, _, verb)) in all.iter().enumerate() {
        let dot = if group.is_empty() { "" } else { "." };
        let missing = format!("it may not {verb} {resource}{dot}{group}");
        let only = |said: &Said| {
            let missed = said.of("rights", "FAIL");
            missed.len() == 1 && missed[0].contains(&missing)
        };
        let said = asked(Some(at), &only).await;
        assert_eq!(said.code, 1);
        assert!(said.of("rights", "FAIL")[0].contains(&format!("in namespace {}", ward.namespace)), "{}", said.text);
    }
    let said = asked(None, &|said| said.of("rights", "FAIL").is_empty()).await;
    said.has("rights", "OK", &format!("it has all {} rights", all.len()));
    said.fails_for(&[]);
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_is_stale() {
    let ward = ward("").await;
    let said = ward.ask(ADMIN, &[]);
    said.has("lease", "OK", "there is none yet");
    let lease = |holder: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "floodway-leader"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2020-01-01T00:00:00.000000Z"},
        })
    };
    ward.apply(lease("floodway-0")).await;
    let said = ward.ask(ADMIN, &[]);
    said.has("lease", "WARN", "floodway-0 holds it and has not renewed it for ");
    ward.apply(lease("")).await;
    ward.ask(ADMIN, &[]).has("lease", "WARN", "nobody holds it");
}

/// An authority, and a certificate that it signed.
pub(crate) struct Signed {
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

pub(crate) fn signed(names: &[&str], change: impl Fn(&mut CertificateParams)) -> Signed {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    Signed { ca, certificate, key: key.serialize_pem() }
}

#[tokio::test]
async fn certificates_are_looked_at_as_clients_do() {
    let ward = ward("").await;
    let secured = async |name: &str| {
        let host = format!("{name}.test");
        let rules = json!([{"respond": {"status": 200}}]);
        ward.route(name, json!({"hosts": [host], "tls": {"secretName": name}, "rules": rules})).await;
    };
    for name in ["expired", "soon", "early", "other", "alone", "whole", "mixed", "mismatch", "missing"] {
        secured(name).await;
    }
    let put = async |name: &str, signed: &Signed, behind: &str| {
        ward.secret(name, format!("{}{behind}", signed.certificate), signed.key.clone()).await;
    };
    put("expired", &signed(&["expired.test"], |it| it.not_after = date_time_ymd(2020, 1, 1)), "").await;
    put("early", &signed(&["early.test"], |it| it.not_before = date_time_ymd(2900, 1, 1)), "").await;
    put("other", &signed(&["somebody-else.test"], |_| {}), "").await;
    put("alone", &signed(&["alone.test"], |_| {}), "").await;
    let whole = signed(&["whole.test"], |_| {});
    put("whole", &whole, &whole.ca).await;
    put("mixed", &signed(&["mixed.test"], |_| {}), &whole.ca).await;
    let mismatch = signed(&["mismatch.test"], |_| {});
    ward.secret("mismatch", mismatch.certificate.clone(), KeyPair::generate().unwrap().serialize_pem()).await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 9 + 1);
    let soon = soon.as_second();
    put(
        "soon",
        &signed(&["soon.test"], |it| {
            it.not_after = date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(soon.try_into().unwrap());
        }),
        "",
    )
    .await;

    let said = ward.ask(ADMIN, &[]);
    let place = |name: &str| format!("Secret {}/{name}: ", ward.namespace);
    said.has("certificates", "FAIL", &format!("{}it has expired, at 2020-01-01T00:00:00Z", place("expired")));
    said.has("certificates", "WARN", &format!("{}it expires in 9 days", place("soon")));
    said.has("objects", "WARN", "other.test");
    said.has("objects", "FAIL", "tls.key: is not the key of the first certificate");
    said.has("objects", "FAIL", "missing");
    // What this machine trusts decides what else can be said.
    said.has("certificates", "FAIL", &format!("{}the certificates behind it in tls.crt are not those", place("mixed")));
    assert!(!said.of("certificates", "FAIL").iter().any(|it| it.starts_with(&place("whole"))), "{}", said.text);
}

#[tokio::test]
async fn broken_references_and_empty_upstreams_are_told() {
    let ward = ward("").await;
    ward.service("tired", false).await;
    ward.apply(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty"}, "spec": {"ports": [{"port": 80}]},
    }))
    .await;
    ward.route("a-lost", json!({"hosts": ["lost.test"], "rules": to("nowhere")})).await;
    ward.route("b-tired", json!({"hosts": ["tired.test"], "rules": to("tired")})).await;
    ward.route("c-empty", json!({"hosts": ["empty.test"], "rules": to("empty")})).await;
    ward.route("d-theirs", json!({"className": "blue", "hosts": ["blue.test"], "rules": to("tired")})).await;
    ward.apply(responding("e-first", "both.test", "1")).await;
    ward.apply(responding("f-second", "both.test", "2")).await;
    let said = ward.ask(ADMIN, &[]);
    said.fails_for(&["objects", "endpoints"]);
    let namespace = &ward.namespace;
    said.has("objects", "FAIL", &format!("ProxyRoute {namespace}/a-lost: spec.rules[0].backends[0].service: Service {namespace}/nowhere does not exist (BackendNotFound)"));
    said.has("endpoints", "FAIL", &format!("{namespace}/tired:80: none of its 1 endpoints is ready"));
    said.has("endpoints", "FAIL", &format!("{namespace}/empty:80: it has no endpoints"));
    said.has(
        "objects",
        "WARN",
        &format!("className blue: 1 route of this class, which is left alone: {namespace}/d-theirs"),
    );
    said.has("objects", "WARN", "Conflicted)");
    let hosts: Vec<&str> =
        said.report["served"].as_array().unwrap().iter().filter_map(|host| host["host"].as_str()).collect();
    assert_eq!(hosts, ["both.test", "empty.test", "lost.test", "tired.test"]);
}

/// The manifests as people apply them: settings come from the ConfigMap, and the rights are those of the service account.
#[tokio::test]
async fn an_installation_is_looked_at_as_it_is() {
    let plane = shared().await;
    let client = plane.client(ADMIN).await;
    let namespace = "doctor-installed";
    let objects = documents(&include_str!("../../deploy/floodway.yaml").replace("floodway-system", namespace));
    for object in &objects {
        apply(&client, object["metadata"]["namespace"].as_str(), object).await;
    }
    let ask = |more: &[&str]| {
        let mut all = vec!["-n", namespace];
        all.extend(more);
        doctor(plane, ADMIN, &all)
    };
    let said = ask(&[]);
    said.has("installation", "FAIL", "0 of 2 pods ready");
    said.has("settings", "OK", &format!("ConfigMap {namespace}/floodway: "));
    said.has("rights", "OK", &format!("service account {namespace}/floodway: it has all "));

    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let ready = json!({"status": {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "updatedReplicas": 2}});
    let api = api_of(&client, Some(namespace), deployment);
    api.patch_status("floodway", &PatchParams::default(), &Patch::Merge(&ready)).await.unwrap();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    apply(&client, Some(namespace), &account).await;
    for (name, version) in [("floodway-a", "0.0.9"), ("floodway-b", "0.1.0")] {
        let mut pod = deployment["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["labels"]["app.kubernetes.io/version"] = json!(version);
        apply(&client, Some(namespace), &pod).await;
    }
    let said = ask(&[]);
    said.has("installation", "OK", "2 of 2 pods ready");
    said.has("installation", "WARN", "pods of several versions: 1 pod of 0.0.9 (");
    said.has("installation", "WARN", "pods are of version 0.0.9, and this program");
    said.has("lease", "WARN", "there is none, so nobody writes statuses");

    let nobody = ask(&["--as-service-account", "nobody"]);
    nobody.has("rights", "FAIL", &format!("service account {namespace}/nobody: it may not list proxyroutes.floodway.dev in all namespaces; without this nothing is served"));
    assert_eq!(nobody.code, 1);
    for object in
        objects.iter().filter(|object| object["metadata"]["namespace"].is_null() && object["kind"] != "Namespace")
    {
        let name = object["metadata"]["name"].as_str().unwrap();
        api_of(&client, None, object).delete(name, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn what_lies_beyond_is_asked_too() {
    let redis = free_port();
    let ward = ward(&format!("rateLimits: {{redis: {{address: \"127.0.0.1:{redis}\"}}}}\n")).await;
    let options = Options { namespaces: &[&ward.namespace], pod_namespace: &ward.namespace, ..Options::default() };
    let gateway = Gateway::ready(ward.plane, options).await;
    let said = ward.ask(ADMIN, &["--admin", &gateway.admin_address().to_string()]);
    said.fails_for(&[]);
    said.has("rateLimits", "WARN", &format!("127.0.0.1:{redis}: limits cannot be counted there: it cannot be reached"));
    said.has("adminPort", "OK", &format!("Floodway {} is ready", env!("CARGO_PKG_VERSION")));
    let nobody = format!("127.0.0.1:{}", free_port());
    let said = ward.ask(ADMIN, &["--admin", &nobody]);
    said.fails_for(&["adminPort"]);
}

#[test]
fn without_an_api_server_it_says_so_and_a_bad_kubeconfig_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let ask = |more: &[&str]| {
        let mut all = vec!["--json", "--kubeconfig", path];
        all.extend(more);
        run(&all)
    };
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://127.0.0.1:{}", free_port())}}],
        "users": [{"name": "me", "user": {"token": "hush"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
    });
    write(&config.to_string());
    let said = ask(&[]);
    said.fails_for(&["apiServer"]);
    said.has("apiServer", "FAIL", "it does not answer: ");
    assert!(!said.text.contains("hush"), "{}", said.text);

    let said = ask(&["--context", "elsewhere"]);
    assert!(said.code == 2 && said.text.contains("with the context \"elsewhere\""), "{}", said.text);
    write("clusters: {");
    let said = ask(&[]);
    assert!(said.code == 2 && said.text.contains("is no kubeconfig that can be used"), "{}", said.text);
    std::fs::remove_file(&file).unwrap();
    let said = ask(&[]);
    assert!(said.code == 2 && said.text.contains(path), "{}", said.text);
}
