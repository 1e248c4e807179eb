//! Routes in force: who is asked for which host, and how often.

use std::net::SocketAddr;

use crate::clients::Target;
use crate::cluster::{Cluster, RELEASE, SHOP, SYSTEM, eventually};
use crate::http1::get;
use crate::load::Load;
use crate::node::ADDRESS;

pub(crate) async fn requests_go_by_host_and_weight(cluster: &Cluster) {
    let target = cluster.staged().await;
    cluster.deploy(SHOP, "next", "two", 1).await;
    cluster.expose(SHOP, "next").await;
    cluster.rolled_out(SHOP, "next").await;

    cluster.route("next", "next.test", &[("next", 1)]).await;
    let next = cluster.target("next.test").await;
    assert_eq!(cluster.answers(&next, 200).await["name"], "two");
    assert_eq!(cluster.answers(&target, 200).await["name"], "one");
    let nobody = get(target.address, "nobody.test", "/").await.unwrap();
    assert_eq!(nobody.0, 404);
    cluster.status_is_written("next").await;

    // Nine to one, of enough requests that less than a twentieth or more than a fifth would be no chance.
    cluster.route("next", "next.test", &[("web", 9), ("next", 1)]).await;
    eventually("the new weights", async || {
        let (_, body) = get(next.address, &next.host, "/").await.ok()?;
        body.contains("\"name\":\"one\"").then_some(())
    })
    .await;
    let load = Load::start(&next, 8, "/");
    load.more(1000).await;
    let tally = load.stop().await;
    tally.all_served();
    let share = tally.by_name["two"] * 100 / tally.served;
    assert!((5..=20).contains(&share), "{share} % of {tally:?}");
    cluster
        .kubectl(&["-n", SHOP, "delete", "proxyroute/next", "service/next", "deployment/next", "--wait=false"])
        .await;
}

/// The Service is of type NodePort.
pub(crate) async fn a_port_of_the_node_leads_to_it(cluster: &Cluster) {
    let target = cluster.staged().await;
    let ports = "jsonpath={.spec.ports[?(@.name=='http')].nodePort}";
    let port = cluster.kubectl(&["-n", SYSTEM, "get", "service", RELEASE, "-o", ports]).await;
    let address = SocketAddr::from((ADDRESS, port.parse().unwrap()));
    let said = cluster.answers(&Target { address, ..target }, 200).await;
    assert_eq!(said["name"], "one");
}
