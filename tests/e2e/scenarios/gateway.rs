//! What clients see when pods of Floodway are replaced, or die.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::TryStreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cluster::{Cluster, RELEASE, SYSTEM, kill, ready, restarts};
use crate::load::Load;
use crate::objects::eventually;
use crate::streams::Streams;

const CLIENTS: usize = 8;

pub(crate) async fn a_rollout_fails_nothing_and_cuts_nothing(cluster: &Cluster) {
    let target = cluster.staged().await;
    let (load, streams) = (Load::start(&target, CLIENTS, "/"), Streams::start(&target, 50, 50));
    streams.open(100).await;
    load.more(200).await;
    let least = LeastReady::watch(cluster);
    let began = Instant::now();
    cluster.restart(SYSTEM, RELEASE).await;
    cluster.kubectl(&["-n", SYSTEM, "rollout", "status", &format!("deployment/{RELEASE}"), "--timeout=120s"]).await;
    let ready = began.elapsed().as_secs_f64();
    cluster.rolled_out(SYSTEM, RELEASE).await;
    let gone = began.elapsed().as_secs_f64();
    streams.open(100).await;
    load.more(200).await;
    let (tally, streams) = (load.stop().await, streams.stop().await);
    tally.all_served();
    streams.all_polite();
    assert!(streams.polite() >= 100, "{streams:?}");
    assert!(least.get() >= 1, "there was no ready pod for a while");
    let figure = |what: &str, value: String| cluster.figures.add(what, value);
    figure("Rollout of Floodway, 2 pods, until the new ones are ready", format!("{ready:.1} s"));
    figure("— until the old ones are gone (5 s of delay, 15 s of grace)", format!("{gone:.1} s"));
    figure("— ready pods, at least", least.get().to_string());
    figure("— requests that failed", format!("0 of {}", tally.served));
    figure("— connections that were refused", tally.refused.to_string());
    figure("— the slowest request", format!("{} ms", tally.slowest.as_millis()));
    figure("— streams that ended, of 50 event streams and 50 WebSockets", streams.ends());
    figure("— streams that were cut, events that were missed", "0, 0".to_owned());
    figure("— the longest that a client was without its stream", format!("{} ms", streams.away.as_millis()));
}

pub(crate) async fn a_killed_process_loses_what_it_carried(cluster: &Cluster) {
    let target = cluster.staged().await;
    let (load, streams) = (Load::start(&target, CLIENTS, "/"), Streams::start(&target, 10, 10));
    streams.open(20).await;
    load.more(200).await;
    let pod = cluster.gateways(RELEASE, SYSTEM).await.remove(0);
    let before = restarts(&pod);
    kill(&pod, "floodway");
    eventually("it to be started again, and ready", async || {
        let pods = cluster.gateways(RELEASE, SYSTEM).await;
        let again = pods.into_iter().find(|other| other.metadata.uid == pod.metadata.uid)?;
        (restarts(&again) > before && ready(&again)).then_some(())
    })
    .await;
    streams.open(20).await;
    load.more(200).await;
    let (tally, streams) = (load.stop().await, streams.stop().await);
    // A client has one request under way, at most; what waits for a connection has lost nothing.
    assert!(tally.failures.len() <= CLIENTS, "{tally:?}");
    // A stream that was just being opened, on a connection that the kernel had taken for the process, was carried by it, too.
    assert!(streams.cut.len() <= 20 && streams.failures.len() <= 20, "{streams:?}");
    let lost = format!("{} of {}, with {CLIENTS} clients", tally.failures.len(), tally.served);
    cluster.figures.add("Requests that failed when one of two processes of Floodway was killed", lost);
    cluster.figures.add("— streams that were cut, of 20", streams.cut.len().to_string());
    cluster.figures.add("— streams that were cut while they were opened", streams.failures.len().to_string());
    cluster
        .figures
        .add("— the longest that a client was without its stream", format!("{} ms", streams.away.as_millis()));
}

pub(crate) async fn the_holder_of_the_lease_goes_and_statuses_go_on(cluster: &Cluster) {
    let target = cluster.staged().await;
    let holder = async || {
        let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), SYSTEM);
        leases.get("floodway-leader").await.ok()?.spec?.holder_identity.filter(|name| !name.is_empty())
    };
    let load = Load::start(&target, CLIENTS, "/");
    // Asked to go it gives the lease back; gone without a word, the lease has to run out.
    for (at_once, host) in [(false, "asked.test"), (true, "unasked.test")] {
        let leads = eventually("a holder of the lease", holder).await;
        let pods = cluster.gateways(RELEASE, SYSTEM).await;
        let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&leads)).unwrap();
        let began = Instant::now();
        cluster.delete(pod, at_once).await;
        eventually("another holder", async || holder().await.filter(|name| *name != leads)).await;
        cluster.route("lease", host, &[("web", 1)]).await;
        cluster.status_is_written("lease").await;
        let how = if at_once { "was deleted without grace" } else { "was told to go" };
        let figure = format!("{:.1} s", began.elapsed().as_secs_f64());
        cluster.figures.add(format!("From the holder of the lease, who {how}, to a status written by another"), figure);
        cluster.rolled_out(SYSTEM, RELEASE).await;
    }
    load.more(200).await;
    let tally = load.stop().await;
    // The second one lost what it carried; the first one nothing, so that there are not more than one for each client.
    assert!(tally.failures.len() <= CLIENTS, "{tally:?}");
    cluster.kubectl(&["-n", crate::cluster::SHOP, "delete", "proxyroute/lease"]).await;
}

/// The least number of ready pods that the Service of Floodway had, as whoever watches its endpoints saw it.
struct LeastReady {
    least: Rc<Cell<usize>>,
    watching: AbortHandle,
}

impl LeastReady {
    fn watch(cluster: &Cluster) -> LeastReady {
        let least = Rc::new(Cell::new(usize::MAX));
        let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), SYSTEM);
        let config = watcher::Config::default().labels(&format!("kubernetes.io/service-name={RELEASE}"));
        let seen = Rc::clone(&least);
        let watching = tokio::task::spawn_local(async move {
            let slices = watcher(slices, config).applied_objects();
            let each = slices.try_for_each(|slice| {
                let endpoints = slice.endpoints;
                let ready = endpoints.iter().filter(|endpoint| {
                    endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
                });
                seen.set(seen.get().min(ready.count()));
                futures_util::future::ready(Ok(()))
            });
            let _ = each.await;
        });
        LeastReady { least, watching: watching.abort_handle() }
    }

    fn get(&self) -> usize {
        self.least.get()
    }
}

impl Drop for LeastReady {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
