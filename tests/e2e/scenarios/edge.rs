//! The other ways to install Floodway, together in one release: a pod on each node with ports of the node, for one namespace and without
//! rights anywhere else, under a NetworkPolicy. What the network plugin makes of the latter is its affair: that of the tests enforces none.

use std::net::SocketAddr;

use serde_json::json;

use crate::cluster::{Cluster, RELEASE, SHOP, SYSTEM, eventually};
use crate::http1::get;
use crate::node::ADDRESS;
use crate::objects::responding;

const EDGE: &str = "edge";
const PORT: u16 = 18080;

pub(crate) async fn a_daemon_set_serves_ports_of_the_node_and_one_namespace(cluster: &Cluster) {
    cluster.staged().await;
    let values = format!(
        "workload=DaemonSet,hostPorts.http={PORT},service.type=ClusterIP,className={EDGE},watchNamespaces={{{SHOP}}},\
         networkPolicy.enabled=true"
    );
    cluster.install(EDGE, EDGE, &["--set", &values, "--wait"]).await;
    // A route of its class where it looks, and one where it does not.
    let mut route = responding(EDGE, "edge.test", "from the node");
    route["spec"]["className"] = json!(EDGE);
    cluster.apply(SHOP, route.clone()).await;
    route["spec"]["hosts"] = json!(["elsewhere.test"]);
    cluster.apply("default", route).await;
    let node = SocketAddr::from((ADDRESS, PORT));
    eventually("an answer at the node's port", async || {
        get(node, "edge.test", "/").await.ok().filter(|(status, body)| *status == 200 && body == "from the node")
    })
    .await;
    cluster.status_is_written(EDGE).await;
    for host in ["elsewhere.test", "shop.test"] {
        assert_eq!(get(node, host, "/").await.unwrap().0, 404, "{host} is not of its namespace or class");
    }
    cluster.kubectl(&["-n", EDGE, "get", "networkpolicy/edge-floodway"]).await;

    rights_are_narrow(cluster).await;
    cluster.helm(&["uninstall", EDGE, "-n", EDGE]).await;
    cluster.kubectl(&["delete", "namespace", EDGE, "--wait=false"]).await;
    cluster.kubectl(&["-n", SHOP, "delete", "proxyroute", EDGE]).await;
    cluster.kubectl(&["-n", "default", "delete", "proxyroute", EDGE]).await;
}

/// What the accounts of the two releases may do, and what they may not.
async fn rights_are_narrow(cluster: &Cluster) {
    let (everywhere, here) = (format!("{SYSTEM}:{RELEASE}"), format!("{EDGE}:edge-floodway"));
    let group = "floodway.dev";
    for (account, namespace, verb, group, resource, may) in [
        (&everywhere, SHOP, "watch", group, "proxyroutes", true),
        (&everywhere, "default", "watch", group, "proxyroutes", true),
        (&here, SHOP, "watch", group, "proxyroutes", true),
        (&here, SHOP, "list", "", "secrets", true),
        (&here, "default", "watch", group, "proxyroutes", false),
        (&here, "default", "list", "", "services", false),
        (&here, "kube-system", "list", "", "secrets", false),
        (&here, EDGE, "list", "", "secrets", false),
    ] {
        let said = cluster.may(account, namespace, verb, group, resource).await;
        assert_eq!(said, may, "{account} may {verb} {resource} in {namespace}");
    }
    for account in [&everywhere, &here] {
        for (verb, group, resource) in [
            ("update", group, "proxyroutes"),
            ("delete", group, "proxyroutes"),
            ("create", "", "pods"),
            ("create", "", "pods/exec"),
            ("update", "", "secrets"),
            ("update", "", "services"),
            ("list", "", "nodes"),
            ("create", "", "serviceaccounts/token"),
            ("update", "apps", "deployments"),
            ("create", "rbac.authorization.k8s.io", "rolebindings"),
        ] {
            assert!(!cluster.may(account, SHOP, verb, group, resource).await, "{account} may {verb} {resource}");
        }
    }
    // The same as somebody meets it who has the token.
    let token = cluster.kubectl(&["-n", SYSTEM, "create", "token", RELEASE]).await;
    let credentials = format!("--token={}", token.trim());
    let refused = cluster.run("kubectl", &[&credentials, "-n", SHOP, "delete", "proxyroute/shop"], "").await;
    assert!(refused.as_ref().is_err_and(|said| said.contains("Forbidden")), "{refused:?}");
}
