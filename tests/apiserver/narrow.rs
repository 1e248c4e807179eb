//! A sidecar reads what the objects of its namespace name, and nothing else, and loses nothing while they come to name something else.

use std::collections::BTreeSet;
use std::sync::Arc;

use floodway::ready::Ready;
use floodway::sidecar::{Inbound, Named, Outbound};
use floodway::source::{Store, kube as source};
use floodway::telemetry::Telemetry;
use floodway::translate::{Key, Resources};
use kube::Client;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::control_plane::{ADMIN, BLIND, shared};
use crate::objects::{api_of, apply, eventually, grant_rules, namespace};

/// What a sidecar reads, in this process.
struct Read {
    store: Store,
    telemetry: Telemetry,
    watching: JoinHandle<()>,
}

impl Read {
    /// Begins, and waits for the first of everything.
    async fn start(client: Client, namespace: &str) -> Read {
        let (store, telemetry) = (Store::default(), Telemetry::default());
        let inbound =
            Inbound { namespace: namespace.to_owned(), policies: vec!["asked".to_owned()], ..Inbound::default() };
        let outbound = Outbound { namespace: namespace.to_owned(), ..Outbound::default() };
        let naming = move |read: &Resources| {
            let Named { services, secrets, config_maps } = Named::of(&inbound, &outbound, read);
            source::Wanted { services, secrets, config_maps }
        };
        let here = vec![namespace.to_owned()];
        let watches = source::Watches {
            watcher: source::Watcher::Sidecar(Arc::new(naming)),
            namespaces: here.clone(),
            policies: Some(here.clone()),
            secrets: Some(here),
            store: store.clone(),
            ready: Ready::default(),
            metrics: telemetry.metrics().clone(),
            seen: Arc::new(|_, _, _| {}),
        };
        let (synced, first) = tokio::sync::oneshot::channel();
        let watching = tokio::spawn(source::run(client, watches, synced));
        first.await.unwrap();
        Read { store, telemetry, watching }
    }

    /// The Services whose endpoints are here, with the address of the first.
    fn endpoints(&self) -> Vec<String> {
        self.store.read(|read| {
            let mut all: Vec<String> = read
                .slices
                .iter()
                .map(|(key, slices)| {
                    let first = slices.iter().flat_map(|(_, slice)| &slice.endpoints).next();
                    format!("{} {}", key.name, first.map(|endpoint| endpoint.address.to_string()).unwrap_or_default())
                })
                .collect();
            all.sort();
            all
        })
    }

    fn known(&self) -> BTreeSet<String> {
        let known = self.store.read(|read| read.slices_of.clone()).unwrap();
        known.iter().map(|key: &Key| key.name.to_string()).collect()
    }

    async fn has(&self, wanted: &[&str]) {
        eventually(&format!("{wanted:?}, not {:?}", self.endpoints()), async || {
            (self.endpoints() == wanted).then_some(())
        })
        .await;
    }

    fn errors(&self) -> Vec<String> {
        let text = self.telemetry.metrics().text();
        let errors = text.lines().filter(|line| line.starts_with("floodway_source_errors_total{"));
        errors.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
    }
}

fn floodway(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "floodway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn upstream(name: &str) -> Value {
    floodway("ProxyUpstream", name, json!({"targetRefs": [{"kind": "Service", "name": name}]}))
}

fn slice(service: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "endpoints": [{"addresses": [address]}],
    })
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn endpoints_of_services_that_nobody_names_never_arrive() {
    let plane = shared().await;
    let client = plane.client(ADMIN).await;
    let namespace = namespace(&client).await;
    let put = async |object: Value| drop(apply(&client, Some(&namespace), &object).await);
    put(slice("cart", "10.0.0.1")).await;
    put(slice("web", "10.0.1.1")).await;
    put(slice("noise", "10.0.2.1")).await;
    put(upstream("cart")).await;
    let read = Read::start(client.clone(), &namespace).await;
    // At once: what was named is among what is waited for first.
    assert_eq!((read.endpoints(), read.known()), (vec!["cart 10.0.0.1".to_owned()], set(&["cart"])));
    put(slice("noise", "10.0.2.2")).await;
    put(slice("cart", "10.0.0.2")).await;
    read.has(&["cart 10.0.0.2"]).await;

    // Another one is named; meanwhile nothing is lost of what is known.
    let losses = {
        let (store, here) = (read.store.clone(), Key::new(namespace.as_str(), "cart"));
        let mut ticks = store.ticks();
        tokio::spawn(async move {
            let mut losses = 0;
            while ticks.changed().await.is_ok() {
                let left = store.read(|read| {
                    let endpoints = read.slices.get(&here).is_some();
                    (
                        endpoints,
                        read.slices_of.as_ref().is_some_and(|known| known.iter().any(|key| *key.name == *"end")),
                    )
                });
                losses += usize::from(!left.0);
                if left.1 {
                    break;
                }
            }
            losses
        })
    };
    let route = |service: &str| {
        floodway("ProxyRoute", "r", json!({"rules": [{"backends": [{"service": {"name": service, "port": 80}}]}]}))
    };
    put(route("web")).await;
    read.has(&["cart 10.0.0.2", "web 10.0.1.1"]).await;
    put(slice("web", "10.0.1.2")).await;
    read.has(&["cart 10.0.0.2", "web 10.0.1.2"]).await;
    // What is named no more goes; a Service without endpoints is known to have none.
    put(route("end")).await;
    read.has(&["cart 10.0.0.2"]).await;
    eventually("the names", async || (read.known() == set(&["cart", "end"])).then_some(())).await;
    assert_eq!(losses.await.unwrap(), 0);

    for object in [route("end"), upstream("cart")] {
        let name = object["metadata"]["name"].as_str().unwrap();
        api_of(&client, Some(&namespace), &object).delete(name, &DeleteParams::default()).await.unwrap();
    }
    read.has(&[]).await;
    put(upstream("noise")).await;
    read.has(&["noise 10.0.2.2"]).await;
    assert_eq!(read.errors(), Vec::<String>::new());
    read.watching.abort();
}

#[tokio::test]
async fn too_many_services_for_a_selector_are_read_without_one() {
    let plane = shared().await;
    let client = plane.client(ADMIN).await;
    let namespace = namespace(&client).await;
    let names: Vec<String> = (0..150).map(|name| format!("service-with-a-name-of-some-length-{name}")).collect();
    for names in names.chunks(16) {
        let backends: Vec<Value> =
            names.iter().map(|name| json!({"service": {"name": name, "port": 80}, "weight": 1})).collect();
        let route = floodway("ProxyRoute", &names[0], json!({"rules": [{"backends": backends}]}));
        apply(&client, Some(&namespace), &route).await;
    }
    apply(&client, Some(&namespace), &slice(&names[149], "10.0.0.1")).await;
    let read = Read::start(client.clone(), &namespace).await;
    assert_eq!(read.known().len(), 150);
    assert_eq!(read.endpoints().len(), 1);
    // One more is known once everything was read again.
    apply(&client, Some(&namespace), &slice("more", "10.0.0.2")).await;
    apply(&client, Some(&namespace), &upstream("more")).await;
    eventually("one more", async || read.known().contains("more").then_some(())).await;
    assert!(read.endpoints().contains(&"more 10.0.0.2".to_owned()), "{:?}", read.endpoints());
    read.watching.abort();
}

#[tokio::test]
async fn where_nothing_is_named_there_is_no_watch_that_could_be_refused() {
    let plane = shared().await;
    let client = plane.client(ADMIN).await;
    let namespace = namespace(&client).await;
    let ours = json!({
        "apiGroups": ["floodway.dev"], "resources": ["proxyroutes", "proxyupstreams", "proxypolicies"],
        "verbs": ["get", "list", "watch"],
    });
    grant_rules(&client, BLIND, Some(&namespace), "ours-alone", &[ours]).await;
    let policy = floodway("ProxyPolicy", "asked", json!({"requestLimits": {"methods": ["GET"]}}));
    apply(&client, Some(&namespace), &policy).await;
    let read = Read::start(plane.client(BLIND).await, &namespace).await;
    assert_eq!(read.errors(), Vec::<String>::new());
    // Once something is, there is.
    apply(&client, Some(&namespace), &floodway("ProxyPolicy", "asked", json!({"apiKey": {"secretName": "keys"}})))
        .await;
    eventually("a refusal", async || {
        let errors = read.errors();
        (errors.len() == 1 && errors[0].contains("\"Secret\"")).then_some(())
    })
    .await;
    read.watching.abort();
}
