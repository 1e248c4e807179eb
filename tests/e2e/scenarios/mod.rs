//! The scenarios, in the order in which they run: each leaves the cluster as it found it, with Floodway and the application installed,
//! until the last ones take everything away.

mod access;
mod application;
mod edge;
mod gateway;
mod injector;
mod install;
mod mesh;
mod operations;
mod outage;
mod report;
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

use crate::cluster::Cluster;

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
    routes::a_port_of_the_node_leads_to_it,
    operations::the_doctor_says_that_all_is_well_and_names_what_is_not,
    operations::the_log_tells_more_without_a_restart,
    application::a_killed_pod_loses_what_it_carried,
    application::a_rollout_fails_nothing_and_cuts_nothing,
    gateway::an_upgrade_and_a_rollback_fail_nothing_and_cut_nothing,
    gateway::a_killed_process_loses_what_it_carried,
    gateway::the_holder_of_the_lease_goes_and_statuses_go_on,
    outage::traffic_goes_on_without_the_api_server,
    access::missing_rights_are_told,
    edge::a_daemon_set_serves_ports_of_the_node_and_one_namespace,
    sidecar::a_local_sidecar_guards_the_port_and_balances,
    sidecar::a_transparent_sidecar_captures_and_probes_pass,
    sidecar::two_sidecars_speak_mutual_tls,
    sidecar::a_job_with_a_sidecar_finishes,
    sidecar::a_sidecar_outlives_the_last_request_of_its_app,
    injector::a_wrong_annotation_is_refused_in_a_sentence,
    injector::other_namespaces_are_not_concerned,
    injector::a_rollout_of_the_injector_misses_no_pod,
    injector::with_a_certificate_that_is_not_trusted_nobody_is_blocked,
    injector::without_the_injector_nobody_is_blocked,
    install::removal_leaves_nothing_behind,
];

/// Runs those whose names contain one of `wanted`, or all.
pub(crate) fn run(dir: PathBuf, wanted: &[&str]) -> ExitCode {
    let (flags, parts): (Vec<&str>, Vec<&str>) = wanted.iter().copied().partition(|word| word.starts_with("--"));
    let whole = parts.is_empty();
    let chosen = |name: &str| whole || parts.iter().any(|part| name.contains(part));
    let chosen: Vec<_> = ALL.iter().filter(|(name, _)| chosen(name)).collect();
    if chosen.is_empty() {
        println!("No scenario has {} in its name. There are:", parts.join(" or "));
        ALL.iter().for_each(|(name, _)| println!("  {name}"));
        return ExitCode::FAILURE;
    }
    report::catch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async move {
        let began = Instant::now();
        let seconds = |since: Instant| since.elapsed().as_secs_f64();
        let starting = tokio::task::spawn_local({
            let dir = dir.clone();
            async move { Cluster::start(&dir).await }
        });
        let Ok(cluster) = starting.await else {
            println!("FAILED  the node did not come up ({:.1} s)\n{}", seconds(began), report::reason());
            return ExitCode::FAILURE;
        };
        let cluster = Rc::new(cluster);
        println!("The node is ready ({:.1} s). Scenarios: {}.", seconds(began), chosen.len());
        let mut failed = Vec::new();
        for (name, scenario) in &chosen {
            let started = Instant::now();
            let mut running = tokio::task::spawn_local(scenario(Rc::clone(&cluster)));
            let problem = match tokio::time::timeout(PATIENCE, &mut running).await {
                Ok(Ok(())) => None,
                Ok(Err(_)) => Some(report::reason()),
                Err(_) => {
                    running.abort();
                    Some(format!("        it took longer than {} seconds", PATIENCE.as_secs()))
                }
            };
            let verdict = if problem.is_none() { "ok     " } else { "FAILED " };
            println!("{verdict} {name:<64} {:>6.1} s", seconds(started));
            if let Some(problem) = problem {
                println!("{problem}");
                failed.push(*name);
                report::diagnose(&cluster, &dir.join("logs").join(name.replace("::", "-"))).await;
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
        println!("\n{} scenarios, {} failed, {:.0} s.", chosen.len(), failed.len(), seconds(began));
        failed.iter().for_each(|name| println!("  failed: {name}"));
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
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
