//! Clients with certificates, authorities that sign them, and tables that ask for them, from the objects that say so.

use std::net::SocketAddr;
use std::sync::Arc;

use floodway::api::{DEFAULT_CLASS, ProxyPolicy, ProxyRoute, ProxyUpstream};
use floodway::settings::RouteDefaults;
use floodway::snapshot::Snapshot;
use floodway::translate::{ConfigMapData, Context, Key, Resources, SecretData, Translation, Translator};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::*;
use super::tls_clients::*;

pub const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// Signs certificates of clients and servers, and lists of those that are revoked.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: rcgen::Certificate,
}

/// A certificate with those that follow it, and its key.
pub struct Signed {
    pub chain: Vec<CertificateDer<'static>>,
    pub pem: String,
    key: KeyPair,
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

impl Signer {
    pub fn new(name: &str) -> Self {
        Signer::below(name, None)
    }

    /// One that another one signed, if any.
    pub fn below(name: &str, above: Option<&Signer>) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from(4711));
        let certificate = match above {
            None => params.self_signed(&key).unwrap(),
            Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
        };
        Signer { issuer: Issuer::new(params, key), certificate }
    }

    /// The certificate of a client called `cart`, as the test changes it.
    pub fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = named("cart");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }

    pub fn client(&self) -> Signed {
        self.sign(|_| {})
    }

    /// A list of these serial numbers, as PEM, that is to be followed by the next in a year.
    pub fn revoking(&self, serials: &[u64], next: i32) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 1, 1),
            next_update: date_time_ymd(next, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Signed {
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The same, with the certificate of whoever signed it behind.
    pub fn with(mut self, signer: &Signer) -> Self {
        self.chain.push(signer.certificate.der().clone());
        self
    }
}

/// Objects, and what comes of them: routes to an endpoint, a certificate for `a.test`, `b.test` and `c.test`, and whom clients trust.
pub struct World {
    pub resources: Resources,
    translator: Translator,
    pub server: Signer,
}

fn key(name: &str) -> Key {
    Key::new("shop", name)
}

impl World {
    pub fn new(endpoint: SocketAddr) -> Self {
        World::with(endpoint, None)
    }

    /// One whose settings ask for certificates.
    pub fn with(endpoint: SocketAddr, client_certificates: Option<floodway::settings::ClientCertificates>) -> Self {
        let context = Context {
            class_name: DEFAULT_CLASS.to_owned(),
            zone: None,
            defaults: RouteDefaults::default(),
            policy: Default::default(),
            shared_limits: true,
            default_certificate: Some(key("www")),
            client_certificates,
            https_port: 443,
            key_hosts: Default::default(),
            roots: Default::default(),
        };
        let server = Signer::new("server-ca");
        let own = server.sign(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = ["a.test", "b.test", "c.test"]
                .map(|name| rcgen::SanType::DnsName(name.try_into().unwrap()))
                .into_iter()
                .chain([rcgen::SanType::IpAddress([127, 0, 0, 1].into())])
                .collect();
        });
        let mut world = World { resources: Resources::default(), translator: Translator::new(context), server };
        let bytes = |text: String| text.into_bytes().into();
        let secret = SecretData::tls(bytes(own.pem.clone()), bytes(own.key_pem()), None).unwrap();
        world.resources.put_secret(key("www"), Arc::new(secret));
        let upstream: ProxyUpstream = serde_json::from_value(json!({
            "metadata": {"name": "backend"}, "spec": {"endpoints": [{"address": endpoint}], "protocol": "Http1"},
        }))
        .unwrap();
        world.resources.upstreams.insert(key("backend"), Arc::new(upstream.into()));
        world
    }

    /// A ConfigMap with these entries.
    pub fn map(&mut self, name: &str, entries: &[(&str, &str)]) {
        let data: serde_json::Map<String, Value> =
            entries.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect();
        let map = ConfigMapData::read(json!({"data": data})).unwrap();
        self.resources.config_maps.insert(key(name), Arc::new(map));
    }

    /// A route of a host, which asks this of clients.
    pub fn route(&mut self, host: &str, clients: Option<Value>, policies: &[&str]) {
        let mut tls = json!({"secretName": "www"});
        if let Some(clients) = clients {
            tls["clientCertificates"] = clients;
        }
        self.route_of(host, host, 1, tls, policies);
    }

    pub fn route_of(&mut self, name: &str, host: &str, day: u8, tls: Value, policies: &[&str]) {
        let policies: Vec<_> = policies.iter().map(|name| json!({"name": name})).collect();
        let created = format!("2026-01-{day:02}T00:00:00Z");
        let route: ProxyRoute = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
            "spec": {
                "hosts": [host], "tls": tls,
                "rules": [{"backends": [{"upstream": {"name": "backend"}}], "policies": policies}],
            },
        }))
        .unwrap();
        self.resources.routes.insert(key(name), Arc::new(route.into()));
    }

    pub fn policy(&mut self, name: &str, spec: Value) {
        let policy: ProxyPolicy =
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})).unwrap();
        self.resources.policies.insert(key(name), Arc::new(policy.into()));
    }

    pub fn translation(&mut self) -> Translation {
        self.translator.translate(&self.resources)
    }

    pub fn table(&mut self) -> Snapshot {
        self.translation().snapshot
    }

    /// A client that shows this.
    pub fn shows(
        &self,
        shown: Option<&Signed>,
        version: &'static SupportedProtocolVersion,
        protocols: &[&str],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.server.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => {
                // Whatever authorities the server names.
                let key = PrivatePkcs8KeyDer::from(shown.key.serialize_der()).into();
                builder.with_client_auth_cert(shown.chain.clone(), key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    pub fn shows13(&self, shown: Option<&Signed>) -> Arc<ClientConfig> {
        self.shows(shown, &rustls::version::TLS13, &["http/1.1"])
    }
}

/// The answer to a request on a connection of its own, and whether its session was resumed; or why there is none.
pub async fn told(
    plane: &Plane,
    config: &Arc<ClientConfig>,
    name: &str,
    host: &str,
    path: &str,
    lines: &str,
) -> Result<(String, bool), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut client = shake(plane.secure, name, config).await.map_err(failed)?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    within(client.read_to_end(&mut answer)).await.map_err(failed)?;
    let resumed = client.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    if answer.is_empty() { Err("nothing".to_owned()) } else { Ok((String::from_utf8(answer).unwrap(), resumed)) }
}

/// The same for the host that is named.
pub async fn asked(plane: &Plane, config: &Arc<ClientConfig>, host: &str) -> Result<String, String> {
    told(plane, config, host, host, "/", "").await.map(|(answer, _)| answer)
}
