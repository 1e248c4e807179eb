//! The CustomResourceDefinitions, as `crds/` holds them. That folder is generated from the types here by `make crds`
//! (tests/crds.rs, which fails when it is not what they say); the generator is no part of the program, which would be
//! most of a megabyte larger with it.

use serde_json::Value;

/// Every definition as a file of its own: its name and its text, in the order of their names.
pub const CRD_FILES: [(&str, &str); 3] = [
    ("floodway.dev_proxypolicies.yaml", include_str!("../../crds/floodway.dev_proxypolicies.yaml")),
    ("floodway.dev_proxyroutes.yaml", include_str!("../../crds/floodway.dev_proxyroutes.yaml")),
    ("floodway.dev_proxyupstreams.yaml", include_str!("../../crds/floodway.dev_proxyupstreams.yaml")),
];

/// Every definition as a value, in the order of their names.
pub fn crds() -> Vec<Value> {
    // That both can be read is tested.
    CRD_FILES.iter().filter_map(|(_, text)| serde_yaml::from_str(text).ok()).collect()
}

/// Every definition as one YAML stream: what `floodway crd` prints.
pub fn crds_yaml() -> String {
    CRD_FILES.iter().map(|(_, text)| format!("---\n{text}")).collect()
}
