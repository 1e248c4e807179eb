//! The roles of the chart give what the program says that it needs: no more, no less. `floodway doctor` asks by the same lists.

use std::collections::BTreeSet;

use floodway::app::{RIGHTS, Right, SIDECAR_RIGHTS, Within, injector_rights};
use serde_json::{Value, json};

use crate::rendered::{at, of_kind, rendered, workload};

/// Each right by itself: group, resource, name and verb.
type Rule = (String, String, String, String);

fn single(rules: &[Value]) -> BTreeSet<Rule> {
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().cloned().unwrap_or_default();
        all.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut all = BTreeSet::new();
    for rule in rules {
        let mut names = texts(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for name in &names {
                    let right = |verb| (group.clone(), resource.clone(), name.clone(), verb);
                    all.extend(texts(&rule["verbs"]).into_iter().map(right));
                }
            }
        }
    }
    all
}

fn needed(rights: &[Right<'_>], within: &[Within]) -> BTreeSet<Rule> {
    let rules = rights.iter().filter(|right| within.contains(&right.within)).map(|right| {
        json!({"apiGroups": [right.group], "resources": right.resources, "resourceNames": right.names, "verbs": right.verbs})
    });
    single(&rules.collect::<Vec<_>>())
}

/// What roles of a kind and a namespace give somebody, as far as there is one.
fn given(objects: &[Value], kind: &str, namespace: Option<&str>, whom: &str) -> BTreeSet<Rule> {
    let roles = of_kind(objects, kind);
    let roles = roles.into_iter().filter(|role| role["metadata"]["namespace"].as_str() == namespace);
    let theirs = roles.filter(|role| is_bound(objects, role, whom));
    single(&theirs.flat_map(|role| role["rules"].as_array().unwrap().clone()).collect::<Vec<_>>())
}

/// Whether a role is bound to a service account or a group.
fn is_bound(objects: &[Value], role: &Value, whom: &str) -> bool {
    let kind = format!("{}Binding", role["kind"].as_str().unwrap());
    of_kind(objects, &kind).into_iter().any(|binding| {
        binding["roleRef"]["name"] == role["metadata"]["name"]
            && binding["metadata"]["namespace"] == role["metadata"]["namespace"]
            && binding["subjects"].as_array().unwrap().iter().any(|subject| subject["name"] == whom)
    })
}

#[test]
fn the_gateway_gets_what_it_needs() {
    let given = |objects: &[Value], kind: &str, namespace: Option<&str>| {
        let account = at(workload(objects), "/spec/template/spec/serviceAccountName").as_str().unwrap();
        given(objects, kind, namespace, account)
    };
    let needed = |within: &[Within]| needed(RIGHTS, within);
    let everywhere = rendered("");
    assert_eq!(given(&everywhere, "ClusterRole", None), needed(&[Within::Routes, Within::Secrets]));
    assert_eq!(given(&everywhere, "Role", Some("edge")), needed(&[Within::Own]));
    let blind = rendered("secrets: {watch: false}");
    assert_eq!(given(&blind, "ClusterRole", None), needed(&[Within::Routes]));
    let few = rendered("{watchNamespaces: [shop, chat], secrets: {namespaces: [certificates]}}");
    assert_eq!(given(&few, "ClusterRole", None), needed(&[]));
    assert_eq!(given(&few, "Role", Some("shop")), needed(&[Within::Routes]));
    assert_eq!(given(&few, "Role", Some("certificates")), needed(&[Within::Secrets]));
}

#[test]
fn the_injector_gets_what_it_needs() {
    let objects = rendered("injector: {enabled: true}");
    let rights = injector_rights(&["floodway-injector-certificate"], &["floodway-injector-edge"]);
    let given = |kind: &str, namespace: Option<&str>| given(&objects, kind, namespace, "floodway-injector");
    assert_eq!(given("Role", Some("edge")), needed(&rights, &[Within::Own]));
    assert_eq!(given("ClusterRole", None), needed(&rights, &[Within::Cluster]));
}

#[test]
fn sidecars_get_what_they_need() {
    let given = |values: &str| given(&rendered(values), "Role", Some("shop"), "system:serviceaccounts:shop");
    assert_eq!(given("sidecar: {namespaces: [shop]}"), needed(SIDECAR_RIGHTS, &[Within::Own]));
    let all = needed(SIDECAR_RIGHTS, &[Within::Own, Within::Secrets]);
    assert_eq!(given("sidecar: {namespaces: [shop], secrets: true}"), all);
}
