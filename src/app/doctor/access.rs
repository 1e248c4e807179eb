//! Rights: whether whoever the gateway is may do what it needs for its settings. The API server itself is asked, so that whatever
//! authorizes there has its say.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};

use super::Visit;
use super::ask::{self, NoAnswer};
use super::installation::Installation;
use super::report::{Check, Report, counted};
use crate::app::rights::{RIGHTS, Right, Within};
use crate::settings::Settings;

/// Questions that are asked at a time.
const AT_ONCE: usize = 8;
/// Namespaces that are asked about.
const MOST_NAMESPACES: usize = 100;
const REMEDY: &str = "bind what `helm template charts/floodway --show-only templates/rbac.yaml` gives, with the values of this installation";

/// One question.
#[derive(Clone, Debug)]
struct Question {
    right: &'static Right,
    resource: &'static str,
    verb: &'static str,
    /// All namespaces if `None`.
    namespace: Option<String>,
}

impl Question {
    /// `list secrets in namespace shop`
    fn say(&self) -> String {
        let Question { right, resource, verb, namespace } = self;
        let dot = if right.group.is_empty() { "" } else { "." };
        let name = right.names.first().map(|name| format!(" {name}")).unwrap_or_default();
        let within =
            namespace.as_ref().map_or("all namespaces".to_owned(), |namespace| format!("namespace {namespace}"));
        format!("{verb} {resource}{dot}{}{name} in {within}", right.group)
    }

    fn attributes(&self) -> Value {
        let Question { right, resource, verb, namespace } = self;
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        json!({
            "group": right.group, "resource": resource, "subresource": subresource, "verb": verb,
            "name": right.names.first().copied().unwrap_or_default(),
            "namespace": namespace.as_deref().unwrap_or_default(),
        })
    }
}

impl Visit<'_> {
    /// Asks for every right that these settings need.
    pub(super) async fn rights(&self, settings: &Settings, installation: &Installation, report: &mut Report) {
        let account = self.account(installation);
        let who = match &account {
            Some((namespace, name)) => format!("service account {namespace}/{name}"),
            None => "whoever asks".to_owned(),
        };
        let questions = self.questions(settings);
        let count = questions.len();
        let answers = stream::iter(questions).map(|question| {
            let account = account.as_ref();
            async move {
                let answer = self.may(&question, account).await;
                (question, answer)
            }
        });
        let answers: Vec<_> = answers.buffered(AT_ONCE).collect().await;
        let mut unknown = BTreeSet::new();
        for (question, answer) in answers {
            match answer {
                Ok(true) => {}
                Ok(false) => {
                    let message = format!("it may not {}; without this {}", question.say(), question.right.without);
                    report.fail(Check::Rights, &who, message, REMEDY);
                }
                Err(error) => drop(unknown.insert(error.why().to_owned())),
            }
        }
        for why in &unknown {
            let message = format!("its rights could not all be looked at: {why}");
            let remedy = "look as somebody who may create subjectaccessreviews, or in a pod of Floodway";
            report.warn(Check::Rights, &who, message, remedy);
        }
        if !report.has_complaints(Check::Rights) {
            let message = format!("it has all {} that the gateway needs for its settings", counted(count, "right"));
            report.ok(Check::Rights, who, message);
        }
    }

    /// Whose rights count, if not those of whoever asks: within a pod these are the same.
    fn account(&self, installation: &Installation) -> Option<(String, String)> {
        let named = self.args.as_service_account.as_deref();
        let name = named.or_else(|| installation.account().filter(|_| !self.inside))?;
        let (namespace, name) = name.split_once('/').unwrap_or((&self.namespace, name));
        Some((namespace.to_owned(), name.to_owned()))
    }

    fn questions(&self, settings: &Settings) -> Vec<Question> {
        let everywhere = |namespaces: &[String]| match namespaces {
            [] => vec![None],
            some => some.iter().take(MOST_NAMESPACES).cloned().map(Some).collect(),
        };
        let within = |within: Within| match within {
            Within::Routes => everywhere(&settings.watch_namespaces),
            Within::Secrets => settings.secret_namespaces().map(everywhere).unwrap_or_default(),
            Within::Own => vec![Some(self.namespace.clone())],
        };
        let mut questions = Vec::new();
        for right in RIGHTS {
            for namespace in within(right.within) {
                for &resource in right.resources {
                    questions.extend(right.verbs.iter().map(|&verb| {
                        let namespace = namespace.clone();
                        Question { right, resource, verb, namespace }
                    }));
                }
            }
        }
        questions
    }

    async fn may(&self, question: &Question, account: Option<&(String, String)>) -> Result<bool, NoAnswer> {
        let (plural, kind, spec) = match account {
            None => (
                "selfsubjectaccessreviews",
                "SelfSubjectAccessReview",
                json!({"resourceAttributes": question.attributes()}),
            ),
            Some((namespace, name)) => (
                "subjectaccessreviews",
                "SubjectAccessReview",
                json!({
                    "resourceAttributes": question.attributes(),
                    "user": format!("system:serviceaccount:{namespace}:{name}"),
                    "groups": [
                        "system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"
                    ],
                }),
            ),
        };
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
        let answer = ask::post(&self.client, &format!("/apis/authorization.k8s.io/v1/{plural}"), &review).await?;
        Ok(answer.pointer("/status/allowed") == Some(&Value::Bool(true)))
    }
}
