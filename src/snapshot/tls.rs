//! With which certificates and on what terms TLS is ended, or where it is passed on to, by the host that a client asks for (SNI). How certificates are read is
//! `translate`'s; handshakes are `proxy`'s.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use serde::{Deserialize, Serialize, Serializer};

use super::{ClientAuth, HostPattern, Route, SharedMap};

/// A version of TLS. Older ones are not spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446
    #[serde(rename = "1.3")]
    V1_3,
}

/// A certificate with its chain, its key and, if there is one, the response of its OCSP responder. Two are equal if they show the
/// same to clients; that the key belongs to the certificate, whoever makes one has checked.
#[derive(Clone, Serialize)]
pub struct Certificate {
    /// Where it is from, for people: `Secret shop/www-tls`.
    pub source: Arc<str>,
    /// The DNS names that it is for; a wildcard stands for one label here.
    pub names: Vec<HostPattern>,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
    /// Who signed it, for people.
    pub issuer: Box<str>,
    /// The SHA-256 of it, in hexadecimal digits.
    pub fingerprint: Box<str>,
    /// What a handshake needs.
    #[serde(skip)]
    pub key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Whether it is for a host: a lower-case name without port. RFC 6125 6.4.3: the wildcard stands for the left-most label alone.
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name {
            HostPattern::Exact(name) => **name == *host,
            HostPattern::Wildcard(parent) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && *rest == **parent)
            }
            HostPattern::Any => false,
        })
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        let same_key = || self.key.cert == other.key.cert && self.key.ocsp == other.key.ocsp;
        self.source == other.source && self.names == other.names && (Arc::ptr_eq(&self.key, &other.key) || same_key())
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Certificate { source, names, not_after, issuer, fingerprint, key: _ } = self;
        f.debug_struct("Certificate")
            .field("source", source)
            .field("names", names)
            .field("not_after", not_after)
            .field("issuer", issuer)
            .field("fingerprint", fingerprint)
            .finish_non_exhaustive()
    }
}

/// On what terms TLS is ended for a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostTls {
    /// The route that says so, as `namespace/name`; `None`: the settings do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Arc<str>>,
    /// One for each kind of key, so that each client gets one that it can verify. None at all: nobody is served.
    pub certificates: Vec<Arc<Certificate>>,
    /// The oldest version that is spoken; `None`: what the settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// How clients are verified; `None`: they are asked for no certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<Arc<ClientAuth>>,
    /// TLS is not ended, but passed on as this route says, whose action is to forward or to refuse.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "name")]
    pub passed: Option<Arc<Route>>,
}

/// Routes are told in full where hosts are.
fn name<S: Serializer>(route: &Option<Arc<Route>>, serializer: S) -> Result<S::Ok, S::Error> {
    route.as_ref().map(|route| &route.name).serialize(serializer)
}

impl HostTls {
    /// The certificate for a client that verifies signatures of these schemes. Those with RSA keys come last: signing with them
    /// costs twenty times as much.
    pub fn choose(&self, schemes: &[SignatureScheme]) -> Option<&Arc<Certificate>> {
        let is_rsa = |it: &Certificate| it.key.key.algorithm() == SignatureAlgorithm::RSA;
        let usable = || self.certificates.iter().filter(|it| it.key.key.choose_scheme(schemes).is_some());
        usable().find(|it| !is_rsa(it)).or_else(|| usable().next())
    }

    /// Whether whoever was shown one of the certificates may ask for `host`, too.
    pub fn covers(&self, host: &str) -> bool {
        !self.certificates.is_empty() && self.certificates.iter().all(|certificate| certificate.covers(host))
    }
}

/// The terms of all hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Tls {
    /// By host; [`HostPattern::Any`] has the default.
    hosts: SharedMap<HostPattern, Arc<HostTls>>,
    /// How many of them ask clients for certificates.
    #[serde(skip)]
    verifying: usize,
}

impl Tls {
    /// Says the terms of a host; returns those that it had.
    pub fn insert(&mut self, host: HostPattern, terms: Arc<HostTls>) -> Option<Arc<HostTls>> {
        self.verifying += usize::from(terms.clients.is_some());
        self.hosts.insert(host, terms).inspect(|before| self.verifying -= usize::from(before.clients.is_some()))
    }

    /// Takes the terms of a host out; returns them.
    pub fn remove(&mut self, host: &HostPattern) -> Option<Arc<HostTls>> {
        self.hosts.remove(host).inspect(|before| self.verifying -= usize::from(before.clients.is_some()))
    }

    /// The terms of exactly this host or wildcard.
    pub fn get(&self, host: &HostPattern) -> Option<&Arc<HostTls>> {
        self.hosts.get(host)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Whether clients of any host are asked for certificates.
    pub fn verifies(&self) -> bool {
        self.verifying > 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&HostPattern, &Arc<HostTls>)> {
        self.hosts.iter()
    }

    /// The terms of the host that a client names: its own, else those of the longest wildcard above it.
    pub fn named(&self, host: &str) -> Option<&Arc<HostTls>> {
        if self.hosts.is_empty() {
            return None;
        }
        let host = host.to_ascii_lowercase();
        let mut parent = &*host;
        let exact = self.hosts.get(&HostPattern::Exact(parent.into()));
        exact.or_else(|| {
            std::iter::from_fn(|| {
                parent = parent.split_once('.')?.1;
                Some(self.hosts.get(&HostPattern::Wildcard(parent.into())))
            })
            .flatten()
            .next()
        })
    }

    /// The terms of those who name no host, or one that is not known.
    pub fn unnamed(&self) -> Option<&Arc<HostTls>> {
        self.hosts.get(&HostPattern::Any)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Arc<Certificate> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let signed = rcgen::CertificateParams::new(names.clone()).unwrap().self_signed(&pair).unwrap();
        let der = rustls::pki_types::PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
        let key = rustls::crypto::ring::sign::any_supported_type(&der).unwrap();
        Arc::new(Certificate {
            source: "Secret shop/www".into(),
            names: names.iter().map(|name| HostPattern::parse(name).unwrap()).collect(),
            not_after: 4_000_000_000,
            issuer: "CN=test".into(),
            fingerprint: "00".into(),
            key: Arc::new(CertifiedKey::new(vec![signed.der().clone()], key)),
        })
    }

    #[test]
    fn a_name_finds_its_own_terms_then_those_above_it() {
        let terms = |version| Arc::new(HostTls { min_version: Some(version), ..HostTls::default() });
        let (own, above, any) = (terms(TlsVersion::V1_3), terms(TlsVersion::V1_2), Arc::<HostTls>::default());
        let mut tls = Tls::default();
        assert!(tls.named("www.shop.example").is_none() && tls.unnamed().is_none());
        tls.insert(HostPattern::parse("www.shop.example").unwrap(), Arc::clone(&own));
        tls.insert(HostPattern::parse("*.shop.example").unwrap(), Arc::clone(&above));
        tls.insert(HostPattern::Any, Arc::clone(&any));
        for (name, expected) in [
            ("www.shop.example", Some(&own)),
            ("WWW.shop.Example", Some(&own)),
            ("api.shop.example", Some(&above)),
            ("a.b.shop.example", Some(&above)),
            ("shop.example", None),
            ("example", None),
            ("", None),
        ] {
            assert_eq!(tls.named(name), expected, "{name}");
        }
        assert_eq!(tls.unnamed(), Some(&any));
    }

    #[test]
    fn certificates_cover_what_they_name() {
        let certificate = certificate(&["www.shop.example", "*.api.shop.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        for (host, covered) in [
            ("www.shop.example", true),
            ("eu.api.shop.example", true),
            ("a.eu.api.shop.example", false),
            ("api.shop.example", false),
            (".api.shop.example", false),
            ("shop.example", false),
            ("", false),
        ] {
            assert_eq!(certificate.covers(host), covered, "{host}");
        }
        assert!(!HostTls::default().covers("www.shop.example"));
    }

    #[test]
    fn clients_get_what_they_can_verify() {
        let (p256, p384) = (
            certificate(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256),
            certificate(&["a.example"], &rcgen::PKCS_ECDSA_P384_SHA384),
        );
        let terms = HostTls { certificates: vec![Arc::clone(&p384), Arc::clone(&p256)], ..HostTls::default() };
        let chosen = |scheme| terms.choose(&[scheme]).cloned();
        assert_eq!(chosen(SignatureScheme::ECDSA_NISTP256_SHA256), Some(p256));
        assert_eq!(chosen(SignatureScheme::ECDSA_NISTP384_SHA384), Some(p384));
        assert_eq!(chosen(SignatureScheme::RSA_PSS_SHA256), None);
    }

    #[test]
    fn a_shown_certificate_is_its_names_and_its_end() {
        let certificate = certificate(&["www.shop.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let shown = serde_json::to_value(&*certificate).unwrap();
        let expected = serde_json::json!({
            "source": "Secret shop/www", "names": ["www.shop.example"], "not_after": 4_000_000_000_i64,
            "issuer": "CN=test", "fingerprint": "00",
        });
        assert_eq!(shown, expected);
        assert!(!format!("{certificate:?}").contains("key:"), "{certificate:?}");
    }
}
