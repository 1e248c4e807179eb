//! The injector: that somebody answers when API servers ask about pods, and may do what it has to. What API servers are told of it is
//! looked at in `webhook`, what became of pods in `sidecars`.

use super::Visit;
use super::access::questions;
use super::ask;
use super::installation::{INJECTOR, Installation, number, text};
use super::report::{Check, Report, counted};
use crate::app::rights::{Within, injector_rights};
use crate::args::{Args, Command};
use crate::injector::Template;

/// What the chart labels its webhook configuration with.
pub(super) const LABEL: &str = "app.kubernetes.io/name=floodway-injector";
/// As many pods as it takes for one to go and another to answer.
const ENOUGH: i64 = 2;
/// The volume and the entry of the ConfigMap that say what pods get.
const VOLUME: &str = "template";
const ENTRY: &str = "template.yaml";

/// Who puts sidecars into pods.
pub(super) enum Injector {
    /// The one of this installation, which puts this into them as far as that could be read.
    Here(Option<Box<Template>>),
    /// Another one, or nobody could say.
    Elsewhere,
    /// Nobody.
    Nowhere,
}

impl Visit<'_> {
    /// Looks at the injector, if there is one.
    pub(super) async fn injector(&self, installation: &Installation, report: &mut Report) -> Injector {
        let Some(deployment) = &installation.injector else { return self.no_injector(report).await };
        let place = format!("Deployment {}/{}", self.namespace, text(deployment, "/metadata/name"));
        let spec = &deployment["spec"]["template"]["spec"];
        let Some(Args { command: Command::Injector(flags) }) = INJECTOR.arguments(spec) else {
            let message = "this program does not know its flags, so its webhook was not looked at";
            report.warn(Check::Injector, place, message, "use the doctor of the version that runs there");
            return Injector::Here(None);
        };
        let wanted = number(deployment, "/spec/replicas");
        if wanted < ENOUGH {
            let message = format!(
                "it has {}: whenever that one goes, nobody answers",
                counted(wanted.try_into().unwrap_or(0), "pod")
            );
            report.warn(Check::Injector, &place, message, "set injector.replicas of the chart to 2");
        }
        let within = |within: Within| match within {
            Within::Own => vec![Some(self.namespace.clone())],
            _ => vec![None],
        };
        let account = (self.namespace.clone(), spec["serviceAccountName"].as_str().unwrap_or("default").to_owned());
        let names = ([flags.secret.as_str()], [flags.configuration.as_str()]);
        let rights = injector_rights(&names.0, &names.1).map(|right| questions(right, within));
        self.judge("the injector", rights.into_iter().flatten().collect(), Some(&account), report).await;
        self.webhook(&flags, report).await;
        Injector::Here(match self.mounted_file(spec, VOLUME, ENTRY).await {
            Ok(Some((place, file))) => match Template::read(ENTRY, file.as_bytes()) {
                Ok(template) => Some(Box::new(template)),
                Err(wrong) => {
                    report.fail(
                        Check::Injector,
                        place,
                        wrong.to_string(),
                        "set the values of the chart anew; its pods do not start with this",
                    );
                    None
                }
            },
            Ok(None) => None,
            Err((place, why)) => {
                let message = format!("what pods get could not be looked at: {why}");
                report.warn(Check::Injector, place, message, "look as somebody who may get it");
                None
            }
        })
    }

    /// There is none here; perhaps there was.
    async fn no_injector(&self, report: &mut Report) -> Injector {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let Ok(configurations) = ask::list(&self.client, path, LABEL).await else { return Injector::Elsewhere };
        let mut elsewhere = false;
        for configuration in configurations {
            let name = text(&configuration, "/metadata/name");
            let webhook = &configuration["webhooks"][0];
            if text(webhook, "/clientConfig/service/namespace") != self.namespace {
                elsewhere = true;
                continue;
            }
            let policy = text(webhook, "/failurePolicy");
            let message =
                format!("API servers ask an injector of this namespace, which is gone; failurePolicy {policy}");
            let remedy = format!("install it again, or kubectl delete mutatingwebhookconfiguration {name}");
            report.fail(Check::Injector, format!("MutatingWebhookConfiguration {name}"), message, remedy);
        }
        if elsewhere { Injector::Elsewhere } else { Injector::Nowhere }
    }
}
