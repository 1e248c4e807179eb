//! TLS with endpoints: what a ProxyUpstream says of it, and the certificates and keys that it names, made ready for handshakes.
//! What cannot be made ready leads nowhere: nobody falls back to cleartext, or to trusting others than were named.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::conditions::{Problem, reason};
use super::policy::Material;
use super::{Roots, TLS_CERTIFICATE, TLS_KEY};
use crate::api;
use crate::snapshot::{Protocol, SecretBytes, UpstreamTerms, UpstreamTls};

/// Where a Secret or ConfigMap has the certificates of an authority, in PEM, as Kubernetes itself has it.
const AUTHORITY: &str = "ca.crt";

/// What an upstream says of TLS, of clusters whose protocol and whose endpoints' name are still to be said. `None` if something is wrong,
/// which is told, with the path of the section.
pub(super) fn upstream_tls(
    given: &api::UpstreamTls,
    at: &str,
    material: &mut Material<'_>,
    roots: &Roots,
    problems: &mut Vec<Problem>,
) -> Option<UpstreamTls> {
    let api::UpstreamTls {
        server_name,
        ca_secret_name,
        ca_config_map_name,
        subject_alt_names,
        client_certificate_secret_name,
        insecure_skip_verify,
    } = given;
    let mut name = |text: &str, path: String| {
        let name = ServerName::try_from(text.to_owned());
        name.map_err(|_| problems.push(Problem::invalid(path, format_args!("{text:?} is not the name of a host")))).ok()
    };
    let server_name = match server_name {
        Some(text) => Some(name(text, format!("{at}.serverName"))?),
        None => None,
    };
    let mut alternatives = Vec::new();
    for (place, text) in subject_alt_names.iter().enumerate() {
        alternatives.push(name(text, format!("{at}.subjectAltNames[{place}]"))?);
    }
    let authority = match (ca_secret_name, ca_config_map_name) {
        (Some(_), Some(_)) => {
            let message =
                "the authority is in a Secret or in a ConfigMap: only one of caSecretName and caConfigMapName";
            problems.push(Problem::invalid(at, message));
            return None;
        }
        (Some(name), None) => {
            let path = format!("{at}.caSecretName");
            let entry = material.secret(name, &path)?.entry(AUTHORITY).cloned();
            Some((path, entry))
        }
        (None, Some(name)) => {
            let path = format!("{at}.caConfigMapName");
            let entry = material.config_map(name, &path)?.entry(AUTHORITY).cloned();
            Some((path, entry))
        }
        (None, None) => None,
    };
    let authority = match authority {
        None => None,
        Some((_, Some(pem))) => Some(pem),
        Some((path, None)) => {
            material.wrong(&path, format_args!("it has no entry {AUTHORITY:?} with certificates in PEM"));
            return None;
        }
    };
    let identity = match client_certificate_secret_name {
        None => None,
        Some(name) => {
            let path = format!("{at}{IDENTITY_FIELD}");
            let secret = material.secret(name, &path)?;
            let (Some(certificate), Some(key)) = (secret.entry(TLS_CERTIFICATE), secret.entry(TLS_KEY)) else {
                material.wrong(&path, format_args!("it has no entries {TLS_CERTIFICATE:?} and {TLS_KEY:?}"));
                return None;
            };
            Some((certificate.clone(), key.clone()))
        }
    };
    let terms = UpstreamTerms {
        server_name,
        alternatives: subject_alt_names.clone(),
        authority,
        identity,
        insecure: *insecure_skip_verify,
        protocol: Protocol::Agreed,
    };
    match config(&terms, alternatives, roots) {
        Ok(config) => Some(UpstreamTls { terms, config: Arc::new(config) }),
        Err((field, why)) => {
            material.wrong(&format!("{at}{field}"), why);
            None
        }
    }
}

/// TLS with whoever answers, for who asks and tells no secrets: as the kubelet probes apps.
pub fn unverified_tls(protocol: Protocol) -> Option<UpstreamTls> {
    let terms = UpstreamTerms {
        server_name: None,
        alternatives: Vec::new(),
        authority: None,
        identity: None,
        insecure: true,
        protocol,
    };
    let config = config(&terms, Vec::new(), &Roots::default()).ok()?;
    Some(UpstreamTls { terms, config: Arc::new(config) })
}

/// What the path of the field that is wrong has behind that of the section, and what is wrong.
type Wrong = (&'static str, &'static str);

fn config(terms: &UpstreamTerms, names: Vec<ServerName<'static>>, roots: &Roots) -> Result<ClientConfig, Wrong> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|_| ("", "there is no version of TLS to speak"))?;
    let verifier: Arc<dyn ServerCertVerifier> = if terms.insecure {
        Arc::new(Anybody(provider))
    } else {
        let (roots, path, why) = match &terms.authority {
            Some(pem) => (Arc::new(authority(pem)?), AUTHORITY_FIELD, "it has no certificates in PEM"),
            None => (
                Arc::clone(&roots.0),
                "",
                "the system trusts nobody (there is no file of certificates); name an authority in caSecretName or caConfigMapName",
            ),
        };
        let trusted = WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(|_| (path, why))?;
        if names.is_empty() { trusted } else { Arc::new(OneOf { trusted, names }) }
    };
    // Its own, so that it is as strict as any, whatever it verifies.
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &terms.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let field = IDENTITY_FIELD;
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.expose()).collect();
            let chain = chain.ok().filter(|chain| !chain.is_empty());
            let chain = chain.ok_or((field, "its tls.crt is not certificates in PEM"))?;
            let key = PrivateKeyDer::from_pem_slice(key.expose());
            let key = key.map_err(|_| (field, "its tls.key is not a private key in PEM"))?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|_| {
                (field, "its key is of a kind that is not supported, or does not belong to its certificate")
            })?
        }
    };
    config.alpn_protocols = terms.protocol.alpn();
    Ok(config)
}

const AUTHORITY_FIELD: &str = "";
const IDENTITY_FIELD: &str = ".clientCertificateSecretName";

fn authority(pem: &SecretBytes) -> Result<RootCertStore, Wrong> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.expose()) {
        let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
        added.ok_or((AUTHORITY_FIELD, "ca.crt of the authority is not certificates in PEM"))?;
    }
    Ok(roots)
}

impl Material<'_> {
    /// What a field names is there, and is not what it should be.
    fn wrong(&mut self, path: &str, message: impl std::fmt::Display) {
        let (path, message) = (path.to_owned(), message.to_string());
        self.unresolved.push(Problem { reason: reason::INVALID, path, message });
    }
}

/// Trusts certificates that are for one of several names.
#[derive(Debug)]
struct OneOf {
    trusted: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for OneOf {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut verified = Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        for name in &self.names {
            verified = self.trusted.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
            if verified.is_ok() {
                break;
            }
        }
        verified
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

/// Trusts everybody, as `insecureSkipVerify` asks. Who has the certificate's key is still made sure of.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
