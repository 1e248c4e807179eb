//! `crds/` holds what `floodway crd` prints, and the API server could take it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use serde_json::Value;

/// With `UPDATE_GOLDEN=1`, rewrites the folder instead.
#[test]
fn the_folder_holds_what_is_generated() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let files = floodway::api::crd_files();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &files {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    for (name, text) in &files {
        let found = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(found == *text, "crds/{name} is not what src/api says; run UPDATE_GOLDEN=1 cargo test --test crds");
    }
    let found: BTreeSet<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, files.into_iter().map(|(name, _)| name).collect());
}

/// The API server bounds what rules may cost by the bounds of what they read, so that each text and list needs one.
/// Every field has a description for `kubectl explain`.
#[test]
fn every_text_and_list_is_bounded_and_explained() {
    for crd in floodway::api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
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
