//! Watching: what is applied is served, what is malformed is skipped, and what cannot be reached keeps the last good
//! table in force.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::control_plane::{ADMIN, ControlPlane, NOBODY, TENANT, shared};
use crate::gateway::{Gateway, Options};
use crate::objects::{
    api_of, apply, conditions, established, eventually, files, grant_in_namespace, namespace, responding,
};

#[tokio::test]
async fn what_is_applied_is_served_and_what_is_deleted_is_not() {
    let plane = shared().await;
    let client = plane.client(ADMIN).await;
    let namespace = namespace(&client).await;
    let gateway =
        Gateway::ready(plane, Options { namespaces: &[&namespace], pod_namespace: &namespace, ..Options::default() })
            .await;
    gateway.answers("a.test", 404, "").await;
    apply(&client, Some(&namespace), &responding("a", "a.test", "one")).await;
    gateway.answers("a.test", 200, "one").await;
    apply(&client, Some(&namespace), &responding("a", "a.test", "two")).await;
    gateway.answers("a.test", 200, "two").await;
    assert!(gateway.config_dump().await.to_string().contains("a.test"));
    let api = api_of(&client, Some(&namespace), &responding("a", "", ""));
    api.delete("a", &DeleteParams::default()).await.unwrap();
    gateway.answers("a.test", 404, "").await;
}

#[tokio::test]
async fn only_the_namespaces_that_were_named_are_watched() {
    let plane = shared().await;
    let client = plane.client(ADMIN).await;
    let (first, second, other) = (namespace(&client).await, namespace(&client).await, namespace(&client).await);
    for (namespace, host) in [(&first, "first.test"), (&second, "second.test"), (&other, "other.test")] {
        apply(&client, Some(namespace), &responding("a", host, "here")).await;
    }
    // With rights in these namespaces only.
    grant_in_namespace(&client, TENANT, &first).await;
    grant_in_namespace(&client, TENANT, &second).await;
    let options = Options { user: TENANT, namespaces: &[&first, &second], pod_namespace: &first, ..Options::default() };
    let gateway = Gateway::ready(plane, options).await;
    gateway.answers("first.test", 200, "here").await;
    gateway.answers("second.test", 200, "here").await;
    gateway.answers("other.test", 404, "").await;
    eventually("a status in the second namespace", async || conditions(&client, &second, "a").await).await;
    assert!(!gateway.log().contains("not allowed"), "{}", gateway.log());
}

#[tokio::test]
async fn a_user_without_rights_is_told_what_is_missing() {
    let plane = shared().await;
    let gateway = Gateway::start(plane, Options { user: NOBODY, ..Options::default() });
    let reasons = eventually("reasons not to be ready", async || {
        let (status, text) = gateway.admin("/readyz").await?;
        assert_eq!(status, 503);
        (text.matches("not allowed to list").count() == 5).then_some(text)
    })
    .await;
    for kind in ["ProxyRoutes", "ProxyUpstreams", "ProxyPolicies", "Services", "EndpointSlices"] {
        assert!(reasons.contains(&format!("waiting for the first list of {kind}: not allowed to list")), "{reasons}");
    }
    assert!(reasons.contains("charts/floodway/templates/rbac.yaml"), "{reasons}");
    // Verb, resource and where, and in the log, too.
    let missing = "cannot list resource \"proxyroutes\" in API group \"floodway.dev\" at the cluster scope";
    assert!(reasons.contains(missing), "{reasons}");
    assert!(gateway.log().replace("\\\"", "\"").contains(missing), "{}", gateway.log());
    assert!(gateway.alive(), "it keeps trying");
    assert!(gateway.get("a.test").await.is_none(), "nothing is served before the first lists");
}

#[tokio::test]
async fn without_custom_resources_it_waits_and_says_so() {
    let plane = ControlPlane::start().await;
    let client = plane.client(ADMIN).await;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "proxyroutes.floodway.dev";
    crds.delete(name, &DeleteParams::default()).await.unwrap();
    eventually("the resource to be gone", async || crds.get_opt(name).await.unwrap().is_none().then_some(())).await;

    let gateway = Gateway::start(&plane, Options::default());
    eventually("the reason", async || {
        let (status, text) = gateway.admin("/readyz").await?;
        (status == 503 && text.contains("does not know ProxyRoute: install the custom resources")).then_some(())
    })
    .await;
    for crd in files("crds") {
        apply(&client, None, &crd).await;
    }
    established(&client, name).await;
    eventually("ready", async || gateway.admin("/readyz").await.filter(|(status, _)| status.is_success())).await;
}

/// Takes the schema of ProxyRoute away, so that anything can be written.
async fn loosen(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let anything = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]);
    let patch = Patch::Json::<()>(serde_json::from_value(anything).unwrap());
    crds.patch("proxyroutes.floodway.dev", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn a_malformed_object_is_skipped_and_counted_and_stops_nothing() {
    let plane = ControlPlane::start().await;
    let client = plane.client(ADMIN).await;
    loosen(&client).await;
    let mut bad = responding("bad", "bad.test", "");
    bad["spec"]["rules"] = json!("not a list");
    eventually("the schema to be gone", async || {
        crate::objects::try_apply(&client, Some("default"), &bad).await.ok().map(|_| ())
    })
    .await;
    apply(&client, Some("default"), &responding("good", "good.test", "good")).await;

    // Both in the first list …
    let gateway = Gateway::ready(&plane, Options::default()).await;
    gateway.answers("good.test", 200, "good").await;
    let unreadable = async |count: f64| {
        eventually("the metric to say so", async || {
            let unreadable = gateway.metric("floodway_config_unreadable_objects", &["ProxyRoute"]).await;
            (unreadable == Some(count)).then_some(())
        })
        .await;
    };
    unreadable(1.0).await;
    assert!(gateway.log().contains("default/bad"), "{}", gateway.log());

    // … and from the watch, where a good version that was there before stays.
    let mut broken = responding("good", "good.test", "");
    broken["spec"]["rules"][0]["respond"]["status"] = json!({"not": "a number"});
    apply(&client, Some("default"), &broken).await;
    unreadable(2.0).await;
    gateway.answers("good.test", 200, "good").await;
    apply(&client, Some("default"), &responding("bad", "bad.test", "mended")).await;
    gateway.answers("bad.test", 200, "mended").await;
    unreadable(1.0).await;
}

#[tokio::test]
async fn a_restart_of_the_api_server_stops_no_traffic_and_is_caught_up() {
    let plane = ControlPlane::start().await;
    let client = plane.client(ADMIN).await;
    apply(&client, Some("default"), &responding("a", "a.test", "before")).await;
    apply(&client, Some("default"), &responding("b", "b.test", "before")).await;
    let gateway = Gateway::ready(&plane, Options::default()).await;
    gateway.answers("a.test", 200, "before").await;
    let connected = async || gateway.metric("floodway_source_connected", &["ProxyRoute"]).await;
    assert_eq!(connected().await, Some(1.0));
    let leads = async || gateway.metric("floodway_leader", &[]).await;
    eventually("the lease", async || (leads().await == Some(1.0)).then_some(())).await;

    plane.stop_api_server();
    eventually("the loss to be noticed", async || (connected().await == Some(0.0)).then_some(())).await;
    assert!(gateway.metric("floodway_source_errors_total", &["ProxyRoute"]).await > Some(0.0));
    gateway.answers("a.test", 200, "before").await;
    let (status, _) = gateway.admin("/readyz").await.unwrap();
    assert_eq!(status, 200, "it serves, so it is ready");
    // Before another could take the lease over, it counts itself as a leader no more; and goes on serving.
    eventually("leadership to end", async || (leads().await == Some(0.0)).then_some(())).await;
    gateway.answers("a.test", 200, "before").await;

    plane.start_api_server().await;
    let client = plane.client(ADMIN).await;
    apply(&client, Some("default"), &responding("a", "a.test", "after")).await;
    let api = api_of(&client, Some("default"), &responding("b", "", ""));
    api.delete("b", &DeleteParams::default()).await.unwrap();
    gateway.answers("a.test", 200, "after").await;
    gateway.answers("b.test", 404, "").await;
    eventually("the connection to be told of", async || (connected().await == Some(1.0)).then_some(())).await;
    eventually("leadership to begin", async || (leads().await == Some(1.0)).then_some(())).await;
}
