//! Secrets and ConfigMaps: those that are meant for Floodway are read, others are not, and without the right to read any
//! the gateway serves what needs none.

use std::collections::BTreeMap;
use std::sync::Arc;

use floodway::ready::Ready;
use floodway::source::{Store, kube as source};
use floodway::telemetry::Telemetry;
use k8s_openapi::ByteString;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::control_plane::{ADMIN, BLIND, FLOODWAY, shared};
use crate::gateway::{Gateway, Options};
use crate::objects::{api_of, apply, eventually, grant_without_secrets, namespace, responding};

fn secret(name: &str, kind: &str, labels: Value, content: &str) -> Value {
    // A Secret of type kubernetes.io/tls has to have both of its entries.
    let data = json!({"tls.crt": "", "tls.key": ByteString(content.into())});
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}, "type": kind,
        "data": data,
    })
}

fn config_map(name: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"ca": "public"},
    })
}

/// The Secrets and ConfigMaps that were read, with an entry of theirs.
fn held(store: &Store) -> BTreeMap<String, String> {
    let text = |bytes: Option<&floodway::snapshot::SecretBytes>| {
        bytes.map(|bytes| bytes.expose_text().unwrap().to_owned()).unwrap_or_default()
    };
    store.read(|resources| {
        let secrets = resources.secrets.iter();
        let secrets = secrets.map(|(key, secret)| (format!("Secret {}", key.name), text(secret.entry("tls.key"))));
        let maps = resources.config_maps.iter();
        secrets.chain(maps.map(|(key, map)| (format!("ConfigMap {}", key.name), text(map.entry("ca"))))).collect()
    })
}

#[tokio::test]
async fn what_is_meant_for_floodway_is_read_and_nothing_else() {
    let plane = shared().await;
    let admin = plane.client(ADMIN).await;
    let namespace = namespace(&admin).await;
    let used = || json!({"floodway.dev/use": "true"});
    let (tls, opaque) = ("kubernetes.io/tls", "Opaque");
    for object in [
        secret("tls", tls, json!({}), "one"),
        secret("both", tls, used(), "two"),
        secret("used", opaque, used(), "three"),
        secret("plain", opaque, json!({}), "hush"),
        secret("unused", opaque, json!({"floodway.dev/use": "false"}), "hush"),
        config_map("map", used()),
        config_map("other", json!({})),
    ] {
        apply(&admin, Some(&namespace), &object).await;
    }

    // With exactly the rules of the chart.
    let (store, ready) = (Store::default(), Ready::default());
    let watches = source::Watches {
        watcher: source::Watcher::Gateway,
        namespaces: vec![namespace.clone()],
        policies: Some(vec![namespace.clone()]),
        secrets: Some(vec![namespace.clone()]),
        store: store.clone(),
        ready: ready.clone(),
        metrics: Telemetry::default().metrics().clone(),
        seen: Arc::new(|_, _, _| {}),
    };
    let (synced, first) = tokio::sync::oneshot::channel();
    let watching = tokio::spawn(source::run(plane.client(FLOODWAY).await, watches, synced));
    first.await.unwrap();
    let expected = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
        entries.iter().map(|(name, entry)| ((*name).to_owned(), (*entry).to_owned())).collect()
    };
    let of_cluster =
        [("Secret tls", "one"), ("Secret both", "two"), ("Secret used", "three"), ("ConfigMap map", "public")];
    // `kube-root-ca.crt` is in every namespace, and not for us.
    assert_eq!(held(&store), expected(&of_cluster));
    let both = store.read(|resources| Arc::clone(resources.secret(&namespace, "both").unwrap()));

    // A label that goes takes its Secret out, except one that is read for its type; and a new version comes in.
    for object in [
        secret("both", tls, json!({}), "two"),
        secret("used", opaque, json!({}), "three"),
        secret("plain", opaque, used(), "four"),
        secret("tls", tls, json!({}), "renewed"),
    ] {
        apply(&admin, Some(&namespace), &object).await;
    }
    api_of(&admin, Some(&namespace), &config_map("map", used())).delete("map", &DeleteParams::default()).await.unwrap();
    let then = expected(&[("Secret tls", "renewed"), ("Secret both", "two"), ("Secret plain", "four")]);
    eventually("the changes", async || (held(&store) == then).then_some(())).await;
    let still = store.read(|resources| Arc::clone(resources.secret(&namespace, "both").unwrap()));
    assert!(Arc::ptr_eq(&both, &still), "one whose data did not change is the same");
    watching.abort();
}

#[tokio::test]
async fn without_the_right_to_read_secrets_everything_else_is_served() {
    let plane = shared().await;
    let admin = plane.client(ADMIN).await;
    let namespace = namespace(&admin).await;
    apply(&admin, Some(&namespace), &responding("a", "a.test", "served")).await;
    grant_without_secrets(&admin, BLIND, &namespace).await;
    let options = Options { user: BLIND, namespaces: &[&namespace], pod_namespace: &namespace, args: &["--log=info"] };
    let gateway = Gateway::ready(plane, options).await;
    gateway.answers("a.test", 200, "served").await;
    for kind in ["Secret", "ConfigMap"] {
        let told = format!("not allowed to list and watch {kind}:");
        eventually("a word in the log", async || gateway.log().contains(&told).then_some(())).await;
        eventually("more attempts", async || {
            (gateway.metric("floodway_source_errors_total", &[&format!("\"{kind}\"")]).await > Some(4.0)).then_some(())
        })
        .await;
        assert_eq!(gateway.log().matches(&told).count(), 1, "{}", gateway.log());
        assert_eq!(gateway.metric("floodway_source_connected", &[&format!("\"{kind}\"")]).await, Some(0.0));
    }
    assert!(gateway.log().contains("set kubernetes.secrets.watch to false"), "{}", gateway.log());
    apply(&admin, Some(&namespace), &responding("a", "a.test", "on")).await;
    gateway.answers("a.test", 200, "on").await;
}
