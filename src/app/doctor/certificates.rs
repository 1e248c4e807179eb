//! Certificates that would be served: whether clients with the authorities of this system would take them, today and in three weeks.
//! That key and certificate belong together, and that the names of a route are in it, translation has said already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};

use super::Visit;
use super::report::{Check, Report, counted};
use crate::app::expiry::{DAY, NEAR};
use crate::snapshot::{Certificate, HostPattern, Snapshot};

/// Why clients would not take a certificate.
pub(super) enum Distrust {
    /// Too early, or for another name: everybody refuses it.
    Everybody(&'static str),
    /// It ends at somebody who is not known here.
    Unknown,
    /// Nothing can be said here.
    Unsaid,
}

impl Visit<'_> {
    /// Looks at each certificate of a host.
    pub(super) fn certificates(&self, snapshot: &Snapshot, report: &mut Report) {
        let mut all: BTreeMap<&str, (&Arc<Certificate>, Vec<String>)> = BTreeMap::new();
        for (host, terms) in snapshot.tls.iter() {
            for certificate in &terms.certificates {
                all.entry(&certificate.source).or_insert((certificate, Vec::new())).1.push(host.to_string());
            }
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let now = Timestamp::now().as_second();
        for (source, (certificate, mut hosts)) in all {
            hosts.sort();
            one(source, certificate, &hosts, &roots, now, report);
        }
    }
}

fn one(
    source: &str,
    certificate: &Certificate,
    hosts: &[String],
    roots: &RootCertStore,
    now: i64,
    report: &mut Report,
) {
    let left = certificate.not_after - now;
    let until = Timestamp::from_second(certificate.not_after).map(|date| date.to_string()).unwrap_or_default();
    let renew = "renew it, or see why it was not renewed";
    if left <= 0 {
        return report.fail(
            Check::Certificates,
            source,
            format!("it has expired, at {until}: clients refuse it"),
            renew,
        );
    }
    match distrust(certificate, roots, now) {
        Some(Distrust::Everybody(why)) => {
            return report.fail(Check::Certificates, source, format!("{why}: clients refuse it"), "issue it anew");
        }
        Some(Distrust::Unknown) => unknown(source, certificate, roots, now, report),
        Some(Distrust::Unsaid) | None => {}
    }
    let names = counted(hosts.len(), "host");
    let message = format!("good until {until}, from {}, for {names}", certificate.issuer);
    if left <= NEAR {
        let message = format!("it expires in {} at {until}", counted(usize::try_from(left / DAY).unwrap_or(0), "day"));
        return report.warn(Check::Certificates, source, message, renew);
    }
    report.ok(Check::Certificates, source, message);
}

/// It leads to nobody who is known here: because of its chain, or because it is meant so.
fn unknown(source: &str, certificate: &Certificate, roots: &RootCertStore, now: i64, report: &mut Report) {
    let chain = &certificate.key.cert;
    let issuer = &certificate.issuer;
    if chain.len() < 2 {
        let message = format!("it comes without others, and {issuer}, who signed it, is not known here");
        let remedy = "put the certificates between it and the root behind it in tls.crt, if clients are to trust it by themselves";
        return report.warn(Check::Certificates, source, message, remedy);
    }
    let mut last = RootCertStore::empty();
    let anchored = chain.last().is_some_and(|it| last.add(it.clone()).is_ok());
    if anchored && !matches!(distrust(certificate, &last, now), Some(Distrust::Unknown)) {
        if !roots.is_empty() {
            let message = "its chain is whole, and ends at somebody who is not known here";
            report.warn(Check::Certificates, source, message, "nothing, if clients know that authority");
        }
        return;
    }
    let message = "the certificates behind it in tls.crt are not those of whoever signed it";
    let remedy = "put the issuer of each certificate right behind it";
    report.fail(Check::Certificates, source, message, remedy);
}

fn distrust(certificate: &Certificate, roots: &RootCertStore, now: i64) -> Option<Distrust> {
    let (leaf, between) = certificate.key.cert.split_first()?;
    let Some(name) = certificate.names.iter().find_map(name) else {
        return Some(Distrust::Everybody("it names no host"));
    };
    if roots.is_empty() {
        // An image without authorities: whether the chain is whole can still be said.
        return (!between.is_empty()).then_some(Distrust::Unknown);
    }
    judge(leaf, between, &name, roots, now)
}

/// What a client that knows `roots` and asks for `name` says of a certificate and of those behind it, at a time in seconds since 1970.
pub(super) fn judge(
    leaf: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    roots: &RootCertStore,
    now: i64,
) -> Option<Distrust> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), provider).build();
    let Ok(verifier) = verifier else { return Some(Distrust::Unsaid) };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
    match verifier.verify_server_cert(leaf, between, name, &[], now) {
        Ok(_) => None,
        Err(Error::InvalidCertificate(why)) => Some(match why {
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Distrust::Everybody("it, or one behind it, is not valid yet")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Distrust::Everybody("one of the certificates behind it has expired")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Distrust::Everybody("it is not for the names that it says")
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Distrust::Unknown,
            _ => Distrust::Unsaid,
        }),
        Err(_) => Some(Distrust::Unsaid),
    }
}

/// A name that it is for.
fn name(pattern: &HostPattern) -> Option<ServerName<'static>> {
    let name = match pattern {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Wildcard(parent) => format!("floodway.{parent}"),
        HostPattern::Any => return None,
    };
    ServerName::try_from(name).ok()
}
