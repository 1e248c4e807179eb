//! Rights: whether whoever the gateway is may do what it needs for its settings, and so the injector and sidecars. The API server itself
//! is asked, so that whatever authorizes there has its say.

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
const REMEDY: &str =
    "bind what `helm template charts/floodway` gives (Role, ClusterRole), with the values of this installation";
/// What whoever may not ask about others does.
pub(super) const UNKNOWN: &str = "look as somebody who may create subjectaccessreviews, or in a pod of Floodway";

/// A service account: its namespace and its name.
pub(super) type Account = (String, String);

/// One question.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    right: Right<'a>,
    resource: &'static str,
    verb: &'static str,
    /// All namespaces, or none, if `None`.
    namespace: Option<String>,
}

/// What somebody may not do, and why some questions were not answered.
pub(super) struct Missing<'a> {
    pub(super) rights: Vec<Question<'a>>,
    pub(super) unknown: BTreeSet<String>,
    /// Questions that were asked.
    pub(super) asked: usize,
}

impl Question<'_> {
    /// `list secrets in namespace shop`
    pub(super) fn say(&self) -> String {
        let Question { right, resource, verb, namespace } = self;
        let dot = if right.group.is_empty() { "" } else { "." };
        let name = right.names.first().map(|name| format!(" {name}")).unwrap_or_default();
        let within = match namespace {
            Some(namespace) => format!(" in namespace {namespace}"),
            None if right.within == Within::Cluster => String::new(),
            None => " in all namespaces".to_owned(),
        };
        format!("{verb} {resource}{dot}{}{name}{within}", right.group)
    }

    pub(super) fn within(&self) -> Within {
        self.right.within
    }

    /// What does not work without it.
    pub(super) fn without(&self) -> &'static str {
        self.right.without
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

/// The questions about a right, in each of the namespaces that `within` says.
pub(super) fn questions(right: Right<'_>, within: impl Fn(Within) -> Vec<Option<String>>) -> Vec<Question<'_>> {
    let mut questions = Vec::new();
    for namespace in within(right.within) {
        for &resource in right.resources {
            questions.extend(right.verbs.iter().map(|&verb| {
                let namespace = namespace.clone();
                Question { right, resource, verb, namespace }
            }));
        }
    }
    questions
}

impl Visit<'_> {
    /// Asks for every right that these settings need.
    pub(super) async fn rights(&self, settings: &Settings, installation: &Installation, report: &mut Report) {
        let everywhere = |namespaces: &[String]| match namespaces {
            [] => vec![None],
            some => some.iter().take(MOST_NAMESPACES).cloned().map(Some).collect(),
        };
        let within = |within: Within| match within {
            Within::Routes => everywhere(&settings.watch_namespaces),
            Within::Secrets => settings.secret_namespaces().map(everywhere).unwrap_or_default(),
            Within::Own => vec![Some(self.namespace.clone())],
            Within::Cluster => vec![None],
        };
        let account = self.account(installation);
        let asked = RIGHTS.iter().flat_map(|right| questions(*right, within)).collect();
        self.judge("the gateway", asked, account.as_ref(), report).await;
    }

    /// Tells what somebody may not do; `whose` needs it.
    pub(super) async fn judge(
        &self,
        whose: &str,
        questions: Vec<Question<'_>>,
        account: Option<&Account>,
        report: &mut Report,
    ) {
        let who = match account {
            Some((namespace, name)) => format!("service account {namespace}/{name}"),
            None => "whoever asks".to_owned(),
        };
        let Missing { rights, unknown, asked } = self.missing(questions, account).await;
        let good = rights.is_empty() && unknown.is_empty();
        for question in rights {
            let message = format!("it may not {}; without this {}", question.say(), question.without());
            report.fail(Check::Rights, &who, message, REMEDY);
        }
        for why in &unknown {
            let message = format!("its rights could not all be looked at: {why}");
            report.warn(Check::Rights, &who, message, UNKNOWN);
        }
        if good {
            let message = format!("it has all {} that {whose} needs for its settings", counted(asked, "right"));
            report.ok(Check::Rights, who, message);
        }
    }

    /// What an account may not do, or whoever asks.
    pub(super) async fn missing<'a>(&self, questions: Vec<Question<'a>>, account: Option<&Account>) -> Missing<'a> {
        let asked = questions.len();
        let answers = stream::iter(questions).map(|question| async move {
            let answer = self.may(&question, account).await;
            (question, answer)
        });
        let answers: Vec<_> = answers.buffered(AT_ONCE).collect().await;
        let mut missing = Missing { rights: Vec::new(), unknown: BTreeSet::new(), asked };
        for (question, answer) in answers {
            match answer {
                Ok(true) => {}
                Ok(false) => missing.rights.push(question),
                Err(error) => drop(missing.unknown.insert(error.why().to_owned())),
            }
        }
        missing
    }

    /// Whose rights count, if not those of whoever asks: within a pod these are the same.
    fn account(&self, installation: &Installation) -> Option<Account> {
        let named = self.args.as_service_account.as_deref();
        let name = named.or_else(|| installation.account().filter(|_| !self.inside))?;
        let (namespace, name) = name.split_once('/').unwrap_or((&self.namespace, name));
        Some((namespace.to_owned(), name.to_owned()))
    }

    async fn may(&self, question: &Question<'_>, account: Option<&Account>) -> Result<bool, NoAnswer> {
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
