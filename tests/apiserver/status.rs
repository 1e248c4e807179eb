//! Statuses: written by the leader only, when something changed only; and events on transitions.

use floodway::api::{ProxyRoute, ProxyUpstream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::control_plane::{ADMIN, ControlPlane, free_port, shared};
use crate::gateway::{Gateway, Options};
use crate::objects::{api_of, apply, conditions, eventually, grant_lease, namespace, responding};

const FINE: [&str; 3] = ["Accepted=True", "Programmed=True", "ResolvedRefs=True"];

struct Stage {
    plane: &'static ControlPlane,
    client: Client,
    namespace: String,
}

/// A namespace that serves as that of the routes and that of the pods.
async fn stage() -> Stage {
    let plane = shared().await;
    let client = plane.client(ADMIN).await;
    let namespace = namespace(&client).await;
    grant_lease(&client, &namespace).await;
    Stage { plane, client, namespace }
}

impl Stage {
    async fn gateway(&self) -> Gateway {
        let namespaces = [self.namespace.as_str()];
        let options = Options { namespaces: &namespaces, pod_namespace: &self.namespace, ..Options::default() };
        Gateway::ready(self.plane, options).await
    }

    async fn apply(&self, object: &Value) {
        apply(&self.client, Some(&self.namespace), object).await;
    }

    async fn conditions_become(&self, name: &str, expected: &[&str]) {
        let mut last = None;
        let what = format!("the conditions of {name} to be {expected:?}");
        eventually(&what, async || {
            last = conditions(&self.client, &self.namespace, name).await;
            last.as_ref().is_some_and(|conditions| conditions == expected).then_some(())
        })
        .await;
    }

    async fn route(&self, name: &str) -> ProxyRoute {
        Api::namespaced(self.client.clone(), &self.namespace).get(name).await.unwrap()
    }

    async fn holder(&self) -> Option<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        leases.get_opt("floodway-leader").await.unwrap()?.spec?.holder_identity
    }
}

/// A route to a Service.
fn forwarding(name: &str, host: &str, service: &str) -> Value {
    let mut route = responding(name, host, "");
    route["spec"]["rules"] = json!([{"backends": [{"service": {"name": service, "port": 80}}]}]);
    route
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
}

#[tokio::test]
async fn conditions_follow_the_generation_and_are_written_only_when_they_change() {
    let stage = stage().await;
    let gateway = stage.gateway().await;
    stage.apply(&responding("a", "conditions.test", "one")).await;
    stage.conditions_become("a", &FINE).await;
    let first = stage.route("a").await;
    let since = |route: &ProxyRoute| {
        let conditions = route.status.clone().unwrap().conditions;
        conditions.into_iter().map(|condition| condition.last_transition_time).collect::<Vec<_>>()
    };
    assert!(since(&first).iter().all(|time| time.ends_with('Z')), "{first:?}");

    stage.apply(&responding("a", "conditions.test", "two")).await;
    stage.conditions_become("a", &FINE).await;
    let second = stage.route("a").await;
    assert!(second.metadata.generation > first.metadata.generation);
    assert_eq!(since(&second), since(&first), "no status changed, so no time did");

    // Work that changes no status of `a`: another route comes, gets its status and goes.
    let writes =
        async || gateway.metric("floodway_status_writes_total", &[r#"kind="ProxyRoute""#]).await.unwrap_or(0.0);
    let before = writes().await;
    stage.apply(&responding("b", "other.conditions.test", "other")).await;
    stage.conditions_become("b", &FINE).await;
    eventually("the write to be counted", async || (writes().await >= before + 1.0).then_some(())).await;
    assert_eq!(writes().await, before + 1.0, "one object changed");
    assert_eq!(stage.route("a").await.resource_version(), second.resource_version());
    let text = gateway.log();
    assert!(!text.contains("not allowed") && !text.contains("forbidden"), "{text}");

    // Somebody else's change of our conditions is put right, once.
    let taken = json!({"status": {"conditions": []}});
    let api: Api<ProxyRoute> = Api::namespaced(stage.client.clone(), &stage.namespace);
    api.patch_status("b", &PatchParams::default(), &Patch::Merge(&taken)).await.unwrap();
    stage.conditions_become("b", &FINE).await;
}

#[tokio::test]
async fn upstreams_get_conditions_too() {
    let stage = stage().await;
    stage
        .apply(&json!({
            "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyUpstream", "metadata": {"name": "partner"},
            "spec": {"endpoints": [{"address": "192.0.2.7:80"}]},
        }))
        .await;
    let _gateway = stage.gateway().await;
    let api: Api<ProxyUpstream> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let accepted = eventually("conditions", async || {
        let conditions = api.get("partner").await.unwrap().status?.conditions;
        conditions.into_iter().find(|condition| condition.type_ == "Accepted")
    })
    .await;
    assert_eq!((accepted.status.as_str(), accepted.observed_generation), ("True", Some(1)), "{accepted:?}");
}

#[tokio::test]
async fn upstreams_say_how_many_endpoints_are_healthy() {
    let stage = stage().await;
    let refusing = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let check = json!({"active": {"tcp": {}, "interval": "100ms", "unhealthyThreshold": 1}});
    stage
        .apply(&json!({
            "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyUpstream", "metadata": {"name": "partner"},
            "spec": {"endpoints": [{"address": refusing.to_string()}], "healthCheck": check},
        }))
        .await;
    let _gateway = stage.gateway().await;
    let api: Api<ProxyUpstream> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let message = eventually("the condition", async || {
        let conditions = api.get("partner").await.unwrap().status?.conditions;
        let told = conditions.into_iter().find(|condition| condition.type_ == "Healthy" && condition.status == "False");
        told.map(|condition| condition.message)
    })
    .await;
    assert_eq!(message, "none of 1 endpoints is healthy");
}

#[tokio::test]
async fn only_the_holder_of_the_lease_writes_and_another_takes_over() {
    let stage = stage().await;
    let gateways = [stage.gateway().await, stage.gateway().await];
    let leads = async |gateway: &Gateway| gateway.metric("floodway_leader", &[]).await == Some(1.0);
    let first = eventually("a leader", async || {
        for (at, gateway) in gateways.iter().enumerate() {
            if leads(gateway).await {
                return Some(at);
            }
        }
        None
    })
    .await;
    let (leader, follower) = (&gateways[first], &gateways[1 - first]);
    assert_eq!(stage.holder().await.as_ref(), Some(&leader.pod));
    stage.apply(&responding("a", "lease.test", "one")).await;
    stage.conditions_become("a", &FINE).await;
    follower.answers("lease.test", 200, "one").await;
    let writes = async |gateway: &Gateway| gateway.metric("floodway_status_writes_total", &[]).await.unwrap_or(0.0);
    assert_eq!((writes(leader).await, writes(follower).await), (1.0, 0.0));

    // A holder that ends gives the lease back: the other need not wait for its end.
    leader.terminate().await;
    eventually("the follower to lead", async || leads(follower).await.then_some(())).await;
    assert_eq!(stage.holder().await.as_ref(), Some(&follower.pod));
    stage.apply(&responding("a", "lease.test", "two")).await;
    stage.conditions_become("a", &FINE).await;

    // One that dies does not.
    let third = stage.gateway().await;
    follower.kill().await;
    eventually("the third to lead", async || leads(&third).await.then_some(())).await;
    assert_eq!(stage.holder().await.as_ref(), Some(&third.pod));
    stage.apply(&responding("a", "lease.test", "three")).await;
    stage.conditions_become("a", &FINE).await;
}

#[tokio::test]
async fn transitions_are_told_by_events() {
    let stage = stage().await;
    stage.apply(&service("there")).await;
    stage.apply(&forwarding("a", "events.test", "there")).await;
    let _gateway = stage.gateway().await;
    stage.conditions_become("a", &FINE).await;
    let events = async || -> Vec<String> {
        let api: Api<Event> = Api::namespaced(stage.client.clone(), &stage.namespace);
        let events = api.list(&ListParams::default()).await.unwrap();
        let of_a = events.items.into_iter().filter(|event| {
            event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some("a") && about.uid.is_some())
        });
        of_a.map(|event| format!("{} {}", event.type_.unwrap_or_default(), event.reason.unwrap_or_default())).collect()
    };
    assert!(events().await.is_empty(), "a route that works is no news");

    let api = api_of(&stage.client, Some(&stage.namespace), &service("there"));
    api.delete("there", &DeleteParams::default()).await.unwrap();
    let warning = eventually("a warning", async || events().await.into_iter().next()).await;
    assert!(warning.starts_with("Warning "), "{warning}");
    let route = stage.route("a").await;
    let broken = route.status.unwrap().conditions;
    assert!(broken.iter().any(|c| c.type_ == "ResolvedRefs" && c.status == "False"), "{broken:?}");

    stage.apply(&service("there")).await;
    stage.conditions_become("a", &FINE).await;
    eventually("the good news", async || events().await.iter().any(|event| event == "Normal Programmed").then_some(()))
        .await;
    assert_eq!(events().await.len(), 2);
}

#[tokio::test]
async fn a_route_that_leaves_our_class_loses_our_conditions() {
    let stage = stage().await;
    let gateway = stage.gateway().await;
    stage.apply(&responding("a", "class.test", "one")).await;
    stage.conditions_become("a", &FINE).await;
    let mut theirs = responding("a", "class.test", "one");
    theirs["spec"]["className"] = json!("another");
    stage.apply(&theirs).await;
    gateway.answers("class.test", 404, "").await;
    eventually("our conditions to go", async || {
        let status = stage.route("a").await.status.unwrap_or_default();
        status.conditions.is_empty().then_some(())
    })
    .await;
}
