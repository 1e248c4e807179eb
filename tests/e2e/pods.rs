//! What is asked of a pod that somebody has: how it is, its processes and their memory; and watching pods and the like.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cluster::{Cluster, PATIENCE, eventually};
use crate::node::APP_IMAGE;

/// The application in a container, which answers with `says`. Its probe bears with a machine that has much else to do: whoever ends
/// stops being an endpoint without it.
pub(crate) fn container(says: &str) -> Value {
    json!({
        "name": "app", "image": APP_IMAGE, "imagePullPolicy": "Never", "args": [says],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 10,
        },
    })
}

/// A selector of labels.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// Whether the pod counts as ready.
pub(crate) fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// How often its containers were started again.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    containers.iter().map(|container| container.restart_count).sum()
}

/// The process of a pod that runs `program`. Its cgroups are named after the pod.
pub(crate) fn process(pod: &Pod, program: &str) -> Option<u32> {
    let uid = pod.metadata.uid.as_deref()?;
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let first = command.split(|byte| *byte == 0).next()?;
        let named = Path::new(std::str::from_utf8(first).ok()?).file_name()? == program;
        (named && std::fs::read_to_string(entry.path().join("cgroup")).ok()?.contains(uid)).then_some(id)
    })
}

/// What Floodway's process in a pod holds, for a table.
pub(crate) fn memory(pod: &Pod) -> String {
    let id = process(pod, "floodway").expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let mebibytes = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    };
    let [all, own, shared] = ["VmRSS:", "RssAnon:", "RssFile:"].map(mebibytes);
    let charged = working_set(id).map(|bytes| format!("; its container is charged {:.1}", bytes / f64::from(1 << 20)));
    let charged = charged.unwrap_or_default();
    format!("{all:.1} MiB: {own:.1} of its own, {shared:.1} pages of the program, which all on a node share{charged}")
}

/// What the kubelet calls the working set of a container, and `kubectl top` shows, in bytes: what its cgroup is charged without file pages that
/// were not used lately. Nothing where the node does not account for memory.
fn working_set(id: u32) -> Option<f64> {
    let groups = std::fs::read_to_string(format!("/proc/{id}/cgroup")).ok()?;
    let of = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers {
            "" => Some((format!("/sys/fs/cgroup{path}"), "memory.current", "inactive_file ")),
            _ if controllers.split(',').any(|one| one == "memory") => {
                Some((format!("/sys/fs/cgroup/memory{path}"), "memory.usage_in_bytes", "total_inactive_file "))
            }
            _ => None,
        }
    };
    let (folder, usage, inactive) = groups.lines().find_map(of)?;
    let usage: f64 = std::fs::read_to_string(format!("{folder}/{usage}")).ok()?.trim().parse().ok()?;
    let stat = std::fs::read_to_string(format!("{folder}/memory.stat")).ok()?;
    let inactive: f64 = stat.lines().find_map(|line| line.strip_prefix(inactive))?.parse().ok()?;
    Some(usage - inactive)
}

/// Kills Floodway's process in a pod; how long the next one takes from its first instruction to saying that it is ready.
pub(crate) async fn time_to_start(cluster: &Cluster, pod: &Pod, admin: u16) -> Duration {
    let before = process(pod, "floodway");
    kill(pod, "floodway");
    let dying = pod.clone();
    let began = tokio::task::spawn_blocking(move || {
        let killed = Instant::now();
        while process(&dying, "floodway").is_none_or(|id| Some(id) == before) {
            assert!(killed.elapsed() < PATIENCE, "it was not started again");
        }
        Instant::now()
    });
    let began = began.await.unwrap();
    eventually("it to be ready", async || {
        cluster.ask(pod, admin, "/readyz").await.filter(|(status, _)| *status == 200)
    })
    .await;
    began.elapsed()
}

/// Calls `seen` with each object that matches, as it is now and whenever it changes, until the answer is dropped.
pub(crate) fn watch<K>(api: Api<K>, selector: &str, mut seen: impl FnMut(K) + 'static) -> Watching
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().labels(selector);
    let watching = tokio::task::spawn_local(async move {
        let each = watcher(api, config).applied_objects().try_for_each(|object| {
            seen(object);
            futures_util::future::ready(Ok(()))
        });
        let _ = each.await;
    });
    Watching(watching.abort_handle())
}

pub(crate) struct Watching(AbortHandle);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Kills a pod's process at once.
pub(crate) fn kill(pod: &Pod, program: &str) {
    let id = process(pod, program).unwrap_or_else(|| panic!("no process {program} in the pod"));
    let killed = Command::new("kill").args(["-KILL", &id.to_string()]).status().unwrap();
    assert!(killed.success());
}

/// How long pods that are made meanwhile take from their creation to being ready, as whoever watches sees it.
pub(crate) struct Births {
    seen: Rc<RefCell<BTreeMap<String, Birth>>>,
    _watching: Watching,
}

struct Birth {
    made: Instant,
    took: Option<Duration>,
}

impl Births {
    pub(crate) fn watch(cluster: &Cluster, namespace: &str, selector: &str) -> Births {
        let seen: Rc<RefCell<BTreeMap<String, Birth>>> = Rc::default();
        let theirs = Rc::clone(&seen);
        let watching = watch(Api::namespaced(cluster.client.clone(), namespace), selector, move |pod: Pod| {
            let mut seen = theirs.borrow_mut();
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            // One that is ready when it is first seen was there before.
            let new = || Birth { made: Instant::now(), took: ready(&pod).then_some(Duration::MAX) };
            let birth = seen.entry(uid).or_insert_with(new);
            if ready(&pod) && birth.took.is_none() {
                birth.took = Some(birth.made.elapsed());
            }
        });
        Births { seen, _watching: watching }
    }

    /// Each of them, for a table.
    pub(crate) fn told(&self) -> String {
        let seen = self.seen.borrow();
        let took = seen.values().filter_map(|birth| birth.took.filter(|took| *took != Duration::MAX));
        let took: Vec<String> = took.map(|took| format!("{:.1} s", took.as_secs_f64())).collect();
        took.join(", ")
    }
}
