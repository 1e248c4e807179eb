//! Certificates of clients in a handshake: how large they may be, who judges them, and that a session is resumed only where, and for
//! as long as, the certificate that it began with is as good as it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ProducesTickets;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConnection, SignatureScheme};
use zeroize::Zeroizing;

use crate::proxy::certified::Certified;
use crate::snapshot::{HostTls, x509};

/// Bytes of a client's own certificate, and of all that it sends. They are kept in tickets, and may be passed on in headers.
const LARGEST: usize = 8 * 1024;
const LARGEST_CHAIN: usize = 24 * 1024;
/// What tickets begin with of hosts whose clients show nothing.
pub(super) const NO_TERMS: [u8; 32] = [0; 32];

/// Until when what a handshake was judged by is good, in seconds since 1970.
#[derive(Debug)]
pub(super) struct Until(AtomicI64);

impl Until {
    pub(super) fn new(time: Option<i64>) -> Arc<Self> {
        Arc::new(Until(AtomicI64::new(time.unwrap_or(i64::MAX))))
    }

    fn shorten(&self, time: i64) {
        self.0.fetch_min(time, Ordering::Relaxed);
    }
}

/// Judges as the terms of a host say, certificates of a size that can be borne.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) trusted: Arc<dyn ClientCertVerifier>,
    pub(super) until: Arc<Until>,
}

impl ClientCertVerifier for Judge {
    fn offer_client_auth(&self) -> bool {
        self.trusted.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.trusted.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trusted.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let all = end_entity.len() + intermediates.iter().map(|one| one.len()).sum::<usize>();
        if end_entity.len() > LARGEST || all > LARGEST_CHAIN {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let verified = self.trusted.verify_client_cert(end_entity, intermediates, now)?;
        for one in [end_entity].into_iter().chain(intermediates) {
            self.until.shorten(x509::not_after(one).ok_or(CertificateError::BadEncoding)?);
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.supported_verify_schemes()
    }
}

/// Tickets of the process's keys that are good under the same terms alone: a session that was begun with one host, or before an
/// authority or a revocation list changed, or with a certificate that has expired since, is not resumed, and whoever brings it
/// shakes hands anew. (That it was begun with the same host name, rustls sees to.)
#[derive(Debug)]
pub(super) struct Tickets {
    pub(super) keys: Arc<dyn ProducesTickets>,
    pub(super) terms: [u8; 32],
    pub(super) until: Arc<Until>,
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.keys.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.keys.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let until = self.until.0.load(Ordering::Relaxed).to_be_bytes();
        let mut bound = Zeroizing::new(Vec::with_capacity(self.terms.len() + until.len() + plain.len()));
        for part in [&self.terms[..], &until, plain] {
            bound.extend_from_slice(part);
        }
        self.keys.encrypt(&bound)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let bound = Zeroizing::new(self.keys.decrypt(cipher)?);
        let (terms, rest) = bound.split_first_chunk::<32>()?;
        let (until, plain) = rest.split_first_chunk::<8>()?;
        let until = i64::from_be_bytes(*until);
        if *terms != self.terms || until <= now() {
            return None;
        }
        // What is resumed is good no longer than what it resumes, however often.
        self.until.shorten(until);
        Some(plain.to_vec())
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Who the client of a session is that was judged by these terms, or resumed under them.
///
/// # Errors
/// The word for why it is nobody who may come in.
pub(super) fn client(session: &ServerConnection, terms: &HostTls) -> Result<Option<Box<Certified>>, &'static str> {
    let Some(auth) = &terms.clients else { return Ok(None) };
    match session.peer_certificates() {
        None | Some([]) if auth.requires() => Err("tls_no_client_certificate"),
        None | Some([]) => Ok(None),
        // What nobody can read says of nobody who he is.
        Some(chain) => Certified::new(chain, auth.terms.forward).map(Some).ok_or("tls_client_certificate"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tickets(keys: &Arc<dyn ProducesTickets>, terms: u8, until: Option<i64>) -> Tickets {
        Tickets { keys: Arc::clone(keys), terms: [terms; 32], until: Until::new(until) }
    }

    #[test]
    fn a_ticket_is_good_under_its_own_terms_and_for_its_own_time() {
        let keys = rustls::crypto::ring::Ticketer::new().unwrap();
        let ticket = tickets(&keys, 1, None).encrypt(b"session").unwrap();
        assert_eq!(tickets(&keys, 1, None).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets(&keys, 2, None).decrypt(&ticket), None, "other terms");
        assert_eq!(tickets(&keys, 0, None).decrypt(&ticket), None, "none");
        assert_eq!(keys.decrypt(&keys.encrypt(b"short").unwrap()).as_deref(), Some(&b"short"[..]));
        assert_eq!(tickets(&keys, 1, None).decrypt(&keys.encrypt(b"short").unwrap()), None, "bound to nothing");

        let over = tickets(&keys, 1, Some(now() - 1)).encrypt(b"session").unwrap();
        assert_eq!(tickets(&keys, 1, None).decrypt(&over), None, "expired");
        let soon = now() + 1000;
        let ticket = tickets(&keys, 1, Some(soon)).encrypt(b"session").unwrap();
        let resumed = tickets(&keys, 1, None);
        assert!(resumed.decrypt(&ticket).is_some());
        assert_eq!(resumed.until.0.load(Ordering::Relaxed), soon, "what is resumed lasts no longer");
    }
}
