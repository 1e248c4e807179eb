//! values.yaml, values.schema.json, the chart's README and docs/install.md say the same, and the schema knows what the settings know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use floodway::settings::Settings;
use serde_json::Value;

use crate::helm::{documents, root};

fn chart(path: &str) -> String {
    fs::read_to_string(root().join("charts/floodway").join(path)).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&chart("values.schema.json")).unwrap()
}

/// The values that the schema describes, by their paths, without the groups that they are in.
fn described() -> BTreeMap<String, Value> {
    fn walk(schema: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
        for (name, inner) in schema["properties"].as_object().unwrap() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            // The fields of `settings` are the program's.
            if inner["properties"].is_object() && path != "settings" {
                assert_eq!(inner["additionalProperties"], false, "the schema lets anything be in {path}");
                walk(inner, &path, found);
            } else {
                found.insert(path, inner.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    walk(&schema, "", &mut found);
    // Helm's own, for charts that have this one as a part.
    assert!(found.remove("global").is_some());
    found
}

#[test]
fn every_value_is_in_the_schema_and_in_the_table() {
    let values = documents(&chart("values.yaml")).remove(0);
    let described = described();
    let readme = chart("README.md");
    let rows: BTreeSet<&str> = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for (path, schema) in &described {
        let pointer = format!("/{}", path.replace('.', "/"));
        assert!(values.pointer(&pointer).is_some(), "values.yaml has no {path}");
        assert!(
            schema["description"].as_str().is_some_and(|text| !text.is_empty()),
            "the schema does not explain {path}"
        );
        assert!(rows.contains(path.as_str()), "charts/floodway/README.md has no row for {path}");
    }
    for line in readme.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let (path, default) = (cells[0].trim_matches(['|', ' ', '`']), cells[1].trim_matches('`'));
        let value = values.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&Value::Null);
        let said = documents(default).into_iter().next().unwrap_or_default();
        let elsewhere = default == "see values.yaml" && (value.is_object() || value.is_array());
        assert!(
            elsewhere || said == *value,
            "charts/floodway/README.md says that {path} is {default}, and it is {value}"
        );
    }
    for row in rows {
        assert!(described.contains_key(row), "charts/floodway/README.md has a row for {row}, which is no value");
    }
    // And there is none in values.yaml that the schema does not have.
    fn walk(value: &Value, path: &str, described: &BTreeMap<String, Value>) {
        if !described.contains_key(path) {
            let inner = value.as_object().unwrap_or_else(|| panic!("the schema does not have {path}"));
            for (name, value) in inner {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(value, &path, described);
            }
        }
    }
    walk(&values, "", &described);
}

/// What `settings` may hold is what a settings file may, section by section.
#[test]
fn the_schema_knows_all_settings() {
    // Those that have no default, and so are not written.
    const UNSET: [&str; 6] = ["bodyBytes", "clientCertificates", "defaultCertificate", "redis", "workers", "zone"];

    fn walk(schema: &Value, settings: &Value, path: &str) {
        let known: BTreeSet<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let there: BTreeSet<&str> = settings.as_object().unwrap().keys().map(String::as_str).collect();
        let missing: Vec<_> = there.difference(&known).collect();
        assert!(missing.is_empty(), "the schema of the chart's values lacks these of settings{path}: {missing:?}");
        for name in known.difference(&there) {
            assert!(
                UNSET.contains(name),
                "the schema of the chart's values has settings{path}.{name}, which is no setting"
            );
        }
        for name in known.intersection(&there) {
            if schema["properties"][name]["properties"].is_object() {
                walk(&schema["properties"][name], &settings[name], &format!("{path}.{name}"));
            }
        }
    }
    walk(&schema()["properties"]["settings"], &serde_json::to_value(Settings::default()).unwrap(), "");
}

#[test]
fn the_page_on_installing_has_every_alert() {
    let page = fs::read_to_string(root().join("docs/install.md")).unwrap();
    let rows: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
        .filter(|name| name.starts_with("Floodway"))
        .collect();
    assert_eq!(
        rows,
        crate::monitoring::alerts().iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect()
    );
}

#[test]
fn the_chart_is_of_the_version_of_the_program() {
    let chart = documents(&chart("Chart.yaml")).remove(0);
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let (major, minor) = floodway::source::kube::version::OLDEST;
    assert_eq!(chart["kubeVersion"], format!(">={major}.{minor}.0-0"), "what the program and doctor ask for");
    // What Artifact Hub is told is YAML in a text, with an example for each kind.
    let read = |name: &str| documents(chart["annotations"][name].as_str().unwrap()).remove(0);
    let kinds = |list: Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect()
    };
    let ours: BTreeSet<String> =
        floodway::api::crds().iter().map(|crd| crd["spec"]["names"]["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds(read("artifacthub.io/crds")), ours);
    assert_eq!(kinds(read("artifacthub.io/crdsExamples")), ours);
}
