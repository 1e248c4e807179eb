//! What people do with a Floodway that is there: they ask how it is, look at objects, and have it tell more.

use serde_json::json;

use crate::cluster::{Cluster, RELEASE, SHOP, SYSTEM, eventually};
use crate::pods::restarts;

/// From within, with the rights of a pod, and from outside as an administrator.
pub(crate) async fn the_doctor_says_that_all_is_well_and_names_what_is_not(cluster: &Cluster) {
    cluster.staged().await;
    cluster.status_is_written("shop").await;
    let deployment = format!("deployment/{RELEASE}");
    let inside = ["-n", SYSTEM, "exec", &deployment, "--", "/floodway", "doctor"];
    for (who, said) in [
        ("inside", cluster.run("kubectl", &inside, "").await),
        ("outside", cluster.run(env!("CARGO_BIN_EXE_floodway"), &["doctor"], "").await),
    ] {
        let well = said.as_ref().is_ok_and(|said| said.contains(" 0 failures") && said.contains("shop.test"));
        assert!(well, "{who}: {said:?}");
    }

    let rules = json!([{"backends": [{"service": {"name": "nobody", "port": 80}}]}]);
    let broken = json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": "broken"},
        "spec": {"hosts": ["broken.test"], "rules": rules},
    });
    cluster.apply(SHOP, broken).await;
    let said = cluster.run("kubectl", &inside, "").await.expect_err("a reference is broken");
    assert!(said.contains("shop/broken") && said.contains("Service shop/nobody does not exist"), "{said}");
    // So do the columns, and an event.
    let table = ["-n", SHOP, "get", "proxyroute", "broken", "-o", "wide"];
    eventually("the table to say so", async || {
        let said = cluster.kubectl(&table).await;
        (said.contains("RESOLVED") && said.contains("False")).then_some(())
    })
    .await;
    let events = ["-n", SHOP, "get", "events", "--field-selector", "involvedObject.name=broken"];
    eventually("an event", async || cluster.kubectl(&events).await.contains("BackendNotFound").then_some(())).await;
    cluster.kubectl(&["-n", SHOP, "delete", "proxyroute", "broken"]).await;

    let explained = cluster.kubectl(&["explain", "proxyroute.spec.rules.timeouts"]).await;
    assert!(explained.contains("responseHead") && explained.contains("DESCRIPTION"), "{explained}");
}

/// The one setting that is followed: no pod is replaced for it.
pub(crate) async fn the_log_tells_more_without_a_restart(cluster: &Cluster) {
    cluster.staged().await;
    let ids = async || -> Vec<_> {
        let pods = cluster.gateways(RELEASE, SYSTEM).await;
        pods.iter().map(|pod| (pod.metadata.uid.clone(), restarts(pod))).collect()
    };
    let before = ids().await;
    let upgrade = ["upgrade", RELEASE, "charts/floodway", "-n", SYSTEM, "--reset-then-reuse-values", "--wait"];
    let set = async |level: &str| {
        cluster.helm(&[&upgrade[..], &["--set", &format!("settings.log.level={level}")]].concat()).await;
    };
    set("debug").await;
    for pod in cluster.gateways(RELEASE, SYSTEM).await {
        eventually("the level to be in force", async || {
            cluster.ask(&pod, 9901, "/log").await.filter(|(_, said)| said.trim() == "debug")
        })
        .await;
    }
    set("info").await;
    assert_eq!(ids().await, before);
}
