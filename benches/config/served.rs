//! From a write to the first request served by it, and the memory of the program with many routes: from files, and from
//! a real API server.

use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use kube::api::{Api, DynamicObject, WatchEvent, WatchParams};
use serde_json::Value;

use crate::control_plane::{ADMIN, ControlPlane, FLOODWAY};
use crate::measure::{Report, shown};
use crate::program::{Asker, Program, app, path, responding};

/// Routes while writes are timed, and while memory is measured.
const ROUTES: usize = 1_000;
const MANY: usize = 5_000;
/// Writes that are timed.
const TRIALS: usize = 300;

pub(crate) fn standalone(report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let empty = Program::start(&["standalone", dir], &[]);
    memory_head(report, "from files");
    memory(report, "none", &empty);
    drop(empty);

    write_apps(folder.path(), 0..ROUTES);
    let program = Program::start(&["standalone", dir], &[]);
    memory(report, &ROUTES.to_string(), &program);
    let mut asker = Asker::new(program.http);
    let mut times = Vec::new();
    for trial in 0..TRIALS {
        let host = format!("new-{trial}.example.com");
        let document = responding(&format!("new-{trial}"), &host).to_string();
        fs::write(folder.path().join("new.tmp"), document).unwrap();
        let written = Instant::now();
        fs::rename(folder.path().join("new.tmp"), folder.path().join(format!("new-{trial}.yaml"))).unwrap();
        times.push(asker.until_served(&host) - written);
        thread::sleep(Duration::from_millis(20));
    }
    drop(program);

    write_apps(folder.path(), ROUTES..MANY);
    memory(report, &MANY.to_string(), &Program::start(&["standalone", dir], &[]));
    served_head(report, "from files");
    served(report, "a file is renamed into the folder", times);
}

/// A hundred apps to a file.
fn write_apps(folder: &Path, indexes: std::ops::Range<usize>) {
    for first in indexes.step_by(100) {
        let documents: Vec<_> = (first..first + 100).flat_map(app).map(|document| document.to_string()).collect();
        fs::write(folder.join(format!("apps-{first:05}.yaml")), documents.join("\n---\n")).unwrap();
    }
}

pub(crate) fn gateway(report: &mut Report) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(from_api_server(report));
}

async fn from_api_server(report: &mut Report) {
    let plane = ControlPlane::start().await;
    let client = plane.client(ADMIN).await;
    crate::objects::create_namespace(&client, "shop").await;
    let kubeconfig = plane.kubeconfig(FLOODWAY);
    let kubeconfig = [("KUBECONFIG", kubeconfig.to_str().unwrap())];

    memory_head(report, "from an API server");
    memory(report, "none", &Program::start(&["gateway"], &kubeconfig));
    create_apps(&client, 0..ROUTES).await;
    let program = Program::start(&["gateway"], &kubeconfig);
    memory(report, &ROUTES.to_string(), &program);

    // A watch of our own tells when the API server had told everybody.
    let routes: Api<DynamicObject> = crate::objects::api_of(&client, Some("shop"), &responding("any", "any"));
    let (seen, told) = channel();
    let watched = routes.clone();
    let watching = tokio::spawn(async move {
        let version = watched.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
        let mut events = watched.watch(&WatchParams::default(), &version).await.unwrap().boxed();
        while let Ok(Some(event)) = events.try_next().await {
            if let WatchEvent::Added(object) = event {
                let _ = seen.send((object.metadata.name.unwrap_or_default(), Instant::now()));
            }
        }
    });
    let (since_write, mut since_answer, mut since_event) = (&mut Vec::new(), Vec::new(), Vec::new());
    for trial in 0..TRIALS {
        let (name, host) = (format!("new-{trial}"), format!("new-{trial}.example.com"));
        let object: DynamicObject = serde_json::from_value(responding(&name, &host)).unwrap();
        let http = program.http;
        let asking = thread::spawn(move || Asker::new(http).until_served(&host));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let written = Instant::now();
        routes.create(&Default::default(), &object).await.unwrap();
        let answered = Instant::now();
        let served = tokio::task::spawn_blocking(move || asking.join().unwrap()).await.unwrap();
        let mut event = None;
        while event.is_none() {
            event = told.try_iter().find(|(told, _)| *told == name).map(|(_, when)| when);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        since_write.push(served.duration_since(written));
        since_answer.push(served.saturating_duration_since(answered));
        since_event.extend(event.map(|event| served.saturating_duration_since(event)));
    }
    watching.abort();
    drop(program);

    create_apps(&client, ROUTES..MANY).await;
    memory(report, &MANY.to_string(), &Program::start(&["gateway"], &kubeconfig));
    served_head(report, "from an API server");
    served(report, "the client sends the write", std::mem::take(since_write));
    served(report, "the API server answers the write", since_answer);
    served(report, "another watcher gets the event", since_event);
}

async fn create_apps(client: &kube::Client, indexes: std::ops::Range<usize>) {
    let created = futures_util::stream::iter(indexes.flat_map(app)).map(|document: Value| async move {
        crate::objects::apply(client, Some("shop"), &document).await;
    });
    created.buffer_unordered(32).collect::<()>().await;
}

fn memory_head(report: &mut Report, source: &str) {
    let size = fs::metadata(path()).unwrap().len();
    report.table(
        &format!("Start and resident memory of the program ({:.1} MB, stripped), {source}", size as f64 / 1e6),
        &["Routes, each with Service and slice", "Ready after", "At rest", "Highest so far"],
    );
}

fn memory(report: &mut Report, routes: &str, program: &Program) {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    report.row(&[routes, &shown(program.ready), &megabytes(program.resident()), &megabytes(program.peak())]);
}

fn served_head(report: &mut Report, source: &str) {
    report.table(
        &format!("To the first request served by a new route, {source}; {ROUTES} routes, {TRIALS} writes"),
        &["From when", "p50", "p99", "Longest"],
    );
}

fn served(report: &mut Report, from: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| shown(times[(times.len() - 1) * percent / 100]);
    report.row(&[from, &at(50), &at(99), &at(100)]);
}
