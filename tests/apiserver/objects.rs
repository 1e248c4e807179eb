//! Objects of the tests: our custom resources, the rules of the chart, namespaces, and applying YAML.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use floodway::api::{Condition, ProxyRoute};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::control_plane::{FLOODWAY, SYSTEM};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All documents of the YAML files of a folder of the repository.
pub(crate) fn files(folder: &str) -> Vec<Value> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths.iter().flat_map(|path| documents(&read(path))).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The documents of a YAML text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    floodway::yaml::documents(text.as_bytes())
        .into_iter()
        .map(|document| document.unwrap().read::<Value>().unwrap())
        .collect()
}

/// Installs what the gateway needs in a cluster: the custom resources, the namespace, and for the user of the tests
/// exactly the rules that are in deploy/.
pub(crate) async fn install(client: &Client) {
    for crd in files("crds") {
        apply(client, None, &crd).await;
    }
    for crd in ["proxyroutes.floodway.dev", "proxyupstreams.floodway.dev", "proxypolicies.floodway.dev"] {
        established(client, crd).await;
    }
    create_namespace(client, SYSTEM).await;
    grant(client, FLOODWAY, "ClusterRole", None, "routes").await;
    grant_lease(client, SYSTEM).await;
}

/// The same without what the chart leaves out when `secrets.watch` is false.
pub(crate) async fn grant_without_secrets(client: &Client, user: &str, namespace: &str) {
    let sees = |rule: &Value| rule["resources"].as_array().is_none_or(|all| !all.contains(&json!("secrets")));
    grant_rules(client, user, Some(namespace), "blind", &rules_of("ClusterRole", sees)).await;
    grant_rules(client, user, Some(namespace), "blind-lease", &rules_of("Role", sees)).await;
}

/// Lets the user of the tests hold the Lease in a namespace.
pub(crate) async fn grant_lease(client: &Client, namespace: &str) {
    grant(client, FLOODWAY, "Role", Some(namespace), "lease").await;
}

/// Gives `user` in a namespace, and nowhere else, what the chart gives when it is told which namespaces to watch.
pub(crate) async fn grant_in_namespace(client: &Client, user: &str, namespace: &str) {
    grant(client, user, "ClusterRole", Some(namespace), "routes").await;
    grant(client, user, "Role", Some(namespace), "lease").await;
}

/// Gives a user what the roles of a kind in deploy/ say: in a namespace, or in all.
async fn grant(client: &Client, user: &str, kind: &str, namespace: Option<&str>, name: &str) {
    grant_rules(client, user, namespace, name, &rules_of(kind, |_| true)).await;
}

/// The rules in the roles of a kind in deploy/.
fn rules_of(kind: &str, which: impl Fn(&Value) -> bool) -> Vec<Value> {
    let roles = files("deploy").into_iter().filter(|object| object["kind"] == kind);
    let rules = roles.flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default());
    let rules: Vec<Value> = rules.filter(which).collect();
    assert!(!rules.is_empty(), "deploy/ has no {kind} with such rules");
    rules
}

/// Gives a user these rules: in a namespace, or in all.
pub(crate) async fn grant_rules(client: &Client, user: &str, namespace: Option<&str>, name: &str, rules: &[Value]) {
    let group = "rbac.authorization.k8s.io";
    let kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": name}, "rules": rules,
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": format!("{kind}Binding"), "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": kind, "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    });
    apply(client, namespace, &role).await;
    apply(client, namespace, &binding).await;
}

/// Waits until the API server serves a custom resource.
pub(crate) async fn established(client: &Client, crd: &str) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    eventually("custom resource established", async || {
        let crd = crds.get(crd).await.ok()?;
        let conditions = crd.status?.conditions.unwrap_or_default();
        let established = conditions.iter().any(|c| c.type_ == "Established" && c.status == "True");
        established.then_some(())
    })
    .await;
}

/// Creates a namespace that is not there.
pub(crate) async fn create_namespace(client: &Client, name: &str) {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

/// A new namespace of the cluster.
pub(crate) async fn namespace(client: &Client) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    create_namespace(client, &name).await;
    name
}

/// The API of an object of any kind.
pub(crate) fn api_of(client: &Client, namespace: Option<&str>, object: &Value) -> Api<DynamicObject> {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Applies an object as `kubectl apply --server-side` does.
pub(crate) async fn try_apply(client: &Client, namespace: Option<&str>, object: &Value) -> kube::Result<DynamicObject> {
    let name = object["metadata"]["name"].as_str().unwrap();
    let mut params = PatchParams::apply("tests").force();
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    api_of(client, namespace, object).patch(name, &params, &Patch::Apply(object)).await
}

/// Whether an object would be accepted as `kubectl create` sends it: unknown fields are errors.
pub(crate) async fn dry_run(client: &Client, namespace: &str, object: &Value) -> kube::Result<Value> {
    let url = api_of(client, Some(namespace), object).resource_url().to_owned();
    let request = http::Request::post(format!("{url}?dryRun=All&fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes());
    client.request(request.unwrap()).await
}

/// Applies an object.
pub(crate) async fn apply(client: &Client, namespace: Option<&str>, object: &Value) -> DynamicObject {
    try_apply(client, namespace, object).await.unwrap_or_else(|error| panic!("{error}\n{object:#}"))
}

/// A ProxyRoute that answers `body` at `host`.
pub(crate) fn responding(name: &str, host: &str, body: &str) -> Value {
    json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": name},
        "spec": {"hosts": [host], "rules": [{"respond": {"status": 200, "body": body}}]},
    })
}

/// The conditions of a route as `Type=Status`, sorted, once they are of its newest generation.
pub(crate) async fn conditions(client: &Client, namespace: &str, name: &str) -> Option<Vec<String>> {
    let route = Api::<ProxyRoute>::namespaced(client.clone(), namespace).get(name).await.ok()?;
    let conditions = route.status?.conditions;
    let newest = |condition: &Condition| condition.observed_generation == route.metadata.generation;
    let mut texts: Vec<String> =
        conditions.iter().filter(|c| newest(c)).map(|c| format!("{}={}", c.type_, c.status)).collect();
    texts.sort();
    (!texts.is_empty() && texts.len() == conditions.len()).then_some(texts)
}

/// Polls until there is an answer, for at most 40 seconds.
pub(crate) async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(Duration::from_secs(40), what, probe).await
}

/// Polls until there is an answer.
pub(crate) async fn within<T>(patience: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(began.elapsed() < patience, "waited {} seconds for: {what}", patience.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
