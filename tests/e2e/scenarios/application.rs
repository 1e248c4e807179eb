//! What clients see when pods of the application die or are replaced.

use tokio::time::Instant;

use crate::cluster::{Cluster, SHOP, eventually};
use crate::load::Load;
use crate::pods::{kill, restarts};
use crate::streams::Streams;

const CLIENTS: usize = 8;

pub(crate) async fn a_killed_pod_loses_what_it_carried(cluster: &Cluster) {
    let target = cluster.staged().await;
    let load = Load::start(&target, CLIENTS, "/");
    load.more(200).await;
    let pod = cluster.pods(SHOP, "app=web").await.remove(0);
    kill(&pod, "app");
    eventually("the pod to be started again", async || {
        let pods = cluster.pods(SHOP, "app=web").await;
        pods.iter().any(|other| other.metadata.uid == pod.metadata.uid && restarts(other) == 1).then_some(())
    })
    .await;
    cluster.rolled_out(SHOP, "web").await;
    load.more(200).await;
    let tally = load.stop().await;
    // Each client has one request under way at most, and each was answered before and after.
    assert!(tally.failures.len() <= CLIENTS, "{tally:?}");
    let figure = format!("{} of {}, with {CLIENTS} clients", tally.failures.len(), tally.served);
    cluster.figures.add("Requests that failed when a pod of the application was killed", figure);
}

pub(crate) async fn a_rollout_fails_nothing_and_cuts_nothing(cluster: &Cluster) {
    let target = cluster.staged().await;
    let (load, streams) = (Load::start(&target, CLIENTS, "/"), Streams::start(&target, 20, 20));
    streams.open(40).await;
    load.more(200).await;
    let began = Instant::now();
    cluster.restart(SHOP, "web").await;
    cluster.rolled_out(SHOP, "web").await;
    let took = began.elapsed().as_secs_f64();
    streams.open(40).await;
    load.more(200).await;
    let (tally, streams) = (load.stop().await, streams.stop().await);
    tally.all_served();
    streams.all_polite();
    assert!(streams.polite() >= 40, "{streams:?}");
    assert!(tally.by_pod.len() >= 6, "{:?}", tally.by_pod);
    cluster.figures.add("Rollout of the application, 3 pods", format!("{took:.0} s"));
    cluster.figures.add("— requests that failed", format!("0 of {}", tally.served));
    cluster.figures.add("— streams that ended, of 20 event streams and 20 WebSockets", streams.ends());
}
