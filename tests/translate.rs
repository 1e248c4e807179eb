//! Objects in, snapshot and statuses out: every `tests/translate/NAME.yaml` has a `NAME.golden.yaml` beside it, which
//! `UPDATE_GOLDEN=1` rewrites. Beside Kubernetes' and our kinds, a document of kind `Resolved` holds the addresses of
//! names, and one of kind `Fetched` what is known of keys.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use floodway::api::{Condition, DEFAULT_CLASS, ProxyPolicy, ProxyRoute, ProxyUpstream};
use floodway::settings::RouteDefaults;
use floodway::snapshot::{FetchedKeys, KeySource, SharedMap, duration};
use floodway::translate::{
    AddressSlice, ConfigMapData, Context, Key, KeySet, Resources, SecretData, Service, Translation, Translator,
};
use serde_json::{Value, json};

#[test]
fn objects_become_what_the_golden_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate");
    let mut inputs: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.retain(|path| !path.to_str().unwrap().ends_with(".golden.yaml"));
    inputs.sort();
    assert!(!inputs.is_empty());
    let mut different = Vec::new();
    for input in inputs {
        let resources = resources(&fs::read_to_string(&input).unwrap());
        let text = describe(&translator().translate(&resources));
        let golden = input.with_extension("golden.yaml");
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if text != expected {
            println!("--- {} would now be:\n{text}", golden.display());
            different.push(golden);
        }
    }
    assert!(different.is_empty(), "not as expected (UPDATE_GOLDEN=1 rewrites them): {different:?}");
}

fn translator() -> Translator {
    Translator::new(Context {
        class_name: DEFAULT_CLASS.to_owned(),
        zone: Some("here".to_owned()),
        defaults: RouteDefaults::default(),
        policy: Default::default(),
        shared_limits: true,
        default_certificate: None,
        client_certificates: None,
        https_port: 443,
        roots: Default::default(),
        key_hosts: Default::default(),
    })
}

fn resources(text: &str) -> Resources {
    let mut resources = Resources::default();
    for document in text.split("\n---\n") {
        let object: Value = serde_yaml::from_str(document).unwrap();
        let metadata = |field: &str| object["metadata"][field].as_str().unwrap_or("shop").to_owned();
        let key = Key::new(metadata("namespace"), metadata("name"));
        match object["kind"].as_str().unwrap() {
            "ProxyRoute" => {
                let route: ProxyRoute = serde_json::from_value(object).unwrap();
                resources.routes.insert(key, Arc::new(route.into()));
            }
            "ProxyUpstream" => {
                let upstream: ProxyUpstream = serde_json::from_value(object).unwrap();
                resources.upstreams.insert(key, Arc::new(upstream.into()));
            }
            "ProxyPolicy" => {
                let policy: ProxyPolicy = serde_json::from_value(object).unwrap();
                resources.policies.insert(key, Arc::new(policy.into()));
            }
            "Secret" => resources.put_secret(key, Arc::new(SecretData::read(object).unwrap())),
            "ConfigMap" => drop(resources.config_maps.insert(key, Arc::new(ConfigMapData::read(object).unwrap()))),
            "Service" => {
                let service = Service::from_object(&serde_json::from_value(object).unwrap()).unwrap();
                resources.services.insert(key, Arc::new(service));
            }
            "EndpointSlice" => {
                let mut slice: k8s_openapi::api::discovery::v1::EndpointSlice = serde_json::from_value(object).unwrap();
                slice.metadata.namespace = Some(key.namespace.to_string());
                let service = AddressSlice::service_of(&slice).unwrap();
                let read = AddressSlice::from_object(&slice).unwrap();
                resources.put_slice(service, key.name, Arc::new(read));
            }
            "Resolved" => {
                for (name, addresses) in object["names"].as_object().unwrap() {
                    let addresses = addresses.as_array().unwrap().iter();
                    let addresses = addresses.map(|address| address.as_str().unwrap().parse().unwrap());
                    resources.resolved.insert(name.clone(), addresses.collect());
                }
            }
            "Fetched" => {
                for (name, known) in object["sources"].as_object().unwrap() {
                    let fetched = known["fetched"].as_bool().unwrap_or_default();
                    let trouble = known["trouble"].as_str().map(Arc::from);
                    let keys = FetchedKeys::new(Arc::default());
                    resources.key_sets.insert(name.clone(), KeySet { keys, fetched, trouble });
                }
            }
            other => panic!("{other}?"),
        }
    }
    resources
}

fn describe(translation: &Translation) -> String {
    let Translation { snapshot, statuses, hostnames, key_sources, complaint } = translation;
    let source = |source: &KeySource| json!({"url": source.url.as_str(), "issuer": source.issuer, "insecure": source.insecure, "tls": source.tls});
    let sources: BTreeMap<_, _> = key_sources.iter().map(|(name, one)| (name, source(one))).collect();
    let clusters: BTreeMap<_, _> = snapshot.clusters.iter().map(|(name, cluster)| (name.as_str(), cluster)).collect();
    let mut all = json!({
        "hosts": snapshot.router,
        "clusters": clusters,
        "statuses": statuses.kinds().map(|(kind, of)| (kind, told(of))).into_iter().collect::<BTreeMap<_, _>>(),
        "hostnames": hostnames,
        "keySources": sources,
        "tls": snapshot.tls,
        "complaint": complaint,
    });
    shorten(&mut all);
    serde_yaml::to_string(&all).unwrap()
}

fn told(statuses: &SharedMap<Key, Arc<[Condition]>>) -> BTreeMap<String, Vec<String>> {
    let lines = |conditions: &Arc<[Condition]>| {
        let lines = conditions.iter().map(|condition| {
            let Condition { type_, status, observed_generation, reason, message, last_transition_time } = condition;
            assert_eq!(last_transition_time, "");
            let generation = observed_generation.map(|generation| format!(" of {generation}")).unwrap_or_default();
            format!("{type_}{generation} is {status}, {reason}: {message}")
        });
        lines.collect()
    };
    statuses.iter().map(|(key, conditions)| (key.to_string(), lines(conditions))).collect()
}

/// Durations as people write them; fields that say nothing left out.
fn shorten(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => {
            if let (Some(secs), Some(nanos), 2) = (fields.get("secs"), fields.get("nanos"), fields.len()) {
                let time = Duration::new(secs.as_u64().unwrap(), u32::try_from(nanos.as_u64().unwrap()).unwrap());
                *value = duration::format(time).into();
                return;
            }
            fields.values_mut().for_each(shorten);
            fields.retain(|name, value| {
                !value.is_null()
                    && (name == "endpoints" || !matches!(value, Value::Object(fields) if fields.is_empty()))
            });
            if ["add", "set", "remove"].iter().all(|list| fields.get(*list).is_some_and(|list| *list == json!([]))) {
                fields.clear();
            }
        }
        _ => {}
    }
}
