//! The custom resources as the API server sees them: good objects pass, bad ones are refused with the sentence and at
//! the field that `floodway check` names, too (it is held to the same tables).

use serde_json::{Value, json};

use crate::control_plane::{ADMIN, shared};
use crate::objects::{documents, dry_run, namespace};

/// An object from its short form in tests/objects.
fn object(case: &Value, name: &str) -> Value {
    let (kind, spec) = match case {
        case if !case["route"].is_null() => ("ProxyRoute", case["route"].clone()),
        case if !case["rule"].is_null() => ("ProxyRoute", json!({"rules": [case["rule"]]})),
        case if !case["policy"].is_null() => ("ProxyPolicy", case["policy"].clone()),
        case => ("ProxyUpstream", case["upstream"].clone()),
    };
    json!({"apiVersion": "floodway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn cases(text: &str) -> Vec<Value> {
    documents(text).into_iter().next().and_then(|list| list.as_array().cloned()).unwrap()
}

#[tokio::test]
async fn good_objects_are_accepted() {
    let client = shared().await.client(ADMIN).await;
    let namespace = namespace(&client).await;
    for (at, case) in cases(include_str!("../objects/accepted.yaml")).iter().enumerate() {
        let accepted = dry_run(&client, &namespace, &object(case, &format!("good-{at}"))).await;
        assert!(accepted.is_ok(), "{case}: {}", accepted.unwrap_err());
    }
}

#[tokio::test]
async fn bad_objects_are_refused_with_a_sentence_that_names_the_field() {
    let client = shared().await.client(ADMIN).await;
    let namespace = namespace(&client).await;
    let mut wrong = Vec::new();
    for case in cases(include_str!("../objects/refused.yaml")) {
        let says = case["says"].as_str().unwrap();
        let path = case["path"].as_str().unwrap();
        match dry_run(&client, &namespace, &object(&case, "bad")).await {
            Ok(_) => wrong.push(format!("accepted: {case}")),
            Err(kube::Error::Api(status)) if status.message.contains(says) && status.message.contains(path) => {}
            Err(error) => wrong.push(format!("{case}\n    said: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
