//! Generates the CustomResourceDefinitions from the types in src/api, made plain: `crds/` holds them, the program has
//! these files in it, and the API server could take them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use floodway::api::{CRD_FILES, ProxyPolicy, ProxyRoute, ProxyUpstream, crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::Value;

/// With `UPDATE_GOLDEN=1`, rewrites the folder instead.
#[test]
fn the_folder_holds_what_is_generated() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let files = [ProxyPolicy::crd(), ProxyRoute::crd(), ProxyUpstream::crd()].map(file);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &files {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    for (name, text) in &files {
        let found = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(found == *text, "crds/{name} is not what src/api says; run `make crds`");
    }
    let found: BTreeSet<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, files.into_iter().map(|(name, _)| name).collect());
    let embedded: BTreeSet<_> = CRD_FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(embedded, found, "src/api/crds.rs lists other files than crds/ has");
    assert_eq!(crds().len(), CRD_FILES.len(), "each of them can be read");
}

/// The API server bounds what rules may cost by the bounds of what they read, so that each text and list needs one.
/// Every field has a description for `kubectl explain`.
#[test]
fn every_text_and_list_is_bounded_and_explained() {
    for crd in crds() {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut missing = Vec::new();
        walk(schema, "spec", &mut missing);
        assert!(missing.is_empty(), "{missing:#?}");
    }
}

fn walk(schema: &Value, path: &str, missing: &mut Vec<String>) {
    let mut need = |field: &str| {
        if schema[field].is_null() {
            missing.push(format!("{path} has no {field}"));
        }
    };
    if !path.ends_with("[]") {
        need("description");
    }
    match schema["type"].as_str() {
        Some("string") if schema["enum"].is_null() => need("maxLength"),
        Some("array") => {
            need("maxItems");
            need("x-kubernetes-list-type");
            walk(&schema["items"], &format!("{path}[]"), missing);
        }
        Some("integer") if schema["enum"].is_null() => {
            need("minimum");
            need("maximum");
        }
        _ => {}
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(inner, &format!("{path}.{name}"), missing);
    }
}

/// The name and the text of a definition's file.
fn file(crd: CustomResourceDefinition) -> (String, String) {
    let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
    let mut value = serde_json::to_value(&crd).unwrap();
    for version in value["spec"]["versions"].as_array_mut().unwrap() {
        simplify(&mut version["schema"]["openAPIV3Schema"]);
    }
    whole_numbers(&mut value);
    let text = serde_yaml::to_string(&value).unwrap();
    (name, format!("# Generated from src/api by `make crds`; edits are lost.\n{text}"))
}

/// Takes out what the generator writes for Rust's sake and the API server does not want:
///
/// * `nullable`: an absent field is left out, not null; with it, rules would have to tell three states apart.
/// * `format: uint16` and the like: unknown to OpenAPI v3; `minimum` and `maximum` say it.
/// * null as a choice of an optional enum: as above.
/// * line breaks inside the paragraphs of a description: `kubectl explain` makes its own.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|key, value| match (key.as_str(), &*value) {
                ("nullable", Value::Bool(_)) => false,
                ("format", Value::String(format)) => !format.starts_with("uint"),
                _ => true,
            });
            if let Some(Value::Array(choices)) = fields.get_mut("enum") {
                choices.retain(|choice| !choice.is_null());
            }
            if let Some(Value::String(text)) = fields.get_mut("description") {
                let paragraphs: Vec<_> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
                *text = paragraphs.join("\n\n");
            }
            fields.values_mut().for_each(simplify);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}

/// Bounds are floats in the definition's type; all of ours are whole.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) {
                *value = Value::from(float as i64);
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        _ => {}
    }
}
