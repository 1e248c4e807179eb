//! The CustomResourceDefinitions as the API server gets them: the generated schemas, made plain.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use super::{ProxyRoute, ProxyUpstream};

/// Every definition, in the order of their names.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [ProxyRoute::crd(), ProxyUpstream::crd()].into_iter().map(plain).collect()
}

/// Every definition as one YAML stream: what `floodway crd` prints.
pub fn crds_yaml() -> String {
    crd_files().into_iter().fold(String::new(), |mut stream, (_, text)| {
        // Writing to a string does not fail.
        let _ = write!(stream, "---\n{text}");
        stream
    })
}

/// Every definition as a file of its own: its name and its text. The folder `crds/` holds these.
pub fn crd_files() -> Vec<(String, String)> {
    let files = crds().into_iter().map(|crd| {
        let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
        // A definition holds only what JSON and YAML can say.
        let mut value = serde_json::to_value(&crd).unwrap_or_default();
        whole_numbers(&mut value);
        let text = serde_yaml::to_string(&value).unwrap_or_default();
        (name, format!("# Generated from src/api by `floodway crd`; edits are lost.\n{text}"))
    });
    files.collect()
}

/// Takes out what the generator writes for Rust's sake and the API server does not want.
fn plain(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(schema) = schema {
            let mut value = serde_json::to_value(&*schema).unwrap_or_default();
            simplify(&mut value);
            if let Ok(simple) = serde_json::from_value(value) {
                *schema = simple;
            }
        }
    }
    crd
}

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
