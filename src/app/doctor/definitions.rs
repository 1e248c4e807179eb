//! The custom resource definitions: whether they are there, served, and what this program knows.

use serde_json::Value;

use super::Visit;
use super::ask::{self, NoAnswer};
use super::report::{Check, Report, named};
use super::schema::{Differences, compare};
use crate::api;

/// The version of the objects that this program reads.
const VERSION: &str = "v1alpha1";
const INSTALL: &str = "floodway crd | kubectl apply --server-side --force-conflicts -f -";

impl Visit<'_> {
    /// Whether there is any, so that there may be objects.
    pub(super) async fn definitions(&self, report: &mut Report) -> bool {
        let mut any = false;
        for ours in api::crds() {
            let name = ours.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
            match ask::get(&self.client, &path).await {
                Ok(theirs) => {
                    any = true;
                    definition(name, &ours, &theirs, report);
                }
                Err(NoAnswer::Absent) => report.fail(Check::Definitions, name, "it is not installed", INSTALL),
                Err(error) => any |= self.discovered(name, &error, report).await,
            }
        }
        any
    }

    /// What everybody may know who may not look at the definition itself.
    async fn discovered(&self, name: &str, error: &NoAnswer, report: &mut Report) -> bool {
        let plural = name.split('.').next().unwrap_or_default();
        let there = match ask::get(&self.client, &format!("/apis/{}/{VERSION}", api::GROUP)).await {
            Ok(group) => {
                let resources = group["resources"].as_array().cloned().unwrap_or_default();
                resources.iter().any(|resource| resource["name"] == plural)
            }
            Err(NoAnswer::Absent) => false,
            Err(also) => {
                report.fail(Check::Definitions, name, format!("it could not be looked at: {}", also.why()), "");
                return true;
            }
        };
        if there {
            let message = format!(
                "{VERSION} is served; whether its fields are those of this program could not be looked at: {}",
                error.why()
            );
            report.warn(Check::Definitions, name, message, "look as somebody who may get customresourcedefinitions");
        } else {
            report.fail(Check::Definitions, name, format!("{VERSION} of it is not served"), INSTALL);
        }
        there
    }
}

fn definition(name: &str, ours: &Value, theirs: &Value, report: &mut Report) {
    let none = Vec::new();
    let versions = theirs.pointer("/spec/versions").and_then(Value::as_array).unwrap_or(&none);
    let served = |version: &&Value| version["served"] == true;
    let Some(version) = versions.iter().filter(served).find(|version| version["name"] == VERSION) else {
        let others: Vec<_> = versions.iter().filter(served).filter_map(|version| version["name"].as_str()).collect();
        let message = format!("{VERSION} is not served; served are: {}", others.join(", "));
        return report.fail(Check::Definitions, name, message, INSTALL);
    };
    let conditions = theirs.pointer("/status/conditions").and_then(Value::as_array).unwrap_or(&none);
    if let Some(not) = conditions.iter().find(|it| it["type"] == "Established" && it["status"] != "True") {
        let why = not["message"].as_str().unwrap_or_default();
        report.fail(Check::Definitions, name, format!("it is not established: {why}"), INSTALL);
    }
    let stored = theirs.pointer("/status/storedVersions").and_then(Value::as_array).unwrap_or(&none);
    for other in stored.iter().filter_map(Value::as_str).filter(|stored| *stored != VERSION) {
        let message = format!("objects may be stored as {other}, which this program does not read");
        let remedy = "read and write each object once, then take the version out of status.storedVersions";
        report.warn(Check::Definitions, name, message, remedy);
    }
    let schema = "/schema/openAPIV3Schema";
    let known = ours.pointer("/spec/versions/0").and_then(|version| version.pointer(schema));
    let (Some(known), Some(there)) = (known, version.pointer(schema)) else {
        return report.fail(Check::Definitions, name, "it has no schema, so that nothing is validated", INSTALL);
    };
    let Differences { missing, unknown, other } = compare(known, there);
    if !missing.is_empty() {
        let message = format!(
            "it is older than this program, and lacks {}: the API server refuses or drops these fields",
            named(&missing)
        );
        report.fail(Check::Definitions, name, message, INSTALL);
    }
    if !unknown.is_empty() {
        let message = format!(
            "it is newer than this program, which does not know {}: a policy that uses one lets nobody pass",
            named(&unknown)
        );
        report.warn(Check::Definitions, name, message, "upgrade Floodway, or do not use these fields yet");
    }
    if missing.is_empty() && unknown.is_empty() && !other.is_empty() {
        let message = format!("its fields are those of this program, but not the rules for {}", named(&other));
        report.warn(Check::Definitions, name, message, INSTALL);
    }
    if missing.is_empty() && unknown.is_empty() && other.is_empty() {
        report.ok(Check::Definitions, name, format!("{VERSION} is served, with the fields and rules of this program"));
    }
}
