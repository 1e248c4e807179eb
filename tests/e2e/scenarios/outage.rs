//! The API server goes and comes back.

use tokio::time::Instant;

use crate::cluster::{Cluster, SHOP};
use crate::load::Load;
use crate::streams::Streams;

pub(crate) async fn traffic_goes_on_without_the_api_server(cluster: &Cluster) {
    let target = cluster.staged().await;
    let (load, streams) = (Load::start(&target, 8, "/"), Streams::start(&target, 10, 10));
    streams.open(20).await;
    load.more(200).await;
    cluster.plane().stop_api_server();
    load.more(2000).await;
    cluster.plane().start_api_server().await;
    let began = Instant::now();
    cluster.route("after", "after.test", &[("web", 1)]).await;
    let after = cluster.target("after.test").await;
    cluster.answers(&after, 200).await;
    let took = began.elapsed().as_secs_f64();
    cluster.status_is_written("after").await;
    let (tally, streams) = (load.stop().await, streams.stop().await);
    tally.all_served();
    streams.all_polite();
    assert_eq!(streams.polite(), 0, "an outage ends no stream: {streams:?}");
    cluster.figures.add("Requests that failed while the API server was away", format!("0 of {}", tally.served));
    cluster.figures.add("— from its return to a route that was made then", format!("{took:.1} s"));
    cluster.kubectl(&["-n", SHOP, "delete", "proxyroute/after"]).await;
}
