//! Routes in force: who is asked for which host, and how often.

use crate::cluster::{Cluster, SHOP};
use crate::http1::get;
use crate::load::Load;

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
    crate::objects::eventually("the new weights", async || {
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
