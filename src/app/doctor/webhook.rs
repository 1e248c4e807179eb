//! The webhook by which API servers ask the injector about pods: where it leads, what becomes of pods while nobody answers, and whether
//! API servers take the certificate that they are shown.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;

use super::Visit;
use super::ask::{self, NoAnswer};
use super::certificates::{Distrust, judge};
use super::installation::text;
use super::report::{Check, Report};
use crate::args::InjectorArgs;
use crate::snapshot::x509;

const ANEW: &str = "helm upgrade with the values of this installation makes it anew";
const LOG: &str = "the injector writes it within moments; Rights and the log of its pods say why it does not";

impl Visit<'_> {
    /// Looks at the webhook of an injector that runs with these flags.
    pub(super) async fn webhook(&self, flags: &InjectorArgs, report: &mut Report) {
        let InjectorArgs { configuration, webhook, service, .. } = flags;
        let place = format!("MutatingWebhookConfiguration {configuration}");
        let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{configuration}");
        let object = match ask::get(&self.client, &path).await {
            Ok(object) => object,
            Err(NoAnswer::Absent) => {
                return report.fail(Check::Injector, place, "it does not exist, so no pod gets a sidecar", ANEW);
            }
            Err(error) => {
                let message = format!("it could not be looked at: {}", error.why());
                return report.warn(Check::Injector, place, message, "look as somebody who may get it");
            }
        };
        let found = object["webhooks"].as_array().and_then(|all| all.iter().find(|it| it["name"] == *webhook));
        let Some(found) = found else {
            let message = format!("it has no webhook {webhook}, so no pod gets a sidecar");
            return report.fail(Check::Injector, place, message, ANEW);
        };
        let leads = ["namespace", "name"].map(|field| text(found, &format!("/clientConfig/service/{field}")));
        if leads != [self.namespace.as_str(), service.as_str()] {
            let message =
                format!("it leads to Service {}, and the injector's is {}/{service}", leads.join("/"), self.namespace);
            report.fail(Check::Injector, &place, message, ANEW);
        }
        let away = match text(found, "/failurePolicy") {
            "Ignore" => {
                "failurePolicy Ignore: while no injector answers, pods that ask for a sidecar start without one"
            }
            _ => {
                "failurePolicy Fail: while no injector answers, pods that ask for a sidecar are refused; others are not concerned"
            }
        };
        report.ok(Check::Injector, &place, away);
        self.trust(found, &place, flags, report).await;
    }

    /// Whether API servers take the certificate.
    async fn trust(&self, webhook: &Value, place: &str, flags: &InjectorArgs, report: &mut Report) {
        let bundle = serde_json::from_value::<ByteString>(webhook["clientConfig"]["caBundle"].clone());
        let bundle = bundle.map(|bundle| bundle.0).unwrap_or_default();
        let trusted: Vec<_> = CertificateDer::pem_slice_iter(&bundle).filter_map(Result::ok).collect();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        if roots.is_empty() {
            let message =
                "its caBundle has no authority: API servers do not believe the injector, and no pod gets a sidecar";
            return report.fail(Check::Injector, place, message, LOG);
        }
        let secret = format!("Secret {}/{}", self.namespace, flags.secret);
        let path = format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, flags.secret);
        let data = match ask::get(&self.client, &path).await {
            Ok(mut object) => object["data"]["tls.crt"].take(),
            Err(NoAnswer::Absent) => {
                return report.fail(
                    Check::Injector,
                    secret,
                    "it does not exist, so the injector has no certificate",
                    LOG,
                );
            }
            Err(error) => {
                let message = format!("the certificate of the webhook could not be looked at: {}", error.why());
                return report.warn(Check::Injector, secret, message, "look as somebody who may get it");
            }
        };
        let pem = serde_json::from_value::<ByteString>(data).map(|pem| pem.0).unwrap_or_default();
        let leaf = CertificateDer::from_pem_slice(&pem).ok();
        let Some((leaf, facts)) = leaf.and_then(|leaf| Some((leaf.clone(), x509::facts(&leaf)?))) else {
            return report.fail(Check::Injector, secret, "its tls.crt is no certificate", LOG);
        };
        let now = Timestamp::now().as_second();
        let until = Timestamp::from_second(facts.not_after).map(|date| date.to_string()).unwrap_or_default();
        if facts.not_after <= now {
            let message = format!("the certificate of the webhook has expired, at {until}: no pod gets a sidecar");
            return report.fail(Check::Injector, secret, message, LOG);
        }
        let host = format!("{}.{}.svc", flags.service, self.namespace);
        let distrust = ServerName::try_from(host.as_str()).ok().and_then(|name| judge(&leaf, &[], &name, &roots, now));
        match distrust {
            Some(Distrust::Everybody(_)) => {
                let message =
                    format!("the certificate of the webhook is not for {host}, or not yet good: no pod gets a sidecar");
                return report.fail(Check::Injector, secret, message, "delete it: a running injector makes it anew");
            }
            Some(Distrust::Unknown) => {
                let message = format!("its caBundle does not have the authority of {secret}: no pod gets a sidecar");
                return report.fail(Check::Injector, place, message, LOG);
            }
            Some(Distrust::Unsaid) | None => {}
        }
        // The next one is made when a third is left, and takes some minutes to be trusted everywhere.
        let lifetime = i64::try_from(flags.certificate_lifetime.as_secs()).unwrap_or(i64::MAX);
        if facts.not_after - now < lifetime / 4 {
            let message =
                format!("the certificate of the webhook ends at {until}, and should have been renewed by now");
            return report.warn(Check::Injector, secret, message, LOG);
        }
        report.ok(
            Check::Injector,
            secret,
            format!("the certificate of the webhook is good until {until}, and API servers trust it"),
        );
    }
}
