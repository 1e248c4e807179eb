//! A sidecar with the rights that its namespace gives it, and no others; its API server goes away and comes back.

use std::net::SocketAddr;
use std::process::Command;

use floodway::app::{Right, SIDECAR_RIGHTS, Within};
use serde_json::{Value, json};

use crate::control_plane::{ADMIN, BLIND, ControlPlane, free_port, shared};
use crate::guarded::Guarded;
use crate::http1::get;
use crate::network::{backend, must_be_inside, run_in_namespace};
use crate::objects::{apply, eventually, grant_rules, namespace};

#[test]
fn in_a_network_namespace() {
    run_in_namespace("sidecar::inside");
}

/// What the chart gives a namespace with sidecars, Secrets aside.
fn rules() -> Vec<Value> {
    let rights = SIDECAR_RIGHTS.iter().filter(|right| right.within == Within::Own);
    let rule =
        |right: &Right<'_>| json!({"apiGroups": [right.group], "resources": right.resources, "verbs": right.verbs});
    rights.map(rule).collect()
}

mod inside {
    use super::*;

    /// With a Role that does not give Secrets, which is what the chart makes unless it is told to.
    #[tokio::test]
    #[ignore = "run by sidecar::in_a_network_namespace"]
    async fn without_secrets_it_serves_what_needs_none_and_says_once_what_does() {
        must_be_inside();
        // The other test stops the one that is shared.
        let plane = ControlPlane::start().await;
        let client = plane.client(ADMIN).await;
        let namespace = namespace(&client).await;
        grant_rules(&client, BLIND, Some(&namespace), "sidecar", &rules()).await;
        let app = backend(1, "app");
        let put = async |spec: Value| {
            let policy = json!({"apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyPolicy", "metadata": {"name": "asked"}, "spec": spec});
            apply(&client, Some(&namespace), &policy).await;
        };
        put(json!({"requestLimits": {"methods": ["POST"]}})).await;
        let [inbound, outbound, admin] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let mut command = Command::new(env!("CARGO_BIN_EXE_floodway"));
        command
            .args(["sidecar", "--policy=asked", "--log-format=text", &format!("--app-port={}", app.port())])
            .args([format!("--inbound={inbound}"), format!("--outbound={outbound}"), format!("--admin={admin}")])
            .env("KUBECONFIG", plane.kubeconfig(BLIND))
            .env("POD_NAMESPACE", &namespace);
        let process = Guarded::spawn(&command, &plane.path("blind-sidecar.log"), None);
        let answers = async |address: SocketAddr, status: u16| {
            eventually(&format!("{address} answers {status}; log:\n{}", process.output()), async || {
                let (answered, _) = get(address, "app", "/").await.ok()?;
                (answered == status).then_some(())
            })
            .await;
        };
        answers(admin, 200).await;
        answers(inbound, 405).await;
        assert!(!process.output().contains("Secret"), "{}", process.output());

        put(json!({"apiKey": {"secretName": "keys"}})).await;
        answers(inbound, 503).await;
        let said = |what: &str| process.output().lines().filter(|line| line.contains(what)).count();
        eventually("the refusal in the log", async || (said("not allowed to list and watch Secret") > 0).then_some(()))
            .await;
        eventually("the policy in the log", async || (said("spec.apiKey.secretName: Secret") > 0).then_some(())).await;
        // It is ready all the same, and a policy that needs none is in force again.
        answers(admin, 200).await;
        put(json!({"requestLimits": {"methods": ["POST"]}})).await;
        answers(inbound, 405).await;
        let log = process.output();
        let refusals: Vec<&str> = log.lines().filter(|line| line.contains("not allowed")).collect();
        assert!(refusals.len() == 1 && refusals[0].contains("set sidecar.secrets to true in the chart"), "{log}");
        let told = log.lines().find(|line| line.contains("asked: spec.apiKey.secretName"));
        assert!(told.is_some_and(|told| told.contains("sidecar.secrets")), "{log}");
    }

    #[tokio::test]
    #[ignore = "run by sidecar::in_a_network_namespace"]
    async fn it_needs_no_more_than_its_role_and_outlives_the_api_server() {
        must_be_inside();
        let plane = shared().await;
        let client = plane.client(ADMIN).await;
        let namespace = namespace(&client).await;
        grant_rules(&client, BLIND, Some(&namespace), "sidecar", &rules()).await;
        let put = async |object: Value| drop(apply(&client, Some(&namespace), &object).await);
        let (one, app) = (backend(1, "one"), backend(2, "app"));
        let floodway = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "floodway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        put(floodway("ProxyUpstream", "web", json!({"targetRefs": [{"kind": "Service", "name": "web"}]}))).await;
        put(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        }))
        .await;
        put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": one.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [one.ip()]}],
        }))
        .await;

        let [inbound, outbound, admin] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let mut command = Command::new(crate::program());
        command
            .args(["sidecar", "--policy=only-get", &format!("--app-port={}", app.port())])
            .args([format!("--inbound={inbound}"), format!("--outbound={outbound}"), format!("--admin={admin}")])
            .env("KUBECONFIG", plane.kubeconfig(BLIND))
            .env("POD_NAMESPACE", &namespace);
        let process = Guarded::spawn(&command, &plane.path("sidecar.log"), None);
        let answers = async |address: SocketAddr, host: &str, status: u16| {
            eventually(&format!("{host} at {address} answers {status}; log:\n{}", process.output()), async || {
                let (answered, _) = get(address, host, "/").await.ok()?;
                (answered == status).then_some(())
            })
            .await;
        };
        answers(admin, "admin", 200).await;
        answers(outbound, "web", 200).await;
        answers(outbound, &format!("web.{namespace}.svc"), 200).await;
        answers(outbound, "other", 404).await;
        // The policy is not there yet.
        answers(inbound, "app", 503).await;
        put(floodway("ProxyPolicy", "only-get", json!({"requestLimits": {"methods": ["POST"]}}))).await;
        answers(inbound, "app", 405).await;

        // What was read stays in force while the API server is away, and what changes afterwards is read.
        plane.stop_api_server();
        answers(outbound, "web", 200).await;
        answers(inbound, "app", 405).await;
        let (ready, _) = get(admin, "admin", "/readyz").await.unwrap();
        assert_eq!(ready, 200);
        plane.start_api_server().await;
        put(floodway("ProxyPolicy", "only-get", json!({"requestLimits": {"methods": ["GET"]}}))).await;
        // Nobody listens on loopback at the port of the app, which has an address of its own here.
        answers(inbound, "app", 502).await;
    }
}
