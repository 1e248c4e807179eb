//! The certificate of the webhook: an authority that signs one certificate and then has no key any more; a second pair that is
//! made well before the first one ends; and how both are kept in one Secret. What is done when, `Shared::next` decides without a
//! clock of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::snapshot::x509;

/// How long before now certificates begin to be good, in seconds: clocks of API servers may be late.
const BACKDATED: i64 = 300;
/// The longest time in which API servers learn of another authority.
const SETTLE: Duration = Duration::from_secs(600);

/// A certificate with its key, and the authority that signed it, all in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    authority: String,
    certificate: String,
    key: Zeroizing<String>,
    not_after: i64,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// What all replicas share by the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// What is served.
    pub current: Pair,
    /// What will be served once everybody trusts it.
    pub next: Option<Pair>,
    /// The authority before, whose certificate a replica may still serve.
    pub before: Option<String>,
}

/// What is to be done about the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is as it should be.
    Keep,
    /// It should be this, for this reason.
    Write(Box<Shared>, &'static str),
}

impl Pair {
    /// Makes one for the DNS names, which is good from now on, in seconds since 1970, for `lifetime`.
    ///
    /// # Errors
    /// If there is no randomness, or a name is none.
    pub fn make(names: &[String], now: i64, lifetime: Duration) -> anyhow::Result<Pair> {
        let not_after = now.saturating_add(seconds(lifetime));
        let params = |names: &[String], name: &str| -> anyhow::Result<CertificateParams> {
            let mut params = CertificateParams::new(names.to_vec()).context("not names of a certificate")?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now.saturating_sub(BACKDATED));
            params.not_after = date_time_ymd(1970, 1, 1) + since_1970(not_after);
            Ok(params)
        };
        let authority_key = KeyPair::generate()?;
        // The name tells authorities apart where two are trusted.
        let mut authority = params(&[], &format!("floodway-injector {not_after}-{:08x}", fastrand::u32(..)))?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let signed = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let mut certificate = params(names, "floodway-injector")?;
        certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = certificate.signed_by(&key, &issuer)?;
        // What signed it is forgotten here: nobody can sign a second one.
        let key = Zeroizing::new(key.serialize_pem());
        Ok(Pair { authority: signed.pem(), certificate: certificate.pem(), key, not_after })
    }

    /// When it ends, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// The authority, in PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// As rustls serves it.
    ///
    /// # Errors
    /// If it is no pair.
    pub fn certified(&self) -> anyhow::Result<Arc<CertifiedKey>> {
        let wrong = || anyhow!("not a certificate and its key in PEM");
        let chain = CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(|_| wrong())?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|_| wrong())?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| wrong())?;
        let certified = CertifiedKey::new(vec![chain], key);
        certified.keys_match().map_err(|_| wrong())?;
        Ok(Arc::new(certified))
    }

    /// Reads one; `None` if it is not there, or cannot be served under the first of the names.
    fn read(data: &BTreeMap<String, ByteString>, keys: [&str; 3], names: &[String]) -> Option<Pair> {
        let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
        let [authority, certificate, key] = keys;
        let (authority, certificate, key) = (text(authority)?, text(certificate)?, Zeroizing::new(text(key)?));
        let facts = x509::facts(&CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?)?;
        x509::facts(&CertificateDer::from_pem_slice(authority.as_bytes()).ok()?)?;
        let name = names.first()?;
        if !facts.names.iter().any(|pattern| pattern.to_string() == *name) {
            return None;
        }
        let pair = Pair { authority, certificate, key, not_after: facts.not_after };
        pair.certified().is_ok().then_some(pair)
    }
}

/// The entries of the Secret: authority, certificate, key.
const CURRENT: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];
const NEXT: [&str; 3] = ["next-ca.crt", "next.crt", "next.key"];
const BEFORE: &str = "before-ca.crt";

impl Shared {
    pub(super) fn fresh(names: &[String], now: i64, lifetime: Duration) -> anyhow::Result<Shared> {
        Ok(Shared { current: Pair::make(names, now, lifetime)?, next: None, before: None })
    }

    /// What the Secret holds; `None` if that cannot be served.
    pub(super) fn read(data: &BTreeMap<String, ByteString>, names: &[String]) -> Option<Shared> {
        let before = data.get(BEFORE).and_then(|text| String::from_utf8(text.0.clone()).ok());
        let before = before.filter(|text| CertificateDer::from_pem_slice(text.as_bytes()).is_ok());
        Some(Shared { current: Pair::read(data, CURRENT, names)?, next: Pair::read(data, NEXT, names), before })
    }

    /// The entries of the Secret.
    pub(super) fn write(&self) -> BTreeMap<String, ByteString> {
        let entries = |pair: &Pair, keys: [&str; 3]| {
            let texts = [pair.authority.as_bytes(), pair.certificate.as_bytes(), pair.key.as_bytes()];
            keys.into_iter()
                .zip(texts)
                .map(|(key, text)| (key.to_owned(), ByteString(text.to_vec())))
                .collect::<Vec<_>>()
        };
        let mut data = BTreeMap::from_iter(entries(&self.current, CURRENT));
        data.extend(self.next.iter().flat_map(|next| entries(next, NEXT)));
        data.extend(self.before.iter().map(|before| (BEFORE.to_owned(), ByteString(before.clone().into_bytes()))));
        data
    }

    /// Whom API servers have to trust: what is served, what will be, and what may still be.
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.authority.as_str());
        [Some(self.current.authority.as_str()), next, self.before.as_deref()].into_iter().flatten().collect()
    }

    /// What is to be done about the Secret, which holds `there`, where this replica serves `held` and API servers trust `trusted`.
    ///
    /// # Errors
    /// If no certificate can be made.
    pub(super) fn step(
        there: Option<&Shared>,
        held: Option<&Shared>,
        trusted: &[u8],
        names: &[String],
        now: i64,
        lifetime: Duration,
    ) -> anyhow::Result<Step> {
        let good = |shared: &&Shared| shared.current.not_after > now;
        let write = |shared, why| Ok(Step::Write(Box::new(shared), why));
        let Some(there) = there.filter(good) else {
            // What is served goes on to be, so that nobody notices.
            return match held.filter(good) {
                Some(held) => write(held.clone(), "the Secret had gone, or could not be read"),
                None => write(Shared::fresh(names, now, lifetime)?, "there was no certificate that is good"),
            };
        };
        let whole = seconds(lifetime);
        let next = there.next.as_ref().filter(|next| next.not_after > there.current.not_after);
        let Some(next) = next else {
            if now < there.current.not_after - whole / 3 {
                return Ok(Step::Keep);
            }
            let next = Some(Pair::make(names, now, lifetime)?);
            return write(Shared { next, ..there.clone() }, "the certificate has a third of its time left");
        };
        let settled = now >= next.not_after - whole + seconds(SETTLE.min(lifetime / 20));
        if settled && holds(trusted, &next.authority) {
            let before = Some(there.current.authority.clone());
            return write(
                Shared { current: next.clone(), next: None, before },
                "everybody trusts the next certificate",
            );
        }
        Ok(Step::Keep)
    }
}

/// Whether a bundle has an authority.
fn holds(bundle: &[u8], authority: &str) -> bool {
    let Ok(wanted) = CertificateDer::from_pem_slice(authority.as_bytes()) else { return false };
    CertificateDer::pem_slice_iter(bundle).any(|certificate| certificate.is_ok_and(|certificate| certificate == wanted))
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A time as certificates have it: to the end of the year 9999 (RFC 5280 4.1.2.5).
fn since_1970(at: i64) -> Duration {
    const LAST: u64 = 253_402_300_799;
    Duration::from_secs(u64::try_from(at).unwrap_or_default().min(LAST))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const DAY: i64 = 86_400;
    const LIFETIME: Duration = Duration::from_secs(90 * 86_400);

    fn names() -> Vec<String> {
        vec!["floodway-injector.edge.svc".to_owned()]
    }

    fn made(now: i64) -> Shared {
        Shared::fresh(&names(), now, LIFETIME).unwrap()
    }

    fn step(there: Option<&Shared>, held: Option<&Shared>, trusted: &str, now: i64) -> Step {
        Shared::step(there, held, trusted.as_bytes(), &names(), now, LIFETIME).unwrap()
    }

    #[test]
    fn a_secret_holds_what_was_put_there() {
        let mut shared = made(0);
        shared.next = Some(Pair::make(&names(), 60 * DAY, LIFETIME).unwrap());
        shared.before = Some(Pair::make(&names(), 0, LIFETIME).unwrap().authority);
        assert_eq!(Shared::read(&shared.write(), &names()), Some(shared.clone()));
        assert_eq!(shared.bundle().matches("BEGIN CERTIFICATE").count(), 3);
        assert_eq!((shared.current.not_after(), shared.next.unwrap().not_after()), (90 * DAY, 150 * DAY));
    }

    #[test]
    fn what_cannot_be_served_counts_as_nothing() {
        let (one, other) = (made(0), made(0));
        let wrong = |key: &str, value: &[u8]| {
            let mut data = one.write();
            data.insert(key.to_owned(), ByteString(value.to_vec()));
            Shared::read(&data, &names())
        };
        assert_eq!(wrong("tls.key", b"no key"), None);
        assert_eq!(wrong("tls.key", other.current.key.as_bytes()), None);
        assert_eq!(wrong("tls.crt", b"\xff"), None);
        assert_eq!(wrong("ca.crt", b""), None);
        assert_eq!(Shared::read(&one.write(), &["another.edge.svc".to_owned()]), None);
        assert_eq!(Shared::read(&BTreeMap::new(), &names()), None);
        // What is next can be made anew.
        assert_eq!(wrong("next.crt", b"no certificate"), Some(one.clone()));
        assert!(!format!("{one:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_certificate_gives_way_only_when_the_next_one_is_trusted() {
        let first = made(0);
        assert_eq!(step(Some(&first), None, "", 59 * DAY), Step::Keep);
        let Step::Write(both, _) = step(Some(&first), None, "", 60 * DAY) else { panic!("not renewed") };
        assert_eq!(both.current, first.current);
        let next = both.next.clone().unwrap();
        // Not at once, and not while API servers do not know it.
        assert_eq!(step(Some(&both), None, &both.bundle(), 60 * DAY + 599), Step::Keep);
        assert_eq!(step(Some(&both), None, &first.bundle(), 61 * DAY), Step::Keep);
        let Step::Write(then, _) = step(Some(&both), None, &both.bundle(), 60 * DAY + 600) else {
            panic!("not served")
        };
        assert_eq!(then.current, next);
        assert!(then.bundle().contains(first.current.authority()), "a replica may serve the old one still");
        assert_eq!(step(Some(&then), None, "", 61 * DAY), Step::Keep);
    }

    #[test]
    fn what_is_served_comes_back_and_what_has_ended_does_not() {
        let held = made(0);
        let Step::Write(back, _) = step(None, Some(&held), "", DAY) else { panic!("nothing is written") };
        assert_eq!(*back, held);
        let Step::Write(new, _) = step(Some(&held), Some(&held), "", 91 * DAY) else { panic!("nothing is written") };
        assert_ne!(*new, held);
        assert_eq!(new.current.not_after(), 181 * DAY);
    }

    /// A client that trusts the authority, and nobody else, believes the certificate for the name of the Service.
    #[test]
    fn clients_believe_the_certificate() {
        use rustls::client::WebPkiServerVerifier;
        use rustls::client::danger::ServerCertVerifier as _;
        use rustls::pki_types::{ServerName, UnixTime};

        let verifies = |trusted: &str, shared: &Shared, name: &str, at: u64| {
            let mut roots = rustls::RootCertStore::empty();
            for root in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
                roots.add(root.unwrap()).unwrap();
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let chain = shared.current.certified().unwrap();
            let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
            verifier.verify_server_cert(&chain.cert[0], &[], &name, &[], at).is_ok()
        };
        let (one, other) = (made(1_000_000), made(1_000_000));
        let name = "floodway-injector.edge.svc";
        assert!(verifies(&one.bundle(), &one, name, 999_999), "backdated");
        assert!(!verifies(&other.bundle(), &one, name, 1_000_000));
        assert!(!verifies(&one.bundle(), &one, "kubernetes.default.svc", 1_000_000));
        assert!(!verifies(&one.bundle(), &one, name, 1_000_000 + 91 * 86_400));
        let both = Shared { before: Some(one.current.authority.clone()), ..other };
        assert!(verifies(&both.bundle(), &one, name, 1_000_000));
    }
}
