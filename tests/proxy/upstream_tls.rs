//! TLS with endpoints, from the objects that ask for it: whom it trusts, what is spoken in it, and what passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use floodway::api::{DEFAULT_CLASS, ProxyRoute, ProxyUpstream};
use floodway::settings::RouteDefaults;
use floodway::snapshot::Snapshot;
use floodway::translate::{ConfigMapData, Context, Key, Resources, SecretData, Translation, Translator};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::clients::http2_backend;
use super::support::*;

/// Signs certificates.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate and its key.
struct Signed {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Authority { issuer: rcgen::Issuer::new(params, key), certificate }
    }

    fn sign(&self, name: &str) -> Signed {
        self.sign_until(name, 2100)
    }

    fn sign_until(&self, name: &str, year: i32) -> Signed {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        Signed { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }
}

impl Signed {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    fn server(&self, alpn: &[&str]) -> ServerConfig {
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let chain = vec![self.certificate.der().clone()];
        let mut config = config.with_no_client_auth().with_single_cert(chain, self.key()).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// An endpoint that ends TLS before backends without, by what was agreed on.
struct Secured {
    address: SocketAddr,
    full: Arc<AtomicUsize>,
    resumed: Arc<AtomicUsize>,
}

impl Secured {
    async fn start(config: ServerConfig, http1: SocketAddr, http2: SocketAddr) -> Secured {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (full, resumed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let seen = (Arc::clone(&full), Arc::clone(&resumed));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let counter =
                        if session.handshake_kind() == Some(HandshakeKind::Resumed) { &seen.1 } else { &seen.0 };
                    counter.fetch_add(1, Ordering::SeqCst);
                    let plain = if session.alpn_protocol() == Some(b"h2") { http2 } else { http1 };
                    let mut plain = TcpStream::connect(plain).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
                });
            }
        });
        Secured { address, full, resumed }
    }

    /// One that answers in either version with what it was asked.
    async fn answering(config: ServerConfig) -> Secured {
        let http2 = http2_backend(|request, mut answer| async move {
            let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
            stream.send_data(format!("{:?} {}", request.version(), request.uri()).into(), true).unwrap();
        });
        Secured::start(config, mirror().await, http2.await).await
    }
}

/// Everything under `/` goes to an endpoint, with TLS on these terms.
fn translated(endpoint: SocketAddr, protocol: &str, tls: Value, add: impl FnOnce(&mut Resources)) -> Translation {
    let mut resources = Resources::default();
    let key = |name: &str| Key::new("shop", name);
    let upstream: ProxyUpstream = serde_json::from_value(json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyUpstream", "metadata": {"name": "backend"},
        "spec": {"endpoints": [{"address": endpoint}], "protocol": protocol, "tls": tls},
    }))
    .unwrap();
    resources.upstreams.insert(key("backend"), Arc::new(upstream.into()));
    let route: ProxyRoute = serde_json::from_value(json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": "all"},
        "spec": {"rules": [{"backends": [{"upstream": {"name": "backend"}}]}]},
    }))
    .unwrap();
    resources.routes.insert(key("all"), Arc::new(route.into()));
    add(&mut resources);
    let context = Context {
        class_name: DEFAULT_CLASS.to_owned(),
        zone: None,
        defaults: RouteDefaults::default(),
        policy: Default::default(),
        shared_limits: true,
        default_certificate: None,
        client_certificates: None,
        https_port: 443,
        roots: Default::default(),
        key_hosts: Default::default(),
    };
    Translator::new(context).translate(&resources)
}

fn authority(authority: &Authority) -> impl FnOnce(&mut Resources) {
    let map = ConfigMapData::read(json!({"data": {"ca.crt": authority.certificate.pem()}})).unwrap();
    move |resources| drop(resources.config_maps.insert(Key::new("shop", "ca"), Arc::new(map)))
}

fn snapshot_of(endpoint: SocketAddr, protocol: &str, tls: Value, by: &Authority) -> Snapshot {
    translated(endpoint, protocol, tls, authority(by)).snapshot
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn what_is_spoken_is_what_both_can() {
    let trusted = Authority::new();
    let tls = json!({"serverName": "llm.internal", "caConfigMapName": "ca"});
    for (protocol, alpn, http2, told) in [
        ("Auto", &["h2", "http/1.1"][..], true, "200"),
        ("Auto", &["http/1.1"], false, "200"),
        ("Auto", &[], false, "200"),
        ("Http1", &["h2", "http/1.1"], false, "200"),
        ("Http2", &["h2", "http/1.1"], true, "200"),
        ("Http2", &["http/1.1"], false, "502"),
        ("Http2", &[], false, "502"),
    ] {
        let endpoint = Secured::answering(trusted.sign("llm.internal").server(alpn)).await;
        let plane = Plane::with_workers(1, snapshot_of(endpoint.address, protocol, tls.clone(), &trusted), |_| {});
        for _ in 0..3 {
            let answer = plane.exchange(request("/x")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {told} ")), "{protocol} {alpn:?}: {answer}");
            assert_eq!(answer.contains("HTTP/2.0 https://a/x"), http2, "{protocol} {alpn:?}: {answer}");
            assert_eq!(answer.contains("upstream_tls"), told == "502");
        }
        if told == "200" {
            assert_eq!(endpoint.full.load(Ordering::SeqCst), 1, "connections are kept");
        }
    }
}

#[tokio::test]
async fn only_who_is_meant_is_believed() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let named = json!({"serverName": "llm.internal", "caConfigMapName": "ca"});
    let with =
        |names: &[&str]| json!({"serverName": "llm.internal", "caConfigMapName": "ca", "subjectAltNames": names});
    for (signed, tls, passes) in [
        (trusted.sign("llm.internal"), named.clone(), true),
        (trusted.sign("*.llm.internal"), json!({"serverName": "eu.llm.internal", "caConfigMapName": "ca"}), true),
        (trusted.sign("other.internal"), named.clone(), false),
        (other.sign("llm.internal"), named.clone(), false),
        (trusted.sign_until("llm.internal", 2001), named.clone(), false),
        (trusted.sign("spiffe.example"), with(&["a.example", "spiffe.example"]), true),
        (trusted.sign("llm.internal"), with(&["a.example"]), false),
        (other.sign("a.example"), with(&["a.example"]), false),
        (trusted.sign("127.0.0.1"), json!({"caConfigMapName": "ca"}), true),
        (trusted.sign("llm.internal"), json!({"caConfigMapName": "ca"}), false),
        (other.sign_until("other.internal", 2001), json!({"insecureSkipVerify": true}), true),
    ] {
        let endpoint = Secured::answering(signed.server(&[])).await;
        let plane = Plane::start(snapshot_of(endpoint.address, "Auto", tls.clone(), &trusted));
        let answer = plane.exchange(request("/x")).await;
        if passes {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{tls}: {answer}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("upstream_tls"), "{tls}: {answer}");
            assert_eq!(plane.logged("/x").await["reason"], "upstream_tls");
        }
    }
}

#[tokio::test]
async fn endpoints_may_ask_who_comes() {
    let (trusted, clients) = (Authority::new(), Authority::new());
    let signed = trusted.sign("llm.internal");
    let config = || {
        let roots = Arc::new(clients.roots());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let chain = vec![signed.certificate.der().clone()];
        config.with_client_cert_verifier(verifier).with_single_cert(chain, signed.key()).unwrap()
    };
    let endpoint = Secured::answering(config()).await;
    let own = clients.sign("floodway");
    let pair =
        SecretData::tls(own.certificate.pem().into_bytes().into(), own.key.serialize_pem().into_bytes().into(), None);
    let secret = Arc::new(pair.unwrap());
    let tls = json!({"serverName": "llm.internal", "caConfigMapName": "ca", "clientCertificateSecretName": "own"});
    let with_secret = |resources: &mut Resources| {
        authority(&trusted)(resources);
        resources.secrets.insert(Key::new("shop", "own"), Arc::clone(&secret));
    };
    let translation = translated(endpoint.address, "Auto", tls, with_secret);
    let shown = format!("{:?} {}", translation.snapshot, serde_json::to_string(&translation.snapshot).unwrap());
    assert!(!shown.contains("PRIVATE") && !shown.contains("BEGIN"), "{shown}");
    let plane = Plane::start(translation.snapshot);
    assert!(plane.exchange(request("/x")).await.starts_with("HTTP/1.1 200 "));

    let tls = json!({"serverName": "llm.internal", "caConfigMapName": "ca"});
    let plane = Plane::start(snapshot_of(endpoint.address, "Auto", tls, &trusted));
    assert!(plane.exchange(request("/x")).await.starts_with("HTTP/1.1 502 "), "nobody comes without");
}

#[tokio::test]
async fn sessions_are_resumed() {
    let trusted = Authority::new();
    let endpoint = Secured::answering(trusted.sign("llm.internal").server(&["http/1.1"])).await;
    let tls = json!({"serverName": "llm.internal", "caConfigMapName": "ca"});
    let mut snapshot = snapshot_of(endpoint.address, "Http1", tls, &trusted);
    let clusters: Vec<_> = snapshot.clusters.values().cloned().collect();
    for cluster in clusters {
        let mut cluster = floodway::snapshot::Cluster::clone(&cluster);
        cluster.connections.max_idle_per_endpoint = 0;
        snapshot.clusters.insert(cluster.name.clone(), Arc::new(cluster));
    }
    let plane = Plane::start(snapshot);
    for _ in 0..6 {
        assert!(plane.exchange(request("/x")).await.starts_with("HTTP/1.1 200 "));
    }
    let (full, resumed) = (endpoint.full.load(Ordering::SeqCst), endpoint.resumed.load(Ordering::SeqCst));
    assert_eq!((full, resumed), (1, 5), "whichever worker connects");
}

#[tokio::test]
async fn what_is_not_there_or_broken_lets_nobody_through() {
    let (address, _arrivals) = played().await;
    let garbage = |name: &'static str| {
        let map = ConfigMapData::read(json!({"data": {name: "hush"}})).unwrap();
        move |resources: &mut Resources| drop(resources.config_maps.insert(Key::new("shop", "ca"), Arc::new(map)))
    };
    let ca = json!({"caConfigMapName": "ca"});
    let translations = [
        (translated(address, "Auto", ca.clone(), |_| {}), "ConfigMap shop/ca is not there"),
        (translated(address, "Auto", ca.clone(), garbage("other")), "it has no entry \"ca.crt\""),
        (translated(address, "Auto", ca, garbage("ca.crt")), "certificates in PEM"),
        (translated(address, "Auto", json!({"caSecretName": "ca"}), |_| {}), "Secret shop/ca is not there"),
        (translated(address, "Auto", json!({}), |_| {}), "the system trusts nobody"),
        (
            translated(
                address,
                "Auto",
                json!({"insecureSkipVerify": true, "clientCertificateSecretName": "own"}),
                |_| {},
            ),
            "Secret shop/own is not there",
        ),
    ];
    for (translation, told) in translations {
        let conditions = translation.statuses.upstreams.get(&Key::new("shop", "backend")).unwrap();
        let unresolved = conditions.iter().find(|condition| condition.type_ == "ResolvedRefs").unwrap();
        assert!(unresolved.status == "False" && unresolved.message.contains(told), "{unresolved:?}");
        assert!(!unresolved.message.contains("hush"));
        let plane = Plane::start(translation.snapshot);
        assert!(plane.exchange(request("/x")).await.starts_with("HTTP/1.1 500 "), "{told}");
    }
}

#[tokio::test]
async fn skipping_verification_is_loud() {
    let (address, _arrivals) = played().await;
    let translation = translated(address, "Auto", json!({"insecureSkipVerify": true}), |_| {});
    let conditions = translation.statuses.upstreams.get(&Key::new("shop", "backend")).unwrap();
    let programmed = conditions.iter().find(|condition| condition.type_ == "Programmed").unwrap();
    assert_eq!((&*programmed.status, &*programmed.reason), ("True", "Insecure"));
    assert!(programmed.message.contains("INSECURE"), "{programmed:?}");
}

#[tokio::test]
async fn streams_and_websockets_pass() {
    let trusted = Authority::new();
    let (plain, mut arrivals) = played().await;
    let config = trusted.sign("llm.internal").server(&["http/1.1"]);
    let endpoint = Secured::start(config, plain, plain).await;
    let tls = json!({"serverName": "llm.internal", "caConfigMapName": "ca"});
    let plane = Plane::start(snapshot_of(endpoint.address, "Auto", tls, &trusted));
    let (mut client, mut stream) = event_stream(&plane, &mut arrivals).await;
    tell(&mut stream, &mut client).await;

    let mut client = plane.connect().await;
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    client.send(format!("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{key}\r\n")).await;
    let (mut backend, _) = arrivals.request().await;
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
    backend.send(format!("{switch}{accept}\r\n")).await;
    client.head().await;
    for _ in 0..3 {
        backend.send(b"\x81\x02hi").await;
        assert!(client.until("hi").await.ends_with("hi"));
        client.send(b"\x81\x82\0\0\0\0yo").await;
        assert!(backend.until("yo").await.ends_with("yo"));
    }
}

#[tokio::test]
async fn health_checks_speak_tls_too() {
    let (trusted, other) = (Authority::new(), Authority::new());
    for (by, healthy) in [(&trusted, true), (&other, false)] {
        let endpoint = Secured::answering(by.sign("llm.internal").server(&["h2", "http/1.1"])).await;
        let tls = json!({"serverName": "llm.internal", "caConfigMapName": "ca"});
        let resources = |resources: &mut Resources| {
            authority(&trusted)(resources);
            let mut upstream = resources.upstreams.get(&Key::new("shop", "backend")).unwrap().as_ref().clone();
            let check =
                json!({"active": {"http": {}, "interval": "100ms", "healthyThreshold": 1, "unhealthyThreshold": 1}});
            upstream.spec.health_check = serde_json::from_value(check).unwrap();
            resources.upstreams.insert(Key::new("shop", "backend"), Arc::new(upstream));
        };
        let plane = Plane::start(translated(endpoint.address, "Auto", tls, resources).snapshot);
        let outcome = if healthy { "passed" } else { "unreachable" };
        let counted = || plane.metric("floodway_health_checks_total", outcome) >= 2.0;
        eventually(outcome, counted).await;
    }
}
