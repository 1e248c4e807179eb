//! What the API server asks, and what it is answered: AdmissionReview of admission.k8s.io/v1. kube has types for it, which copy the
//! whole pod, who asks included, and send a patch as a list of numbers; these read what is needed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::inject::{Injection, Refusal, inject};
use super::pod::Pod;
use super::template::Template;

/// Longer is no UID.
const LONGEST_UID: usize = 128;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: Kind,
    resource: Resource,
    #[serde(default)]
    sub_resource: Option<String>,
    operation: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    dry_run: Option<bool>,
    object: Option<Pod>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Kind {
    group: String,
    version: String,
    kind: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Resource {
    group: String,
    version: String,
    resource: String,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Injected,
    Skipped,
    Refused,
    Failed,
}

impl Outcome {
    /// The label of the metric.
    pub(super) fn word(self) -> &'static str {
        match self {
            Outcome::Injected => "injected",
            Outcome::Skipped => "skipped",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

/// What is answered to a body.
///
/// # Errors
/// What is wrong with the question, of which no answer can be made; whether the pod passes, the webhook configuration says then.
pub(super) fn answer(body: &[u8], template: &Template) -> Result<(Outcome, Vec<u8>), String> {
    // The reader's own errors may repeat what was sent; their place is enough.
    let review: Review = serde_json::from_slice(body).map_err(|error| {
        format!(
            "the body is no AdmissionReview with a Pod: wrong at line {}, column {}\n",
            error.line(),
            error.column()
        )
    })?;
    let Review { api_version, kind, request } = review;
    if (api_version.as_str(), kind.as_str()) != ("admission.k8s.io/v1", "AdmissionReview") {
        return Err("only AdmissionReview of admission.k8s.io/v1 is answered\n".to_owned());
    }
    let core = |text: &str| text.is_empty();
    let of_pods = core(&request.kind.group) && request.kind.version == "v1" && request.kind.kind == "Pod";
    let pods = core(&request.resource.group) && request.resource.version == "v1" && request.resource.resource == "pods";
    let whole = request.sub_resource.as_deref().is_none_or(str::is_empty);
    if !(of_pods && pods && whole && request.operation == "CREATE") {
        return Err("only the creation of pods is answered; let the rules of the webhook say so\n".to_owned());
    }
    if request.uid.is_empty() || request.uid.len() > LONGEST_UID {
        return Err("the question has no uid\n".to_owned());
    }
    let Some(pod) = &request.object else { return Err("the question has no pod\n".to_owned()) };

    let (namespace, name) =
        (request.namespace.as_deref().unwrap_or_default(), request.name.as_deref().unwrap_or_default());
    let dry_run = request.dry_run == Some(true);
    let (outcome, response) = match inject(pod, template) {
        Ok(Injection::Injected { patch, warnings }) => {
            tracing::debug!(namespace, name, dry_run, "injected");
            let patch = serde_json::to_vec(&patch).map_err(|_| "the patch could not be written\n".to_owned())?;
            let mut response = json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch)});
            if !warnings.is_empty() {
                response["warnings"] = json!(warnings);
            }
            (Outcome::Injected, response)
        }
        Ok(Injection::Skipped { why, warn }) => {
            tracing::debug!(namespace, name, dry_run, why, "not injected");
            let mut response = json!({"allowed": true});
            if warn {
                response["warnings"] = json!([format!("floodway: the pod gets no sidecar: {why}")]);
            }
            (Outcome::Skipped, response)
        }
        Err(Refusal(why)) => {
            tracing::info!(namespace, name, dry_run, why, "refused");
            (
                Outcome::Refused,
                json!({"allowed": false, "status": {"code": 400, "reason": "BadRequest", "message": why}}),
            )
        }
    };
    Ok((outcome, reviewed(request.uid, response)))
}

fn reviewed(uid: String, mut response: Value) -> Vec<u8> {
    response["uid"] = uid.into();
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn asked(change: impl Fn(&mut Value)) -> Result<(Outcome, Value), String> {
        let mut review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u1", "operation": "CREATE", "namespace": "shop",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "userInfo": {"username": "somebody"},
                "object": {
                    "metadata": {"generateName": "app-", "annotations": {"sidecar.floodway.dev/inject": "true"}},
                    "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]},
                },
                "oldObject": null, "options": {"kind": "CreateOptions"},
            },
        });
        change(&mut review);
        answer(review.to_string().as_bytes(), &Template::new("floodway"))
            .map(|(outcome, body)| (outcome, serde_json::from_slice(&body).unwrap()))
    }

    #[test]
    fn a_pod_that_asks_is_patched() {
        let (outcome, review) = asked(|_| {}).unwrap();
        assert_eq!(outcome, Outcome::Injected);
        assert_eq!((&review["response"]["uid"], &review["response"]["allowed"]), (&json!("u1"), &json!(true)));
        let patch = STANDARD.decode(review["response"]["patch"].as_str().unwrap()).unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        assert_eq!(patch[0], json!({"op": "add", "path": "/spec/initContainers", "value": []}));
    }

    #[test]
    fn a_wrong_annotation_is_told() {
        let key = "sidecar.floodway.dev/polices";
        let (outcome, review) =
            asked(|review| review["request"]["object"]["metadata"]["annotations"][key] = "a".into()).unwrap();
        assert_eq!(outcome, Outcome::Refused);
        assert_eq!(review["response"]["allowed"], false);
        let said = review["response"]["status"]["message"].as_str().unwrap();
        assert_eq!(
            said,
            "the annotation sidecar.floodway.dev/polices is not known; did you mean sidecar.floodway.dev/policies?"
        );
    }

    #[test]
    fn what_is_not_the_creation_of_a_pod_is_no_question() {
        let request: [(&str, Value); 9] = [
            ("operation", "UPDATE".into()),
            ("subResource", "status".into()),
            ("subResource", "ephemeralcontainers".into()),
            ("kind", json!({"group": "apps", "version": "v1", "kind": "Pod"})),
            ("resource", json!({"group": "", "version": "v1", "resource": "nodes"})),
            ("uid", "".into()),
            ("uid", "u".repeat(LONGEST_UID + 1).into()),
            ("object", Value::Null),
            ("object", "a pod".into()),
        ];
        for (field, value) in request {
            let said = asked(|review| review["request"][field] = value.clone());
            assert!(said.is_err(), "{field}: {said:?}");
        }
        assert!(asked(|review| review["apiVersion"] = "admission.k8s.io/v1beta1".into()).is_err());
        for body in ["", "{}", "[]", "null", "{\"request\":", &"[".repeat(100_000)] {
            let said = answer(body.as_bytes(), &Template::new("floodway")).unwrap_err();
            assert!(said.starts_with("the body is no AdmissionReview"), "{said}");
        }
    }
}
