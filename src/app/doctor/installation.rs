//! What is installed: the Deployment or DaemonSet, that of the injector, their pods, and the settings that the gateway's read.

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
const LABEL: &str = "app.kubernetes.io/name in (floodway,floodway-injector)";

/// What pods of an installation do: the container that does it, and the subcommand that this runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    check: Check,
    container: &'static str,
    command: &'static str,
}

const GATEWAY: Part = Part { check: Check::Installation, container: "floodway", command: "gateway" };
pub(super) const INJECTOR: Part = Part { check: Check::Injector, container: "injector", command: "injector" };

impl Part {
    /// The container of a pod's spec that does it.
    pub(super) fn of(self, spec: &Value) -> Option<&Value> {
        let mut containers = spec["containers"].as_array()?.iter();
        containers.find(|it| it["name"] == self.container && it["args"][0] == self.command)
    }

    /// The arguments of that container, as far as this program reads them.
    pub(super) fn arguments(self, spec: &Value) -> Option<Args> {
        let arguments = self.of(spec)?["args"].as_array()?;
        Args::try_parse_from(["floodway"].into_iter().chain(arguments.iter().filter_map(Value::as_str))).ok()
    }
}

/// The entry of the ConfigMap that holds the settings.
const ENTRY: &str = "settings.yaml";

/// What is there of Floodway.
#[derive(Debug, Default)]
pub(super) struct Installation {
    /// Deployments and DaemonSets whose pods are gateways.
    workloads: Vec<Value>,
    /// The names of their pods.
    pub(super) pods: Vec<String>,
    /// The Deployment of the injector.
    pub(super) injector: Option<Value>,
}

impl Installation {
    /// Whose rights its pods have.
    pub(super) fn account(&self) -> Option<&str> {
        let template = self.workloads.first()?.pointer("/spec/template/spec")?;
        Some(template["serviceAccountName"].as_str().unwrap_or("default"))
    }
}

/// A text within a value, empty if it is not there.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number within a value, 0 if it is not there.
pub(super) fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
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
                    for workload in all {
                        let spec = &workload["spec"]["template"]["spec"];
                        if GATEWAY.of(spec).is_some() {
                            self.workload(GATEWAY, kind, &workload, report);
                            found.workloads.push(workload);
                        } else if INJECTOR.of(spec).is_some() {
                            self.workload(INJECTOR, kind, &workload, report);
                            found.injector = Some(workload);
                        }
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
                for part in [GATEWAY, INJECTOR] {
                    let pods: Vec<_> = pods.iter().filter(|pod| part.of(&pod["spec"]).is_some()).collect();
                    self.pods(part, &pods, report);
                }
                let gateways = pods.iter().filter(|pod| GATEWAY.of(&pod["spec"]).is_some());
                found.pods = gateways.map(|pod| text(pod, "/metadata/name").to_owned()).collect();
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

    fn workload(&self, part: Part, kind: &str, workload: &Value, report: &mut Report) {
        let place = format!("{kind} {}/{}", self.namespace, text(workload, "/metadata/name"));
        let (wanted, ready) = match kind {
            "DaemonSet" => {
                (number(workload, "/status/desiredNumberScheduled"), number(workload, "/status/numberReady"))
            }
            // The API server fills in 1.
            _ => (number(workload, "/spec/replicas"), number(workload, "/status/readyReplicas")),
        };
        let message = format!("{ready} of {wanted} pods ready");
        let remedy = "/readyz of a pod, and its log, say what it waits for";
        match ready {
            0 if wanted == 0 => {
                report.fail(part.check, place, message, "see its replicas, or the nodes that it asks for")
            }
            0 => report.fail(part.check, place, message, remedy),
            ready if ready >= wanted => report.ok(part.check, place, message),
            _ => report.warn(part.check, place, message, remedy),
        }
    }

    fn pods(&self, part: Part, pods: &[&Value], report: &mut Report) {
        let mut versions: BTreeMap<(String, String), usize> = BTreeMap::new();
        for pod in pods {
            let place = format!("Pod {}/{}", self.namespace, text(pod, "/metadata/name"));
            let image = part.of(&pod["spec"]).map_or("", |container| text(container, "/image"));
            let version = text(pod, "/metadata/labels/app.kubernetes.io~1version");
            *versions.entry((version.to_owned(), image.to_owned())).or_default() += 1;
            let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
            let status = statuses.into_iter().flatten().find(|status| status["name"] == part.container);
            let Some(status) = status.filter(|_| pod.pointer("/metadata/deletionTimestamp").is_none()) else {
                continue;
            };
            if let Some(reason) = status.pointer("/state/waiting/reason").and_then(Value::as_str) {
                let message = format!("it does not run: {reason} {}", text(status, "/state/waiting/message"));
                report.fail(part.check, place, message.trim_end(), "kubectl describe pod, kubectl logs --previous");
            } else if status["ready"] != true {
                let remedy = "its /readyz and its log say what it waits for";
                report.warn(part.check, place, "it is not ready", remedy);
            }
        }
        if versions.len() > 1 {
            let all = versions
                .iter()
                .map(|((version, image), count)| format!("{} of {version} ({image})", counted(*count, "pod")));
            let message = format!("pods of several versions: {}", all.collect::<Vec<_>>().join(", "));
            let remedy = "if no upgrade is under way: kubectl rollout status tells why it does not end";
            report.warn(part.check, &self.namespace, message, remedy);
        }
        let here = env!("CARGO_PKG_VERSION");
        if let Some(other) =
            versions.keys().map(|(version, _)| version).find(|version| !version.is_empty() && *version != here)
        {
            let message = format!("pods are of version {other}, and this program, which looks, is {here}");
            report.warn(part.check, &self.namespace, message, "use the doctor of the version that runs there");
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
        let Some((place, file)) = self.mounted_file(spec, "settings", ENTRY).await? else { return Ok(None) };
        let wrong = |why: String| (place.clone(), why);
        let file = Settings::default().overlaid(ENTRY, file.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let settings = match GATEWAY.arguments(spec) {
            Some(Args { command: Command::Gateway(flags) }) => {
                configure::gateway_elsewhere(&flags, file).map_err(|error| wrong(error.to_string()))?
            }
            // Flags of another version: the file is what most is in.
            _ => file,
        };
        Ok(Some((place, settings)))
    }

    /// A file that pods read from a ConfigMap by way of a volume, and where that is.
    ///
    /// # Errors
    /// Where it would be, and why it cannot be read.
    pub(super) async fn mounted_file(
        &self,
        spec: &Value,
        volume: &str,
        entry: &str,
    ) -> Result<Option<(String, String)>, (String, String)> {
        let volumes = spec["volumes"].as_array().into_iter().flatten();
        let map = volumes.filter(|it| it["name"] == volume).find_map(|it| it["configMap"]["name"].as_str());
        let Some(map) = map else { return Ok(None) };
        let place = format!("ConfigMap {}/{map}", self.namespace);
        let path = format!("/api/v1/namespaces/{}/configmaps/{map}", self.namespace);
        match ask::get(&self.client, &path).await {
            Ok(object) => Ok(Some((place, text(&object["data"], &format!("/{entry}")).to_owned()))),
            Err(error) => Err((place, error.why().to_owned())),
        }
    }
}
