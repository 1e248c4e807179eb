//! What would come of the objects in the cluster: they are listed and translated here, as a gateway with these settings would, so
//! that the answer does not depend on one that runs.

use std::collections::BTreeMap;

use super::Visit;
use super::report::{Check, Level, Report, counted, named};
use super::served;
use crate::api::{self, Condition};
use crate::app::complaints::complaints;
use crate::app::{control, offline, roots};
use crate::settings::Settings;
use crate::source::kube::{Conditions, Looked, Unlisted, look};
use crate::translate::{Resources, Statuses};

/// Objects of a kind that are read, in a namespace or in all.
const MOST: usize = 20_000;

impl Visit<'_> {
    /// Lists, translates, and tells.
    pub(super) async fn objects(&self, settings: &Settings, report: &mut Report) {
        let Looked { resources, told, malformed, unlisted } =
            look(&self.client, &settings.watch_namespaces, settings.secret_namespaces(), MOST).await;
        gaps(&unlisted, report);
        for (kind, key, why) in &malformed {
            let remedy = "often its definition is of another version than the program: see above";
            report.fail(Check::Objects, format!("{kind} {key}"), format!("it cannot be read: {why}"), remedy);
        }
        let context = match control::context(settings, roots::system()) {
            Ok(context) => context,
            Err(error) => return report.fail(Check::Settings, "", format!("{error:#}"), ""),
        };
        let unseen = |kind: &str| unlisted.iter().any(|gap| gap.kind == kind);
        let translation = offline::translate(context, resources.clone());
        if let Some(complaint) = &translation.complaint {
            let level = if unseen("Secret") || unseen("ConfigMap") { Level::Warn } else { Level::Fail };
            report.add(Check::Settings, level, "", complaint.clone(), "");
        }
        // What is refused to whoever looks may be there all the same.
        let blind = ["Service", "Secret", "ConfigMap"].into_iter().any(unseen);
        conditions(&translation.statuses, blind, report);
        other_classes(&resources, &settings.class_name, report);
        untold(&translation.statuses, &told, report);
        if !unseen("EndpointSlice") && !unseen("Service") {
            served::endpoints(&translation.snapshot, &resources, report);
        }
        self.certificates(&translation.snapshot, report);
        report.served = served::hosts(&translation.snapshot, &resources);
    }
}

/// What could not be listed.
fn gaps(unlisted: &[Unlisted], report: &mut Report) {
    for Unlisted { kind, namespace, why, refused } in unlisted {
        let within = namespace.as_ref().map_or("all namespaces".to_owned(), |name| format!("namespace {name}"));
        let message = format!("{kind} objects could not all be looked at: {why}");
        let remedy =
            if *refused { "look as somebody who may list them; what refers to them is not judged" } else { "" };
        report.warn(Check::Objects, within, message, remedy);
    }
}

fn conditions(statuses: &Statuses, blind: bool, report: &mut Report) {
    for (kind, objects) in statuses.kinds() {
        let mut sound = 0;
        for (key, conditions) in BTreeMap::from_iter(objects.iter()) {
            let place = format!("{kind} {key}");
            let mut complained = false;
            for (condition, sentences) in complaints(conditions) {
                complained = true;
                let level = match condition.type_.as_str() {
                    "Accepted" => Level::Fail,
                    "ResolvedRefs" if !blind => Level::Fail,
                    _ => Level::Warn,
                };
                for sentence in sentences {
                    report.add(
                        Check::Objects,
                        level,
                        place.clone(),
                        format!("{} ({})", sentence, condition.reason),
                        "",
                    );
                }
            }
            sound += usize::from(!complained);
        }
        let message = format!("{sound} of {} as their owners want it", objects.len());
        report.ok(Check::Objects, kind, message);
    }
}

/// Routes that this Floodway leaves alone.
fn other_classes(resources: &Resources, ours: &str, report: &mut Report) {
    let mut classes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, route) in resources.routes.iter() {
        let class = route.spec.class_name.as_deref().unwrap_or(api::DEFAULT_CLASS);
        if class != ours {
            classes.entry(class).or_default().push(key.to_string());
        }
    }
    for (class, mut routes) in classes {
        routes.sort();
        let message =
            format!("{} of this class, which is left alone: {}", counted(routes.len(), "route"), named(&routes));
        let remedy = format!("if no other Floodway has the class {class:?}, set spec.className to {ours:?}");
        report.warn(Check::Objects, format!("className {class}"), message, remedy);
    }
}

/// Objects about whose present generation nobody was told anything.
fn untold(statuses: &Statuses, told: &Conditions, report: &mut Report) {
    let mut untold = Vec::new();
    for (kind, objects) in statuses.kinds() {
        for (key, conditions) in BTreeMap::from_iter(objects.iter()) {
            let there = told.get(&(kind.to_owned(), key.clone())).map(Vec::as_slice).unwrap_or_default();
            let current = |ours: &Condition| {
                let same =
                    |it: &Condition| it.type_ == ours.type_ && it.observed_generation >= ours.observed_generation;
                there.iter().any(same)
            };
            if !conditions.iter().all(current) {
                untold.push(format!("{kind} {key}"));
            }
        }
    }
    if !untold.is_empty() {
        let message = format!(
            "{} without conditions of its present generation: {}",
            counted(untold.len(), "object"),
            named(&untold)
        );
        let remedy = "a running Floodway writes them within seconds: see Installation, Rights and Lease";
        report.warn(Check::Objects, "status", message, remedy);
    }
}
