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
        // A definition holds only what YAML can say.
        let text = serde_yaml::to_string(&crd).unwrap_or_default();
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
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|key, value| match (key.as_str(), &*value) {
                ("nullable", Value::Bool(_)) => false,
                ("format", Value::String(format)) => !format.starts_with("uint"),
                _ => true,
            });
            fields.values_mut().for_each(simplify);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}
