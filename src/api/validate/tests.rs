//! The tables in `tests/objects` are also what the real API server is asked (`tests/apiserver`).
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn cases(text: &str) -> Vec<Value> {
    serde_yaml::from_str(text).unwrap()
}

fn object(case: &Value) -> (&'static str, Value) {
    let (kind, spec) = match case {
        case if case["route"].is_object() => ("ProxyRoute", case["route"].clone()),
        case if case["rule"].is_object() => ("ProxyRoute", json!({"rules": [case["rule"]]})),
        case if case["policy"].is_object() => ("ProxyPolicy", case["policy"].clone()),
        case => ("ProxyUpstream", case["upstream"].clone()),
    };
    let object = json!({
        "apiVersion": "floodway.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "one", "namespace": "shop"},
        "spec": spec,
    });
    (kind, object)
}

#[test]
fn good_objects_have_no_violations() {
    for case in cases(include_str!("../../../tests/objects/accepted.yaml")) {
        let (kind, object) = object(&case);
        assert_eq!(validate(kind, &object), [], "{case}");
    }
}

#[test]
fn bad_objects_are_refused_with_a_sentence_at_the_field() {
    for case in cases(include_str!("../../../tests/objects/refused.yaml")) {
        let (kind, object) = object(&case);
        let violations = validate(kind, &object);
        let [violation] = &violations[..] else { panic!("{case} has these violations: {violations:#?}") };
        assert_eq!(violation.path, case["path"], "{case}: {violation:?}");
        assert!(violation.message.contains(case["says"].as_str().unwrap()), "{case}: {violation:?}");
    }
}

#[test]
fn every_rule_compiles() {
    for (kind, definition) in &*DEFINITIONS {
        assert!(!definition.rules().has_errors(), "{kind}: {:?}", definition.rules().compilation_errors());
    }
}

#[test]
fn names_are_required_and_other_kinds_are_left_alone() {
    let mut object = json!({"spec": {"rules": [{"respond": {"status": 200}}]}});
    assert_eq!(validate("ProxyRoute", &object)[0].path, "metadata.name");
    object["metadata"] = json!({"name": "Upper"});
    assert_eq!(validate("ProxyRoute", &object)[0].path, "metadata.name");
    assert_eq!(validate("Service", &object), []);
}
