//! What a ProxyRoute itself says of TLS with its clients, before any Secret is looked at.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::clients::Clients;
use crate::api::{self, ClientCertificateMode};
use crate::snapshot::{ClientAsked, Invalid, Redirect, TlsVersion, Transport, duration};
use crate::translate::Key;
use crate::translate::conditions::Problem;

/// Which certificates the hosts of a route are to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::translate) struct TlsPlan {
    secret: Key,
    alternate: Option<Key>,
    pub(super) min_version: Option<TlsVersion>,
    pub(super) clients: Clients,
}

impl TlsPlan {
    /// The plan of a route beside whose `key` the Secrets are; `None` if it names none.
    pub(in crate::translate) fn read(given: &api::RouteTls, key: &Key, problems: &mut Vec<Problem>) -> Option<Self> {
        let api::RouteTls {
            secret_name,
            alternate_secret_name,
            redirect: _,
            min_version,
            client_certificates,
            hsts: _,
            passthrough,
        } = given;
        if *passthrough {
            return None;
        }
        let beside = |name: &String| Key::new(Arc::clone(&key.namespace), name.as_str());
        let Some(secret) = secret_name.as_ref().map(beside) else {
            if alternate_secret_name.is_some() || min_version.is_some() {
                let why = "alternateSecretName and minVersion say more of the certificate of secretName: they need it";
                problems.push(Problem::invalid("spec.tls", why));
            }
            if client_certificates.is_some() {
                problems.push(Problem::invalid("spec.tls", NEEDS_CERTIFICATE));
            }
            return None;
        };
        let min_version = min_version.map(|version| match version {
            api::TlsVersion::Tls12 => TlsVersion::V1_2,
            api::TlsVersion::Tls13 => TlsVersion::V1_3,
        });
        let alternate = alternate_secret_name.as_ref().map(beside).filter(|alternate| *alternate != secret);
        let clients = Clients::read(client_certificates.as_ref(), key).unwrap_or_else(|problem| {
            problems.push(problem);
            Clients::Invalid
        });
        Some(TlsPlan { secret, alternate, min_version, clients })
    }

    /// The Secrets that it refers to.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Key> {
        self.references().map(|(secret, _)| secret)
    }

    /// The Secrets that it refers to, and the fields that do.
    pub(super) fn references(&self) -> impl Iterator<Item = (&Key, &'static str)> {
        let first = (&self.secret, "spec.tls.secretName");
        [first].into_iter().chain(self.alternate.iter().map(|key| (key, "spec.tls.alternateSecretName")))
    }

    /// Whether clients meet the same by either.
    pub(super) fn serves_like(&self, other: &Self) -> bool {
        self == other
    }
}

const NEEDS_CERTIFICATE: &str = "clientCertificates is asked where a host has its own certificate: it needs secretName";

/// How requests of a route have to come that is named `key` and has hosts or not, and what their answers say of that; `None` if it
/// does not matter.
pub(in crate::translate) fn transport(
    given: &api::RouteTls,
    key: &Key,
    has_hosts: bool,
    https: u16,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Transport>> {
    let api::RouteTls {
        secret_name,
        alternate_secret_name: _,
        redirect,
        min_version: _,
        client_certificates,
        hsts,
        passthrough,
    } = given;
    let redirect = redirect.then(|| Redirect {
        scheme: Some("https".into()),
        host: None,
        port: Some(https),
        path: None,
        status: StatusCode::PERMANENT_REDIRECT,
    });
    let hsts = hsts.as_ref().map(self::hsts).and_then(|read| read.map_err(|problem| problems.push(problem)).ok());
    let certified = has_hosts && secret_name.is_some();
    let clients = client_certificates.as_ref().filter(|_| !passthrough).and_then(|given| asked(given, key, certified));
    let transport = Transport { passed: *passthrough, redirect, hsts: hsts.filter(|_| !passthrough), clients };
    (transport != Transport::default()).then(|| Arc::new(transport))
}

/// What a route asks of its clients; of what is wrong with that the plan tells.
fn asked(given: &api::ClientCertificates, key: &Key, certified: bool) -> Option<ClientAsked> {
    let invalid = |why: String| Some(ClientAsked::Invalid(Invalid(why.into())));
    if given.mode == Some(ClientCertificateMode::Disabled) {
        return None;
    }
    if !certified {
        return invalid(NEEDS_CERTIFICATE.to_owned());
    }
    match Clients::read(Some(given), key) {
        Ok(Clients::Asked(plan)) => Some(ClientAsked::Terms(Arc::new(plan.terms()))),
        Ok(Clients::Nobody | Clients::AsSettings) => None,
        Ok(Clients::Invalid) => invalid("clientCertificates".to_owned()),
        Err(problem) => invalid(problem.to_string()),
    }
}

/// RFC 6797 6.1: `max-age=31536000; includeSubDomains; preload`.
fn hsts(given: &api::Hsts) -> Result<HeaderValue, Problem> {
    let api::Hsts { max_age, include_sub_domains, preload } = given;
    let path = "spec.tls.hsts.maxAge";
    let max_age = duration::parse(max_age).map_err(|error| Problem::invalid(path, error))?;
    let (_, most) = api::HSTS_AGE;
    if duration::parse(most).is_ok_and(|most| max_age > most) {
        return Err(Problem::invalid(path, format_args!("{} is more than {most}", duration::format(max_age))));
    }
    let mut text = format!("max-age={}", max_age.as_secs());
    if *include_sub_domains {
        text += "; includeSubDomains";
    }
    if *preload {
        text += "; preload";
    }
    HeaderValue::try_from(text).map_err(|_| Problem::invalid(path, "cannot be written in a field"))
}
