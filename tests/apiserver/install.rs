//! The plain manifests, and the chart with other values, as the API server sees them: every object is accepted, and the pod passes the
//! strictest policy. What the chart makes of which value is in `tests/chart`.

use serde_json::json;

use crate::control_plane::{ADMIN, shared};
use crate::helm::{all_values, helm, render, root};
use crate::objects::{apply, documents, dry_run, established, try_apply};

const NAMESPACE: &str = "deploy-test";

#[tokio::test]
async fn the_manifests_install_in_a_restricted_namespace() {
    let client = shared().await.client(ADMIN).await;
    let text = include_str!("../../deploy/floodway.yaml").replace("floodway-system", NAMESPACE);
    let objects = documents(&text);
    assert!(objects.len() > 8, "{} objects", objects.len());
    for object in &objects {
        let applied = try_apply(&client, object["metadata"]["namespace"].as_str(), object).await;
        assert!(applied.is_ok(), "{object}: {}", applied.unwrap_err());
    }

    // No controller makes pods here, so the policy of the namespace is asked directly.
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("floodway");
    let accepted = dry_run(&client, NAMESPACE, &pod).await;
    assert!(accepted.is_ok(), "{}", accepted.unwrap_err());

    // And the policy is in force: the same pod with a right more is refused.
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let refused = dry_run(&client, NAMESPACE, &pod).await.unwrap_err().to_string();
    assert!(refused.contains("restricted"), "{refused}");
}

/// Every block of values in docs/install.md, and those of `tests/chart`, with everything switched on that goes together.
#[tokio::test]
async fn what_the_chart_makes_of_other_values_installs_too() {
    let client = shared().await.client(ADMIN).await;
    // One for each policy, which the API server is asked about every pod.
    for (name, policy) in [("edge", "privileged"), ("edge-restricted", "restricted")] {
        let labels = json!({"pod-security.kubernetes.io/enforce": policy});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        apply(&client, None, &namespace).await;
        // No controller makes this one here.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        apply(&client, Some(name), &account).await;
    }
    for namespace in ["shop", "chat", "certificates"] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        apply(&client, None, &namespace).await;
    }
    know_the_operator(&client).await;
    for (name, values) in all_values() {
        let objects = render(&values, &["--api-versions", "monitoring.coreos.com/v1"]);
        for mut object in objects.unwrap_or_else(|said| panic!("{name}: {said}")) {
            if kind_of(&object) == "MutatingWebhookConfiguration" {
                // No injector answers here, and other tests have pods.
                object["webhooks"][0]["namespaceSelector"]["matchLabels"] = json!({"has-this": "nobody"});
            }
            let object = object;
            let kind = kind_of(&object);
            // Objects without a namespace are of the cluster.
            let of = object["metadata"]["namespace"].as_str();
            match kind {
                // Two of the same name would be one that is changed; what cannot be changed later is not in question here.
                "Deployment" | "DaemonSet" | "Service" | "Pod" => {
                    let said = dry_run(&client, of.unwrap(), &renamed(&object)).await;
                    assert!(said.is_ok(), "{name}: {object}: {}", said.unwrap_err());
                }
                _ => {
                    let said = try_apply(&client, of, &object).await;
                    assert!(said.is_ok(), "{name}: {object}: {}", said.unwrap_err());
                }
            }
            let mut pod = match kind {
                "Deployment" | "DaemonSet" => object["spec"]["template"].clone(),
                "Pod" => object.clone(),
                _ => continue,
            };
            pod["apiVersion"] = json!("v1");
            pod["kind"] = json!("Pod");
            pod["metadata"]["name"] = json!("floodway");
            pod["metadata"]["namespace"] = json!("edge-restricted");
            // That of the chart is in the other namespace.
            pod["spec"]["serviceAccountName"] = json!("default");
            let said = dry_run(&client, "edge-restricted", &pod).await;
            if pod.to_string().contains("hostPort") {
                let said = said.unwrap_err().to_string();
                assert!(said.contains("hostPort") && !said.contains("capabilities"), "{name}: {said}");
            } else {
                assert!(said.is_ok(), "{name}: {pod}: {}", said.unwrap_err());
            }
        }
    }
}

/// Has the API server know the kinds of the Prometheus operator, by its own definitions.
async fn know_the_operator(client: &kube::Client) {
    let folder = root().join("target/kube-tools/monitoring");
    for kind in ["servicemonitors", "podmonitors", "prometheusrules"] {
        let file = folder.join(format!("monitoring.coreos.com_{kind}.yaml"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| {
            panic!("{}: {error}: run `tests/tools/build.sh` (as `make test` does)", file.display())
        });
        apply(client, None, &documents(&text)[0]).await;
        established(client, &format!("{kind}.monitoring.coreos.com")).await;
    }
    // They are in force: a field that is misspelt is refused.
    let wrong = json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "wrong"},
        "spec": {"groups": [{"name": "wrong", "rules": [{"alert": "Wrong", "expresion": "up"}]}]},
    });
    let refused = try_apply(client, Some("edge"), &wrong).await.unwrap_err().to_string();
    assert!(refused.contains("expresion") || refused.contains("expr"), "{refused}");
}

/// Installed, upgraded, rolled back and removed by helm itself, in the order of docs/install.md; nothing is left but what is said to be.
#[tokio::test]
async fn helm_installs_upgrades_rolls_back_and_removes() {
    let plane = shared().await;
    let client = plane.client(ADMIN).await;
    let kubeconfig = plane.kubeconfig(ADMIN);
    let run = |arguments: &[&str]| {
        let mut all = vec!["--kubeconfig", kubeconfig.to_str().unwrap(), "--namespace", "by-helm"];
        all.extend(arguments);
        helm(&all).unwrap_or_else(|said| panic!("{arguments:?}: {said}"))
    };
    let list = async |path: &str| -> Vec<serde_json::Value> {
        let request = http::Request::get(format!("{path}?labelSelector=app.kubernetes.io/instance=by-helm"));
        let list: serde_json::Value = client.request(request.body(Vec::new()).unwrap()).await.unwrap();
        list["items"].as_array().unwrap().clone()
    };
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/by-helm/deployments";
    const SCALERS: &str = "/apis/autoscaling/v2/namespaces/by-helm/horizontalpodautoscalers";

    // The definitions are there, and other tests use them meanwhile.
    let notes = run(&["install", "by-helm", "charts/floodway", "--create-namespace", "--skip-crds"]);
    assert!(notes.contains("rollout status deployment/by-helm-floodway"), "{notes}");
    assert_eq!(list(DEPLOYMENTS).await[0]["spec"]["replicas"], 2);

    for definition in documents(&helm(&["show", "crds", "charts/floodway"]).unwrap()) {
        apply(&client, None, &definition).await;
    }
    let more = "autoscaling.enabled=true,networkPolicy.enabled=true,monitoring.dashboard.enabled=true,ports.http=80";
    run(&["upgrade", "by-helm", "charts/floodway", "--reset-then-reuse-values", "--set", more]);
    assert_eq!(list(SCALERS).await.len(), 1);
    // The autoscaler begins with the pods that are there.
    assert_eq!(list(DEPLOYMENTS).await[0]["spec"]["replicas"], 2);
    let pod = list(DEPLOYMENTS).await[0]["spec"]["template"]["spec"].clone();
    assert_eq!(pod["securityContext"]["sysctls"][0]["value"], "80");

    run(&["rollback", "by-helm", "1"]);
    assert_eq!(list(SCALERS).await, Vec::<serde_json::Value>::new());
    assert_eq!(list(DEPLOYMENTS).await[0]["spec"]["template"]["spec"]["securityContext"].get("sysctls"), None);

    run(&["uninstall", "by-helm"]);
    for path in [
        DEPLOYMENTS,
        "/api/v1/namespaces/by-helm/services",
        "/api/v1/namespaces/by-helm/configmaps",
        "/api/v1/namespaces/by-helm/secrets",
        "/api/v1/namespaces/by-helm/serviceaccounts",
        "/apis/policy/v1/namespaces/by-helm/poddisruptionbudgets",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/by-helm/roles",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/by-helm/rolebindings",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    ] {
        assert_eq!(list(path).await, Vec::<serde_json::Value>::new(), "{path}");
    }
    // The definitions stay, and with them everybody's routes.
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/proxyroutes.floodway.dev";
    let request = http::Request::get(definition).body(Vec::new()).unwrap();
    client.request::<serde_json::Value>(request).await.unwrap();
}

fn kind_of(object: &serde_json::Value) -> &str {
    object["kind"].as_str().unwrap()
}

/// The object under a name that nothing has.
fn renamed(object: &serde_json::Value) -> serde_json::Value {
    let mut object = object.clone();
    object["metadata"]["name"] = json!(format!("new-{}", object["metadata"]["name"].as_str().unwrap()));
    object
}

/// What the pod is given to end in must be longer than what the settings take.
#[test]
fn the_pod_is_given_the_time_that_a_drain_takes() {
    let objects = documents(include_str!("../../deploy/floodway.yaml"));
    let find = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let given = find("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    let text = find("ConfigMap")["data"]["settings.yaml"].as_str().unwrap();
    let settings = floodway::settings::Settings::default().overlaid("settings.yaml", text.as_bytes()).unwrap();
    assert!(given > (settings.drain.delay + settings.drain.grace).as_secs());
}
