//! From the entries of a Secret to a certificate that can be served: chain and key are read, and belong together. Whether a
//! client will trust it is not looked at, nor whether it has expired: translation has no clock.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use zeroize::Zeroize as _;

use crate::snapshot::Certificate;
use crate::snapshot::x509::{Facts, facts, is_good_staple};
use crate::translate::{Key, SecretData, TLS_CERTIFICATE, TLS_KEY, TLS_STAPLE};

/// Certificates of a chain; more are a bundle of authorities by mistake, which every handshake would carry.
const LONGEST_CHAIN: usize = 16;

/// Why a Secret has no certificate that can be served. It tells nothing of what the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongCertificate {
    /// The entry to look at: [`TLS_CERTIFICATE`], [`TLS_KEY`] or [`TLS_STAPLE`].
    pub entry: &'static str,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

impl fmt::Display for WrongCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.entry, self.why)
    }
}

/// What a Secret has to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) certificate: Certificate,
    /// What is wrong with the staple, which is left out then.
    pub(super) staple: Option<WrongCertificate>,
}

/// What is wrong with the certificate of a Secret, its staple included.
///
/// # Errors
/// The first thing that is.
pub fn check_certificate(key: &Key, secret: &SecretData) -> Result<(), WrongCertificate> {
    read(key, secret)?.staple.map_or(Ok(()), Err)
}

/// Reads the certificate of a Secret.
pub(super) fn read(key: &Key, secret: &SecretData) -> Result<Read, WrongCertificate> {
    let (chain, leaf) = chain(secret)?;
    let fingerprint = ring::digest::digest(&ring::digest::SHA256, &chain[0]);
    let fingerprint: String = fingerprint.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut certified = CertifiedKey::new(chain, private_key(secret)?);
    certified.keys_match().map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => WrongCertificate {
            entry: TLS_KEY,
            why: "is not the key of the first certificate; put the server's own certificate first in its chain, and renew both together".to_owned(),
        },
        _ => WrongCertificate {
            entry: TLS_CERTIFICATE,
            why: "the first certificate cannot be served; it has to be one of X.509 version 3".to_owned(),
        },
    })?;
    let mut wrong_staple = None;
    if let Some(staple) = secret.entry(TLS_STAPLE).map(|staple| staple.expose()).filter(|staple| !staple.is_empty()) {
        if is_good_staple(staple) {
            certified.ocsp = Some(staple.to_vec());
        } else {
            let why = "is not a successful response of an OCSP responder in DER, and is left out; fetch it anew, or remove it";
            wrong_staple = Some(WrongCertificate { entry: TLS_STAPLE, why: why.to_owned() });
        }
    }
    let Facts { names, issuer, not_after } = leaf;
    let certificate = Certificate {
        source: format!("Secret {key}").into(),
        names,
        not_after,
        issuer: issuer.into(),
        fingerprint: fingerprint.into(),
        key: Arc::new(certified),
    };
    Ok(Read { certificate, staple: wrong_staple })
}

/// The chain, which is never empty, and what its first certificate says.
fn chain(secret: &SecretData) -> Result<(Vec<CertificateDer<'static>>, Facts), WrongCertificate> {
    let wrong = |why: String| WrongCertificate { entry: TLS_CERTIFICATE, why };
    let text = secret.entry(TLS_CERTIFICATE).filter(|text| !text.expose().is_empty());
    let text = text
        .ok_or_else(|| wrong("is missing or empty; it has the certificates in PEM, the server's own first".into()))?;
    // The reader's own errors repeat lines of the text.
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.expose()).take(LONGEST_CHAIN + 1).collect();
    let chain = chain.map_err(|_| {
        wrong("is not whole PEM, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----; write it anew".into())
    })?;
    let Some(first) = chain.first() else {
        return Err(wrong("has no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----".into()));
    };
    if chain.len() > LONGEST_CHAIN {
        return Err(wrong(format!(
            "has more than {LONGEST_CHAIN} certificates; leave the server's own, and those up to, not including, the root"
        )));
    }
    let facts = facts(first).ok_or_else(|| wrong("the first certificate is not one of X.509; issue it anew".into()))?;
    Ok((chain, facts))
}

fn private_key(secret: &SecretData) -> Result<Arc<dyn rustls::sign::SigningKey>, WrongCertificate> {
    let wrong = |why: &str| WrongCertificate { entry: TLS_KEY, why: why.to_owned() };
    let text = secret.entry(TLS_KEY).filter(|text| !text.expose().is_empty());
    let text = text.ok_or_else(|| wrong("is missing or empty; it has the private key in PEM"))?;
    let mut der = PrivateKeyDer::from_pem_slice(text.expose()).map_err(|_| {
        wrong(
            "has no private key in PEM that can be read: PKCS#8 (-----BEGIN PRIVATE KEY-----), PKCS#1 (RSA) or SEC1 (EC), and not \
             encrypted",
        )
    })?;
    let key = any_supported_type(&der);
    der.zeroize();
    key.map_err(|_| {
        wrong("holds a key that cannot be used; use RSA with 2048 to 4096 bits, ECDSA on P-256 or P-384, or Ed25519")
    })
}

#[cfg(test)]
mod tests;
