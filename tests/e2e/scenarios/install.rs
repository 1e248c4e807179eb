//! From an empty cluster to a served route and back, by the commands of the documents.

use std::time::Duration;

use kube::Api;
use kube::api::ListParams;
use kube::discovery::{Discovery, verbs};
use tokio::time::sleep;

use crate::cluster::{Cluster, RELEASE, SHOP, SYSTEM, VALUES, eventually};
use crate::scenarios::mesh::MESH;

/// The lines that a new user copies, run as they stand in README.md. Only what this node does not have is replaced.
pub(crate) async fn five_lines_of_the_readme(cluster: &Cluster) {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let after = text.split_once("are five lines:\n\n").expect("README.md has five lines").1;
    let lines: Vec<&str> = after.lines().map_while(|line| line.strip_prefix("    ")).collect();
    let [install, deploy, route, forward, ask] = lines.as_slice() else { panic!("{lines:?}") };
    // Nothing here makes load balancers, and there is no registry to pull from.
    let install = format!("{install} --set {VALUES}");
    let deploy = deploy.replace("--image=nginx", "--image=floodway-e2e:1");
    let began = tokio::time::Instant::now();
    for line in [&*install, &deploy, route] {
        cluster.run("sh", &["-ec", line], "").await.unwrap_or_else(|said| panic!("{line}: {said}"));
    }
    cluster.is_installed(true);
    let image = std::fs::metadata(cluster.path("floodway.tar")).unwrap().len();
    cluster.figures.add("The image, as it is loaded", format!("{:.1} MB", image as f64 / 1e6));
    // In the background, in the words of the README, until it forwards.
    let forward = format!("{} >/dev/null 2>&1 & echo $!", forward.trim_end_matches('&'));
    let id = cluster.run("sh", &["-ec", &forward], "").await.unwrap();
    let answer = eventually("the answer of the last line", async || {
        let said = cluster.run("sh", &["-ec", &format!("{ask} --silent --fail")], "").await;
        said.ok().filter(|said| said.contains("\"name\":\"app\""))
    })
    .await;
    cluster.figures.add(
        "From an empty cluster to the first answer, by the five lines of the README",
        format!("{:.0} s", began.elapsed().as_secs_f64()),
    );
    assert!(answer.contains("x-forwarded-for"), "{answer}");
    cluster.run("kill", &[id.trim()], "").await.unwrap();
    cluster.kubectl(&["delete", "proxyroute/hello", "service/hello", "deployment/hello", "--wait=false"]).await;
}

pub(crate) async fn helm_test_asks_a_ready_pod(cluster: &Cluster) {
    cluster.installed().await;
    let said = cluster.helm(&["test", RELEASE, "-n", SYSTEM]).await;
    assert!(said.contains("Succeeded"), "{said}");
}

/// What docs/install.md says of removal, and then a look at everything that the API server can list.
pub(crate) async fn removal_leaves_nothing_behind(cluster: &Cluster) {
    cluster.staged().await;
    cluster.helm(&["uninstall", RELEASE, "-n", SYSTEM, "--wait"]).await;
    cluster.kubectl(&["-n", SYSTEM, "delete", "lease", "floodway-leader"]).await;
    cluster.is_installed(false);
    // Routes stay, served by nobody.
    let routes = cluster.kubectl(&["get", "proxyroutes", "-A", "-o", "name"]).await;
    assert!(routes.contains("proxyroute.floodway.dev/shop"), "{routes}");
    let definitions = ["proxyroutes.floodway.dev", "proxyupstreams.floodway.dev", "proxypolicies.floodway.dev"];
    cluster.kubectl(&[&["delete", "crd"], &definitions[..]].concat()).await;
    cluster.kubectl(&["delete", "namespace", SHOP, SYSTEM, MESH, "--ignore-not-found", "--wait=false"]).await;
    // Events tell of what was, and go by themselves; names tell of everything else.
    let left = eventually("everything to be gone", async || {
        let left = named(cluster, "floodway").await;
        if left.is_empty() { Some(left) } else { None }
    });
    let left = tokio::time::timeout(Duration::from_secs(39), left).await;
    assert!(left.is_ok(), "left behind: {:?}", named(cluster, "floodway").await);
}

/// All objects whose names or labels have the word.
async fn named(cluster: &Cluster, word: &str) -> Vec<String> {
    let discovery = loop {
        match Discovery::new(cluster.client.clone()).run().await {
            Ok(discovery) => break discovery,
            // A kind that has just gone.
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    };
    let mut found = Vec::new();
    for (resource, capabilities) in discovery.groups().flat_map(|group| group.recommended_resources()) {
        if !capabilities.supports_operation(verbs::LIST) || resource.kind == "Event" {
            continue;
        }
        let api: Api<kube::api::DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        let Ok(list) = api.list(&ListParams::default()).await else { continue };
        for object in list.items {
            let name = object.metadata.name.clone().unwrap_or_default();
            let labels = object.metadata.labels.clone().unwrap_or_default();
            if name.contains(word) || labels.iter().any(|(key, value)| key.contains(word) || value.contains(word)) {
                found.push(format!("{} {name}", resource.kind));
            }
        }
    }
    found
}
