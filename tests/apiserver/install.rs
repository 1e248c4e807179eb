//! The plain manifests as the API server sees them: every object is accepted, and the pod passes the strictest policy.

use serde_json::json;

use crate::control_plane::{ADMIN, shared};
use crate::objects::{documents, dry_run, try_apply};

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
