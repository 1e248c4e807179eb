//! Clients that speak TLS, and certificates for them.

use std::net::SocketAddr;
use std::sync::Arc;

use floodway::snapshot::{Certificate, HostPattern, HostTls, Snapshot};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::*;

/// Signs certificates that its clients trust.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // Nobody else's, or clients take its signature for a wrong one of another's.
        let name = format!("Authority of {:x?}", &key.public_key_raw()[1..9]);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let root = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: rcgen::Issuer::new(params, key), root }
    }

    /// A certificate for these names, signed with a fresh key.
    pub fn certificate(&self, names: &[&str]) -> Arc<Certificate> {
        let key = rcgen::KeyPair::generate().unwrap();
        self.certify(names, &key, |_| {})
    }

    /// One that has been out of date for long.
    pub fn expired(&self, names: &[&str]) -> Arc<Certificate> {
        let key = rcgen::KeyPair::generate().unwrap();
        self.certify(names, &key, |params| {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        })
    }

    fn certify(
        &self,
        names: &[&str],
        key: &rcgen::KeyPair,
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> Arc<Certificate> {
        let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(owned).unwrap();
        change(&mut params);
        let signed = params.signed_by(key, &self.issuer).unwrap();
        certificate(names, signed.der().clone(), &PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// What a client trusts that speaks these protocols.
    pub fn trusted(&self, protocols: &[&str]) -> ClientConfig {
        self.trusted_with(protocols, rustls::DEFAULT_VERSIONS)
    }

    pub fn trusted_with(
        &self,
        protocols: &[&str],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }

    /// The root as PEM, for the system's clients.
    pub fn pem(&self) -> String {
        use std::fmt::Write as _;
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        let mut digits = String::new();
        for part in self.root.chunks(3) {
            let bits = part.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
            for at in 0..4 {
                let digit = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
                    [(bits >> (18 - 6 * at) & 63) as usize];
                digits.push(if at <= part.len() { digit as char } else { '=' });
            }
        }
        for line in digits.as_bytes().chunks(64) {
            writeln!(pem, "{}", std::str::from_utf8(line).unwrap()).unwrap();
        }
        pem + "-----END CERTIFICATE-----\n"
    }
}

/// A certificate from the files of a server, whoever signed it.
pub fn pair(names: &[&str], certificate: &str, key: &str) -> Arc<Certificate> {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    self::certificate(names, der, &PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
}

fn certificate(names: &[&str], der: CertificateDer<'static>, key: &PrivateKeyDer<'_>) -> Arc<Certificate> {
    let key = rustls::crypto::ring::sign::any_supported_type(key).unwrap();
    Arc::new(Certificate {
        source: "Secret test/certificate".into(),
        names: names.iter().map(|name| HostPattern::parse(name).unwrap()).collect(),
        not_after: i64::MAX,
        issuer: "test".into(),
        fingerprint: "test".into(),
        key: Arc::new(CertifiedKey::new(vec![der], key)),
    })
}

/// Has a snapshot end TLS for a host (`*`: for those who name none) with these certificates.
pub fn ended(mut snapshot: Snapshot, host: &str, certificates: &[&Arc<Certificate>]) -> Snapshot {
    let certificates = certificates.iter().map(|certificate| Arc::clone(certificate)).collect();
    let host = if host == "*" { HostPattern::Any } else { HostPattern::parse(host).unwrap() };
    snapshot.tls.insert(host, Arc::new(HostTls { certificates, ..HostTls::default() }));
    snapshot
}

/// A plane that listens with TLS, too.
pub fn secure(snapshot: Snapshot) -> Plane {
    secure_with(snapshot, |_| {})
}

/// The same with settings of the test's choosing.
pub fn secure_with(snapshot: Snapshot, change: impl FnOnce(&mut floodway::settings::Settings)) -> Plane {
    Plane::with(snapshot, |settings| {
        settings.listeners.https = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        change(settings);
    })
}

/// A connection after its handshake.
pub async fn shake(
    address: SocketAddr,
    host: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    within(TlsConnector::from(Arc::clone(config)).connect(name, stream)).await
}
