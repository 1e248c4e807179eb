//! What is installed: the Deployment or DaemonSet, its pods, and the settings that they read.

use clap::Parser as _;
use serde_json::Value;
use std::collections::BTreeMap;

use super::Visit;
use super::ask;
use super::report::{Check, Report, counted};
use crate::app::configure;
use crate::args::{Args, Command};
use crate::settings::Settings;

/// What the chart labels what it installs with.
const LABEL: &str = "app.kubernetes.io/name=floodway";
/// The container of the gateway.
const CONTAINER: &str = "floodway";
/// The entry of the ConfigMap that holds the settings, and the volume that has it.
const ENTRY: &str = "settings.yaml";
const VOLUME: &str = "settings";

/// What is there of Floodway.
#[derive(Debug, Default)]
pub(super) struct Installation {
    /// Deployments and DaemonSets whose pods are gateways.
    workloads: Vec<Value>,
    /// The names of their pods.
    pub(super) pods: Vec<String>,
}

impl Installation {
    /// Whose rights its pods have.
    pub(super) fn account(&self) -> Option<&str> {
        let template = self.workloads.first()?.pointer("/spec/template/spec")?;
        Some(template["serviceAccountName"].as_str().unwrap_or("default"))
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The container of a pod's spec that is a gateway.
fn gateway(spec: &Value) -> Option<&Value> {
    let containers = spec["containers"].as_array()?;
    containers.iter().find(|container| container["name"] == CONTAINER && container["args"][0] == "gateway")
}

impl Visit<'_> {
    /// What is installed in the namespace, and whether it runs.
    pub(super) async fn installation(&self, report: &mut Report) -> Installation {
        let mut found = Installation::default();
        let mut looked = true;
        for (kind, plural) in [("Deployment", "deployments"), ("DaemonSet", "daemonsets")] {
            let path = format!("/apis/apps/v1/namespaces/{}/{plural}", self.namespace);
            match ask::list(&self.client, &path, LABEL).await {
                Ok(all) => {
                    let ours = all.into_iter().filter(|it| gateway(&it["spec"]["template"]["spec"]).is_some());
                    for workload in ours {
                        self.workload(kind, &workload, report);
                        found.workloads.push(workload);
                    }
                }
                Err(error) => {
                    looked = false;
                    self.unseen(plural, error.why(), report);
                }
            }
        }
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        match ask::list(&self.client, &path, LABEL).await {
            Ok(pods) => {
                let pods: Vec<_> = pods.iter().filter(|pod| gateway(&pod["spec"]).is_some()).collect();
                found.pods = pods.iter().map(|pod| text(pod, "/metadata/name").to_owned()).collect();
                self.pods(&pods, report);
            }
            Err(error) => self.unseen("pods", error.why(), report),
        }
        if looked && found.workloads.is_empty() {
            let message = "no Deployment or DaemonSet of Floodway is here";
            let remedy = "name its namespace with --namespace, or install it: docs/install.md";
            report.warn(Check::Installation, &self.namespace, message, remedy);
        }
        found
    }

    fn unseen(&self, plural: &str, why: &str, report: &mut Report) {
        let message = format!("{plural} could not be looked at: {why}");
        report.warn(Check::Installation, &self.namespace, message, "look as somebody who may list them");
    }

    fn workload(&self, kind: &str, workload: &Value, report: &mut Report) {
        let place = format!("{kind} {}/{}", self.namespace, text(workload, "/metadata/name"));
        let (wanted, ready) = match kind {
            "DaemonSet" => {
                (number(workload, "/status/desiredNumberScheduled"), number(workload, "/status/numberReady"))
            }
            // The API server fills in 1.
            _ => (number(workload, "/spec/replicas"), number(workload, "/status/readyReplicas")),
        };
        let message = format!("{ready} of {wanted} pods ready");
        match ready {
            ready if ready >= wanted => report.ok(Check::Installation, place, message),
            0 => {
                report.fail(Check::Installation, place, message, "/readyz of a pod, and its log, say what it waits for")
            }
            _ => {
                report.warn(Check::Installation, place, message, "/readyz of a pod, and its log, say what it waits for")
            }
        }
    }

    fn pods(&self, pods: &[&Value], report: &mut Report) {
        let mut versions: BTreeMap<(String, String), usize> = BTreeMap::new();
        for pod in pods {
            let place = format!("Pod {}/{}", self.namespace, text(pod, "/metadata/name"));
            let image = gateway(&pod["spec"]).map_or("", |container| text(container, "/image"));
            let version = text(pod, "/metadata/labels/app.kubernetes.io~1version");
            *versions.entry((version.to_owned(), image.to_owned())).or_default() += 1;
            let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
            let status = statuses.into_iter().flatten().find(|status| status["name"] == CONTAINER);
            let Some(status) = status.filter(|_| pod.pointer("/metadata/deletionTimestamp").is_none()) else {
                continue;
            };
            if let Some(reason) = status.pointer("/state/waiting/reason").and_then(Value::as_str) {
                let message = format!("it does not run: {reason} {}", text(status, "/state/waiting/message"));
                report.fail(
                    Check::Installation,
                    place,
                    message.trim_end(),
                    "kubectl describe pod, kubectl logs --previous",
                );
            } else if status["ready"] != true {
                let remedy = "its /readyz and its log say what it waits for";
                report.warn(Check::Installation, place, "it is not ready", remedy);
            }
        }
        if versions.len() > 1 {
            let all = versions
                .iter()
                .map(|((version, image), count)| format!("{} of {version} ({image})", counted(*count, "pod")));
            let message = format!("pods of several versions: {}", all.collect::<Vec<_>>().join(", "));
            let remedy = "if no upgrade is under way: kubectl rollout status tells why it does not end";
            report.warn(Check::Installation, &self.namespace, message, remedy);
        }
        let here = env!("CARGO_PKG_VERSION");
        if let Some(other) =
            versions.keys().map(|(version, _)| version).find(|version| !version.is_empty() && *version != here)
        {
            let message = format!("pods are of version {other}, and this program, which looks, is {here}");
            report.warn(Check::Installation, &self.namespace, message, "use the doctor of the version that runs there");
        }
    }

    /// The settings that the pods read, and where they are.
    ///
    /// # Errors
    /// Where they would be, and why they cannot be read.
    pub(super) async fn mounted(
        &self,
        installation: &Installation,
    ) -> Result<Option<(String, Settings)>, (String, String)> {
        let Some(workload) = installation.workloads.first() else { return Ok(None) };
        let spec = &workload["spec"]["template"]["spec"];
        let volumes = spec["volumes"].as_array().into_iter().flatten();
        let map = volumes.filter(|volume| volume["name"] == VOLUME).find_map(|it| it["configMap"]["name"].as_str());
        let Some(map) = map else { return Ok(None) };
        let place = format!("ConfigMap {}/{map}", self.namespace);
        let wrong = |why: String| (place.clone(), why);
        let path = format!("/api/v1/namespaces/{}/configmaps/{map}", self.namespace);
        let object = ask::get(&self.client, &path).await.map_err(|error| wrong(error.why().to_owned()))?;
        let file = text(&object["data"], &format!("/{ENTRY}"));
        let file = Settings::default().overlaid(ENTRY, file.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let arguments = gateway(spec).and_then(|container| container["args"].as_array()).cloned().unwrap_or_default();
        let line = ["floodway"].into_iter().chain(arguments.iter().filter_map(Value::as_str));
        let settings = match Args::try_parse_from(line) {
            Ok(Args { command: Command::Gateway(flags) }) => {
                configure::gateway_elsewhere(&flags, file).map_err(|error| wrong(error.to_string()))?
            }
            // Flags of another version: the file is what most is in.
            _ => file,
        };
        Ok(Some((place, settings)))
    }
}
