//! What is told of a scenario that fails: where and why, and what somebody wants to know who reads of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::cluster::Cluster;

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what panics say until it is asked for, so that it stands below the name of its scenario.
pub(crate) fn catch() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let said = panic.payload_as_str().unwrap_or("a panic without words");
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{place}: {said}"));
    }));
}

/// What was said since the last time, indented.
pub(crate) fn reason() -> String {
    let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    let lines: Vec<String> =
        panics.iter().flat_map(|said| said.lines()).map(|line| format!("        {line}")).collect();
    lines.join("\n")
}

/// Writes the state of the cluster and the logs of all pods into `folder`, and prints the parts that mostly tell.
pub(crate) async fn diagnose(cluster: &Cluster, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    // Logs of pods that are deleted are gone soon.
    let logs = folder.with_file_name("pods");
    let _ = Command::new("cp").arg("-a").arg(logs).arg(folder).status();
    for (name, command, shown) in [
        ("pods", &["get", "pods", "-A", "-o", "wide"][..], 40),
        (
            "warnings",
            &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp", "--field-selector=type=Warning"],
            10,
        ),
        ("events", &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"], 0),
        ("objects", &["get", "proxyroutes,proxyupstreams,proxypolicies", "-A", "-o", "yaml"], 0),
        ("described", &["describe", "pods", "-A"], 0),
    ] {
        let said = cluster.run("kubectl", command, "").await.unwrap_or_else(|said| said);
        fs::write(folder.join(format!("{name}.txt")), &said).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        if shown > 0 {
            println!("    --- kubectl {}", command.join(" "));
        }
        lines[lines.len().saturating_sub(shown)..].iter().for_each(|line| println!("    {line}"));
    }
}
