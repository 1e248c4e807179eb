//! The scenarios, in the order in which they run: each leaves the cluster as it found it, with Floodway and the application installed,
//! until the last ones take everything away.

mod access;
mod application;
mod gateway;
mod install;
mod outage;
mod routes;
mod sidecar;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::cluster::{Cluster, RELEASE, SYSTEM};

/// Longer than any of them takes.
const PATIENCE: Duration = Duration::from_secs(240);

type Scenario = fn(Rc<Cluster>) -> LocalBoxFuture<'static, ()>;

macro_rules! scenarios {
    ($($room:ident :: $name:ident),* $(,)?) => {
        &[$((concat!(stringify!($room), "::", stringify!($name)), |cluster| {
            async move { $room::$name(&cluster).await }.boxed_local()
        })),*]
    };
}

const ALL: &[(&str, Scenario)] = scenarios![
    access::missing_definitions_are_told,
    install::five_lines_of_the_readme,
    install::helm_test_asks_a_ready_pod,
    routes::requests_go_by_host_and_weight,
    application::a_killed_pod_loses_what_it_carried,
    application::a_rollout_fails_nothing_and_cuts_nothing,
    gateway::a_rollout_fails_nothing_and_cuts_nothing,
    gateway::a_killed_process_loses_what_it_carried,
    gateway::the_holder_of_the_lease_goes_and_statuses_go_on,
    outage::traffic_goes_on_without_the_api_server,
    access::missing_rights_are_told,
    install::upgrade_and_rollback_fail_nothing,
    sidecar::a_local_sidecar_guards_the_port_and_balances,
    sidecar::a_transparent_sidecar_captures_and_probes_pass,
    sidecar::a_job_with_a_sidecar_finishes,
    sidecar::a_wrong_annotation_is_refused_in_a_sentence,
    sidecar::without_the_injector_nobody_is_blocked,
    install::removal_leaves_nothing_behind,
];

/// Runs those whose names contain one of `wanted`, or all.
pub(crate) fn run(dir: PathBuf, wanted: &[&str]) -> ExitCode {
    let (flags, parts): (Vec<&str>, Vec<&str>) = wanted.iter().copied().partition(|word| word.starts_with("--"));
    let whole = parts.is_empty();
    let chosen = |name: &str| whole || parts.iter().any(|part| name.contains(part));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async move {
        let began = Instant::now();
        let cluster = Rc::new(Cluster::start(&dir).await);
        println!("The node is ready ({:.0} s).", began.elapsed().as_secs_f64());
        let mut failed = Vec::new();
        for (name, scenario) in ALL.iter().filter(|(name, _)| chosen(name)) {
            let started = Instant::now();
            let running = tokio::task::spawn_local(scenario(Rc::clone(&cluster)));
            let problem = match tokio::time::timeout(PATIENCE, running).await {
                Ok(Ok(())) => None,
                Ok(Err(_)) => Some("failed"),
                Err(_) => Some("took too long"),
            };
            println!("{} {name} ({:.0} s)", problem.unwrap_or("ok"), started.elapsed().as_secs_f64());
            if problem.is_some() {
                failed.push(*name);
                diagnose(&cluster).await;
            }
        }
        println!("\nFigures:");
        cluster.figures.print();
        // A table of half of it, or of a run that went wrong, would take the place of a whole one.
        if flags.contains(&"--write") && whole && failed.is_empty() {
            cluster.figures.write();
        }
        if flags.contains(&"--keep") {
            explore(&dir, &cluster).await;
        }
        println!("\n{} scenarios failed {failed:?}; {:.0} s in all.", failed.len(), began.elapsed().as_secs_f64());
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}

/// What somebody wants to know who reads of a failure.
async fn diagnose(cluster: &Cluster) {
    for command in [
        &["get", "pods", "-A", "-o", "wide"][..],
        &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"],
        &["get", "proxyroutes", "-A", "-o", "wide"],
    ] {
        let said = cluster.run("kubectl", command, "").await.unwrap_or_else(|said| said);
        let lines: Vec<&str> = said.lines().collect();
        println!("--- kubectl {}\n{}", command.join(" "), lines[lines.len().saturating_sub(40)..].join("\n"));
    }
    for pod in cluster.gateways(RELEASE, SYSTEM).await {
        let log = cluster.log(&pod).await;
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        println!("--- log of {}\n{last}", pod.metadata.name.unwrap_or_default());
    }
}

/// Leaves the node up for whoever wants to look around, until it is interrupted.
async fn explore(dir: &Path, cluster: &Cluster) {
    let outside = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = outside.lines().find(|line| line.starts_with("NSpid")).unwrap_or_default().to_owned();
    let access = cluster.plane().kubeconfig(crate::control_plane::ADMIN);
    println!("\nThe node stays up until Ctrl-C ({ids}; files in {}). From another terminal:", dir.display());
    println!("  nsenter --net --mount --pid -t PID env KUBECONFIG={} bash", access.display());
    std::future::pending::<()>().await;
}
