//! What clients see when pods of Floodway are replaced, or die.

use std::cell::Cell;
use std::rc::Rc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::{Cluster, RELEASE, SYSTEM, eventually};
use crate::load::Load;
use crate::pods::{Births, Watching, memory, ready, restarts, time_to_start, watch};
use crate::streams::Streams;

const CLIENTS: usize = 8;
/// The pods of the release.
const PODS: &str = "app.kubernetes.io/name=floodway,app.kubernetes.io/instance=floodway";

/// `helm upgrade` with other settings, which replaces all pods, and `helm rollback`, which does so again.
pub(crate) async fn an_upgrade_and_a_rollback_fail_nothing_and_cut_nothing(cluster: &Cluster) {
    let target = cluster.staged().await;
    let said = cluster.helm(&["history", RELEASE, "-n", SYSTEM, "-o", "json"]).await;
    let history: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
    let before = history.last().unwrap()["revision"].to_string();
    let pod = cluster.gateways(RELEASE, SYSTEM).await.remove(0);
    cluster.figures.add("Resident memory of a pod of Floodway that serves next to nothing", memory(&pod));

    let (load, streams) = (Load::start(&target, CLIENTS, "/"), Streams::start(&target, 50, 50));
    streams.open(100).await;
    load.more(200).await;
    let (least, births) = (LeastReady::watch(cluster), Births::watch(cluster, SYSTEM, PODS));
    let began = Instant::now();
    let upgrade = ["upgrade", RELEASE, "charts/floodway", "-n", SYSTEM, "--reset-then-reuse-values", "--wait"];
    cluster.helm(&[&upgrade[..], &["--set", "settings.limits.connections=9999,drain.graceSeconds=5"]].concat()).await;
    let ready = began.elapsed().as_secs_f64();
    let births = births.told();
    cluster.rolled_out(SYSTEM, RELEASE).await;
    let gone = began.elapsed().as_secs_f64();
    streams.open(100).await;
    load.more(200).await;
    let began = Instant::now();
    cluster.helm(&["rollback", RELEASE, &before, "-n", SYSTEM, "--wait"]).await;
    cluster.rolled_out(SYSTEM, RELEASE).await;
    let back = began.elapsed().as_secs_f64();
    streams.open(100).await;
    load.more(200).await;
    let (tally, streams) = (load.stop().await, streams.stop().await);
    tally.all_served();
    streams.all_polite();
    assert!(streams.polite() >= 200, "{streams:?}");
    assert!(least.get() >= 1, "there was no ready pod for a while");
    let figure = |what: &str, value: String| cluster.figures.add(what, value);
    figure("Rollout of Floodway, 2 pods, by `helm upgrade`, until the new ones are ready", format!("{ready:.1} s"));
    figure("— from a pod being made to it being ready", births);
    figure("— until the old ones are gone (5 s of delay, 15 s of grace)", format!("{gone:.1} s"));
    figure("— and back by `helm rollback` (5 s of delay, 5 s of grace)", format!("{back:.1} s"));
    figure("— ready pods, at least", least.get().to_string());
    figure("— requests that failed", format!("0 of {}", tally.served));
    figure("— connections that were refused", tally.refused.to_string());
    figure("— the slowest request", format!("{} ms", tally.slowest.as_millis()));
    figure("— streams that ended, of 50 event streams and 50 WebSockets, there and back", streams.ends());
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
    let took = time_to_start(cluster, &pod, 9901).await;
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
    cluster.figures.add(
        "From the start of Floodway's process to its first answer that it is ready",
        format!("{} ms", took.as_millis()),
    );
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
        let is_leader = |pod: &&Pod| pod.metadata.name.as_ref() == Some(&leads);
        let pod = pods.iter().find(is_leader).unwrap();
        let began = Instant::now();
        if at_once {
            cluster.delete(pod, true).await;
        } else {
            evicted_one_by_one(cluster, pod, pods.iter().find(|pod| !is_leader(pod)).unwrap()).await;
        }
        eventually("another holder", async || holder().await.filter(|name| *name != leads)).await;
        cluster.route("lease", host, &[("web", 1)]).await;
        cluster.status_is_written("lease").await;
        let how = if at_once { "was deleted without grace" } else { "was evicted" };
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

/// Evicts `first`, as whoever drains a node does. Then `second` is refused: the PodDisruptionBudget keeps one.
async fn evicted_one_by_one(cluster: &Cluster, first: &Pod, second: &Pod) {
    // The client that the tests have would ask again and again for some seconds.
    let evict = async |pod: &Pod| {
        let name = pod.metadata.name.as_deref().unwrap();
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}/eviction");
        cluster.run("kubectl", &["create", "--raw", &path, "-f", "-"], &eviction.to_string()).await
    };
    // The budget may still be counting those that were replaced before.
    eventually("an eviction to be granted", async || evict(first).await.ok()).await;
    let refused = evict(second).await.expect_err("one of two pods is gone");
    assert!(refused.contains("disruption budget"), "{refused}");
}

/// The least number of ready pods that the Service of Floodway had, as whoever watches its endpoints saw it.
struct LeastReady {
    least: Rc<Cell<usize>>,
    _watching: Watching,
}

impl LeastReady {
    fn watch(cluster: &Cluster) -> LeastReady {
        let least = Rc::new(Cell::new(usize::MAX));
        let seen = Rc::clone(&least);
        let slices = Api::namespaced(cluster.client.clone(), SYSTEM);
        let of = format!("kubernetes.io/service-name={RELEASE}");
        let _watching = watch(slices, &of, move |slice: EndpointSlice| {
            let ready = slice.endpoints.iter().filter(|endpoint| {
                endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
            });
            seen.set(seen.get().min(ready.count()));
        });
        LeastReady { least, _watching }
    }

    fn get(&self) -> usize {
        self.least.get()
    }
}
