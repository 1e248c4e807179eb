//! Traffic from a real EndpointSlice to a real backend, in a network of the tests' own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kube::Client;
use serde_json::{Value, json};

use crate::control_plane::{ADMIN, ControlPlane, shared};
use crate::gateway::{Gateway, Options};
use crate::http1::Connection;
use crate::network::{backend, must_be_inside, run_in_namespace};
use crate::objects::{apply, conditions, eventually, grant_lease, namespace};

#[test]
fn in_a_network_namespace() {
    run_in_namespace("traffic::inside");
}

fn route(host: &str, service: &str) -> Value {
    json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": "web"},
        "spec": {"hosts": [host], "rules": [{"backends": [{"service": {"name": service, "port": "http"}}]}]},
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": "web"}], "selector": {"app": name}},
    })
}

/// A slice as the endpoint controller writes it; each endpoint with its `ready`.
fn slice(name: &str, service: &str, port: u16, endpoints: &[(SocketAddr, bool)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, ready)| {
            json!({"addresses": [address.ip()],
                   "conditions": {"ready": ready, "serving": true, "terminating": !ready}})
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

async fn start(plane: &ControlPlane, client: &Client) -> (String, Gateway) {
    let namespace = namespace(client).await;
    grant_lease(client, &namespace).await;
    let options = Options { namespaces: &[&namespace], pod_namespace: &namespace, ..Options::default() };
    let gateway = Gateway::ready(plane, options).await;
    (namespace, gateway)
}

mod inside {
    use super::*;

    #[tokio::test]
    #[ignore = "run by traffic::in_a_network_namespace"]
    async fn a_route_reaches_the_endpoints_of_its_service() {
        must_be_inside();
        let plane = shared().await;
        let client = plane.client(ADMIN).await;
        let (namespace, gateway) = start(plane, &client).await;
        let (one, two) = (backend(1, "one"), backend(2, "two"));
        let put = async |object: Value| drop(apply(&client, Some(&namespace), &object).await);

        put(route("web.test", "web")).await;
        gateway.answers("web.test", 500, "").await;
        put(service("web")).await;
        gateway.answers("web.test", 503, "").await;
        put(slice("web-1", "web", one.port(), &[(one, true)])).await;
        gateway.answers("web.test", 200, "one").await;
        eventually("the status", async || {
            let conditions = conditions(&client, &namespace, "web").await?;
            (conditions == ["Accepted=True", "Programmed=True", "ResolvedRefs=True"]).then_some(())
        })
        .await;

        // All slices of a Service count, each with its own port.
        put(slice("web-2", "web", two.port(), &[(two, true)])).await;
        gateway.answers("web.test", 200, "two").await;
        gateway.answers("web.test", 200, "one").await;
        // A terminating endpoint gets nothing while another is ready, and everything when none is.
        put(slice("web-1", "web", one.port(), &[(one, false)])).await;
        eventually("the table to be without it", async || {
            let dump = gateway.config_dump().await.to_string();
            (!dump.contains(&one.to_string())).then_some(())
        })
        .await;
        for _ in 0..20 {
            assert_eq!(gateway.get("web.test").await.unwrap().1, "two");
        }
        put(slice("web-2", "web", two.port(), &[])).await;
        gateway.answers("web.test", 200, "one").await;
    }

    #[tokio::test]
    #[ignore = "run by traffic::in_a_network_namespace"]
    async fn changes_and_an_outage_of_the_api_server_fail_no_request() {
        must_be_inside();
        let plane = ControlPlane::start().await;
        let client = plane.client(ADMIN).await;
        let (namespace, gateway) = start(&plane, &client).await;
        let backends = [backend(3, "a"), backend(4, "b")];
        for (name, address) in ["a", "b"].into_iter().zip(backends) {
            apply(&client, Some(&namespace), &service(name)).await;
            let slice = slice(&format!("{name}-1"), name, address.port(), &[(address, true)]);
            apply(&client, Some(&namespace), &slice).await;
        }
        apply(&client, Some(&namespace), &route("load.test", "a")).await;
        gateway.answers("load.test", 200, "a").await;

        let load = Load::start(gateway.http);
        for _ in 0..10 {
            for ((name, address), other) in ["a", "b"].into_iter().zip(backends).zip(["b", "a"]) {
                // The route moves to the other Service, then the endpoint it left goes and comes back.
                apply(&client, Some(&namespace), &route("load.test", other)).await;
                gateway.answers("load.test", 200, other).await;
                let of = |endpoints: &[_]| slice(&format!("{name}-1"), name, address.port(), endpoints);
                apply(&client, Some(&namespace), &of(&[])).await;
                apply(&client, Some(&namespace), &of(&[(address, true)])).await;
            }
        }
        let before = load.served();
        plane.stop_api_server();
        eventually("the loss to be noticed", async || {
            (gateway.metric("floodway_source_connected", &["EndpointSlice"]).await == Some(0.0)).then_some(())
        })
        .await;
        eventually("more requests", async || (load.served() > before + 200).then_some(())).await;
        plane.start_api_server().await;
        let client = plane.client(ADMIN).await;
        apply(&client, Some(&namespace), &route("load.test", "b")).await;
        gateway.answers("load.test", 200, "b").await;
        let (served, failures) = load.stop().await;
        assert!(failures.is_empty(), "{} of {served} failed, first: {:?}", failures.len(), failures.first());
        assert!(served > 500, "{served} requests are not a load");
    }
}

/// Clients that ask again and again over kept-alive connections.
struct Load {
    served: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Load {
        let (served, stop): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let clients = (0..4).map(|_| {
            let (served, stop) = (Arc::clone(&served), Arc::clone(&stop));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut failures = Vec::new();
                    let mut connection = Connection::open(address).await.unwrap();
                    while !stop.load(Ordering::Relaxed) && failures.len() < 10 {
                        match connection.get("load.test", "/").await {
                            Ok((status, body)) if status == 200 && (body == "a" || body == "b") => {}
                            Ok((status, body)) => failures.push(format!("{status} {body}")),
                            Err(error) => {
                                failures.push(format!("{error:#}"));
                                connection = Connection::open(address).await.unwrap();
                            }
                        }
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    failures
                })
            })
        });
        let clients = clients.collect();
        Load { served, stop, clients }
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    async fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients;
        let join = move || clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let failures = tokio::task::spawn_blocking(join).await.unwrap();
        (self.served.load(Ordering::Relaxed), failures)
    }
}
