//! Pods that ask for a sidecar: whether they have one, of the version that they would get now, and whether it may read what it needs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Visit;
use super::access::{Missing, UNKNOWN, questions};
use super::ask::{self, Of};
use super::injector::Injector;
use super::installation::text;
use super::report::{Check, Level, Report, counted, named};
use crate::app::rights::{SIDECAR_RIGHTS, Within};
use crate::injector::{Injection, PREFIX, Pod, SIDECAR, Template, inject};

/// What namespaces are labelled with whose pods may ask.
const LABEL: &str = "floodway.dev/injection=enabled";
/// Namespaces whose pods the webhook leaves alone, that of Floodway aside.
const NEVER: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
const MOST_NAMESPACES: usize = 100;
/// Pods of a namespace, and of those without the label, that are looked at.
const MOST_PODS: usize = 5_000;
const MOST_UNLABELLED: usize = 50_000;
/// Service accounts of a namespace whose rights are asked about.
const MOST_ACCOUNTS: usize = 5;

/// What was seen of the pods of a namespace.
#[derive(Default)]
struct Pods {
    /// How many ask, and of which images the sidecars are.
    asking: usize,
    images: BTreeMap<String, Vec<String>>,
    /// Those that ask and have none, with what brings them forth; and those that would be refused.
    without: Vec<(String, Option<String>)>,
    refused: BTreeMap<String, Vec<String>>,
    /// Sidecars that do not run, by the reason.
    down: BTreeMap<String, Vec<String>>,
    accounts: BTreeSet<String>,
    /// Whether one names a Secret.
    secrets: bool,
    /// What brings forth those with a sidecar, by its image.
    owners: BTreeMap<String, BTreeSet<Option<String>>>,
}

impl Visit<'_> {
    /// Looks at all pods that ask.
    pub(super) async fn sidecars(&self, injector: Injector, report: &mut Report) {
        if matches!(injector, Injector::Elsewhere) {
            return;
        }
        let labelled = match ask::list(&self.client, "/api/v1/namespaces", LABEL).await {
            Ok(labelled) => labelled,
            Err(error) => {
                if matches!(injector, Injector::Here(_)) {
                    let message = format!("namespaces could not be looked at: {}", error.why());
                    report.warn(Check::Sidecars, "", message, "look as somebody who may list them");
                }
                return;
            }
        };
        let labelled: Vec<&str> = labelled.iter().map(|namespace| text(namespace, "/metadata/name")).collect();
        let Injector::Here(template) = injector else {
            for namespace in labelled {
                let message =
                    format!("it has the label {LABEL}, and there is no injector: pods that ask get no sidecar");
                let remedy = "set injector.enabled of the chart to true, or take the label away";
                report.warn(Check::Sidecars, format!("Namespace {namespace}"), message, remedy);
            }
            return;
        };
        if labelled.is_empty() {
            let message = format!("no namespace has the label {LABEL} yet, so no pod is asked about");
            report.ok(Check::Sidecars, "", message);
        }
        for namespace in labelled.iter().take(MOST_NAMESPACES) {
            self.labelled(namespace, template.as_deref(), report).await;
        }
        if labelled.len() > MOST_NAMESPACES {
            let message =
                format!("of {} namespaces with the label {LABEL}, {MOST_NAMESPACES} were looked at", labelled.len());
            report.warn(Check::Sidecars, "", message, "");
        }
        self.unlabelled(&labelled, report).await;
    }

    /// One namespace whose pods may ask.
    async fn labelled(&self, namespace: &str, template: Option<&Template>, report: &mut Report) {
        let place = format!("Namespace {namespace}");
        if NEVER.contains(&namespace) || namespace == self.namespace {
            let message = format!("it has the label {LABEL}, and its pods get no sidecar all the same");
            return report.warn(
                Check::Sidecars,
                place,
                message,
                "move the apps to a namespace of their own, and take the label away",
            );
        }
        let mut pods = Pods::default();
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let listed = ask::pages(&self.client, &path, "", Of::Objects, MOST_PODS, |pod| pods.see(pod, template)).await;
        match listed {
            Ok(true) => {}
            Ok(false) => {
                let message = format!("of its pods {MOST_PODS} were looked at");
                report.warn(Check::Sidecars, &place, message, "");
            }
            Err(error) => {
                let message = format!("its pods could not be looked at: {}", error.why());
                report.warn(Check::Sidecars, &place, message, "look as somebody who may list them");
            }
        }
        self.rights_of_sidecars(namespace, &pods, report).await;
        pods.tell(namespace, template, report);
    }

    /// Whether the Role is there that the chart makes for `sidecar.namespaces`.
    async fn rights_of_sidecars(&self, namespace: &str, pods: &Pods, report: &mut Report) {
        let place = format!("Namespace {namespace}");
        let mut accounts: Vec<&str> = pods.accounts.iter().map(String::as_str).take(MOST_ACCOUNTS).collect();
        if accounts.is_empty() {
            accounts.push("default");
        }
        let within = |within: Within| match within {
            Within::Secrets if !pods.secrets => Vec::new(),
            _ => vec![Some(namespace.to_owned())],
        };
        let (mut told, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for account in accounts {
            let asked = SIDECAR_RIGHTS.iter().flat_map(|right| questions(*right, within)).collect();
            let whose = (namespace.to_owned(), account.to_owned());
            let Missing { rights, unknown: why, .. } = self.missing(asked, Some(&whose)).await;
            unknown.extend(why);
            for (secrets, remedy) in [
                (false, format!("add {namespace} to sidecar.namespaces of the chart, which makes the Role")),
                (
                    true,
                    "set sidecar.secrets of the chart to true, if all pods of the namespace may read its Secrets"
                        .to_owned(),
                ),
            ] {
                let of: Vec<_> = rights.iter().filter(|it| (it.within() == Within::Secrets) == secrets).collect();
                let Some(first) = of.first() else { continue };
                if told.insert(secrets) {
                    let more = if of.len() > 1 { format!(" and {} more", of.len() - 1) } else { String::new() };
                    let message = format!(
                        "its sidecars (service account {account}) may not {}{more}; without this {}",
                        first.say(),
                        first.without()
                    );
                    let level = if pods.asking > 0 { Level::Fail } else { Level::Warn };
                    report.add(Check::Sidecars, level, &place, message, remedy);
                }
            }
        }
        for why in unknown {
            let message = format!("the rights of its sidecars could not all be looked at: {why}");
            report.warn(Check::Sidecars, &place, message, UNKNOWN);
        }
    }

    /// Pods that ask where nobody hears them.
    async fn unlabelled(&self, labelled: &[&str], report: &mut Report) {
        let mut asking: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let take = |pod: Value| {
            let namespace = text(&pod, "/metadata/namespace");
            if asks(&pod) && !labelled.contains(&namespace) {
                asking.entry(namespace.to_owned()).or_default().push(text(&pod, "/metadata/name").to_owned());
            }
        };
        let listed = ask::pages(&self.client, "/api/v1/pods", "", Of::Metadata, MOST_UNLABELLED, take).await;
        if let Err(error) = listed {
            let message =
                format!("whether pods ask in namespaces without the label could not be looked at: {}", error.why());
            report.warn(Check::Sidecars, "", message, "look as somebody who may list pods of all namespaces");
        }
        for (namespace, pods) in asking {
            let message =
                format!("it has no label {LABEL}, and {} for a sidecar: {}", ask_for(pods.len()), named(&pods));
            let remedy = match NEVER.contains(&namespace.as_str()) || namespace == self.namespace {
                true => "pods of this namespace get none: move them, or take their annotation away".to_owned(),
                false => {
                    format!(
                        "kubectl label namespace {namespace} {LABEL}, then kubectl rollout restart for what they belong to"
                    )
                }
            };
            report.fail(Check::Sidecars, format!("Namespace {namespace}"), message, remedy);
        }
    }
}

impl Pods {
    /// One pod.
    fn see(&mut self, pod: Value, template: Option<&Template>) {
        let over = matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed")
            || pod.pointer("/metadata/deletionTimestamp").is_some();
        if over || !asks(&pod) {
            return;
        }
        self.asking += 1;
        let name = text(&pod, "/metadata/name").to_owned();
        self.accounts.insert(pod["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned());
        let annotation = |name: &str| pod["metadata"]["annotations"].get(format!("{PREFIX}{name}")).is_some();
        self.secrets |= annotation("tls-secret") || annotation("client-ca-secret");
        let init = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        if let Some(sidecar) = init.into_iter().find(|container| container["name"] == SIDECAR) {
            let image = text(sidecar, "/image").to_owned();
            self.owners.entry(image.clone()).or_default().insert(owner(&pod));
            self.images.entry(image).or_default().push(name.clone());
            let statuses = pod.pointer("/status/initContainerStatuses").and_then(Value::as_array);
            let status = statuses.into_iter().flatten().find(|status| status["name"] == SIDECAR);
            let reason = status.map_or("", |status| text(status, "/state/waiting/reason"));
            if !matches!(reason, "" | "PodInitializing" | "ContainerCreating") {
                self.down.entry(reason.to_owned()).or_default().push(name);
            }
            return;
        }
        let nothing = Template::new(SIDECAR);
        let owner = owner(&pod);
        let read: Result<Pod, _> = serde_json::from_value(pod);
        match read.map(|pod| inject(&pod, template.unwrap_or(&nothing))) {
            Ok(Ok(Injection::Injected { .. })) => self.without.push((name, owner)),
            Ok(Err(refusal)) => self.refused.entry(refusal.0).or_default().push(name),
            // It is told why when it is created, or the API server knows more than this program.
            Ok(Ok(Injection::Skipped { .. })) | Err(_) => {}
        }
    }

    fn tell(self, namespace: &str, template: Option<&Template>, report: &mut Report) {
        let place = format!("Namespace {namespace}");
        let restart = |owners: &BTreeSet<Option<String>>| {
            let mut restart: Vec<String> = owners.iter().flatten().take(5).cloned().collect();
            if restart.is_empty() {
                return "delete them, so that they are made anew".to_owned();
            }
            restart.insert(0, format!("kubectl -n {namespace} rollout restart"));
            restart.join(" ")
        };
        if !self.without.is_empty() {
            let (names, owners): (Vec<_>, BTreeSet<_>) = self.without.into_iter().unzip();
            let message = format!(
                "{} for a sidecar and {} none, from before the label or while no injector answered: {}",
                ask_for(names.len()),
                if names.len() == 1 { "has" } else { "have" },
                named(&names)
            );
            report.fail(Check::Sidecars, &place, message, restart(&owners));
        }
        for (sentence, names) in &self.refused {
            let message =
                format!("{} for a sidecar and cannot have it, {}: {sentence}", ask_for(names.len()), named(names));
            report.fail(Check::Sidecars, &place, message, "");
        }
        for (reason, names) in &self.down {
            let message =
                format!("{} whose sidecar does not run, {reason}: {}", counted(names.len(), "pod"), named(names));
            let remedy = format!("kubectl -n {namespace} logs {} -c {SIDECAR} --previous", names[0]);
            report.fail(Check::Sidecars, &place, message, remedy);
        }
        let (mut fine, nobody) = (0, BTreeSet::new());
        for (image, names) in &self.images {
            match template {
                Some(template) if template.image != *image => {
                    let message = format!(
                        "{} with a sidecar of {image}, and the injector gives {}: {}",
                        counted(names.len(), "pod"),
                        template.image,
                        named(names)
                    );
                    report.warn(Check::Sidecars, &place, message, restart(self.owners.get(image).unwrap_or(&nobody)));
                }
                _ => fine += names.len(),
            }
        }
        if self.asking == 0 {
            report.ok(Check::Sidecars, place, "no pod asks for a sidecar");
        } else if fine > 0 {
            let message = format!("{fine} of {} that ask for a sidecar have it", counted(self.asking, "pod"));
            report.ok(Check::Sidecars, place, message);
        }
    }
}

/// `1 pod asks`, `2 pods ask`
fn ask_for(count: usize) -> String {
    format!("{} ask{}", counted(count, "pod"), if count == 1 { "s" } else { "" })
}

/// Whether a pod asks for a sidecar; one of a kubelet's own cannot have it.
fn asks(pod: &Value) -> bool {
    let annotations = &pod["metadata"]["annotations"];
    let wanted = annotations.get(format!("{PREFIX}inject")).and_then(Value::as_str);
    wanted.is_some_and(|wanted| wanted.trim() != "false") && annotations.get("kubernetes.io/config.mirror").is_none()
}

/// What brings a pod forth and can be restarted: `deployment/cart`.
fn owner(pod: &Value) -> Option<String> {
    let owner = pod.pointer("/metadata/ownerReferences/0")?;
    let name = owner["name"].as_str()?;
    match owner["kind"].as_str()? {
        "ReplicaSet" => {
            let hash = pod.pointer("/metadata/labels/pod-template-hash")?.as_str()?;
            Some(format!("deployment/{}", name.strip_suffix(hash)?.strip_suffix('-')?))
        }
        kind @ ("StatefulSet" | "DaemonSet") => Some(format!("{}/{name}", kind.to_lowercase())),
        _ => None,
    }
}
