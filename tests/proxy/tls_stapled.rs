//! What a Secret has of the OCSP responder is sent along, in either version of TLS, and is another's as soon as the Secret has another.

use std::sync::{Arc, Mutex};

use floodway::snapshot::{Certificate, Snapshot};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use super::support::*;
use super::tls_clients::*;

/// Remembers what it is shown, and believes everybody.
#[derive(Debug, Default)]
struct Shown(Mutex<Option<Vec<u8>>>);

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(staple.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &ring::default_provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &ring::default_provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn stapled(certificate: &Certificate, staple: Option<&[u8]>) -> Arc<Certificate> {
    let mut key = rustls::sign::CertifiedKey::clone(&certificate.key);
    key.ocsp = staple.map(<[u8]>::to_vec);
    Arc::new(Certificate { key: Arc::new(key), ..certificate.clone() })
}

#[tokio::test]
async fn clients_get_the_staple() {
    let certificate = Authority::new().certificate(&["a.test"]);
    let backend = mirror().await;
    let table = |staple| -> Snapshot { ended(to(backend), "a.test", &[&stapled(&certificate, staple)]) };
    let plane = secure(table(None));
    for staple in [None, Some(&b"an answer of the responder"[..]), Some(b"a later one")] {
        plane.publisher.publish(table(staple));
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let shown = Arc::new(Shown::default());
            let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
            let builder = builder.with_protocol_versions(&[version]).unwrap().dangerous();
            let verifier = Arc::clone(&shown) as Arc<dyn ServerCertVerifier>;
            let config = builder.with_custom_certificate_verifier(verifier).with_no_client_auth();
            shake(plane.secure, "a.test", &Arc::new(config)).await.unwrap();
            let shown = shown.0.lock().unwrap().take();
            assert_eq!(shown.as_deref(), Some(staple.unwrap_or_default()), "{version:?}");
        }
    }
}
