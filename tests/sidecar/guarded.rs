//! What is demanded of those who come to the app: policies, TLS, certificates, a breaker. Nothing gets past them, whatever is missing.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Backend, Pod, eventually, get, said};

const SECRET: &[u8] = b"for tests only: a key of enough length";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A policy for holders of tokens, and the Secret with the key that signs them.
fn signed_in() -> String {
    let keys = json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": encode(SECRET)}]});
    format!(
        "apiVersion: floodway.dev/v1alpha1\nkind: ProxyPolicy\nmetadata: {{name: signed-in, namespace: shop}}\n\
         spec: {{jwt: {{issuers: [{{issuer: joe, jwks: {{secretName: keys}}}}]}}}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: keys, namespace: shop, labels: {{floodway.dev/use: \"true\"}}}}\n\
         stringData: {{jwks.json: '{keys}'}}\n"
    )
}

fn token() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let message = format!(
        "{}.{}",
        encode(r#"{"alg":"HS256","kid":"k"}"#),
        encode(json!({"iss": "joe", "exp": now + 3600}).to_string())
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    format!("{message}.{}", encode(ring::hmac::sign(&key, message.as_bytes())))
}

async fn ask(pod: &Pod, fields: &str) -> (u16, String) {
    get(TcpStream::connect(pod.inbound()).await.unwrap(), "/", "app.example", fields).await
}

#[tokio::test]
async fn only_holders_of_tokens_reach_the_app() {
    let app = Backend::start("app").await;
    let flags = [format!("--app-port={}", app.port()), "--policy=signed-in".to_owned()];
    let pod = Pod::start(&signed_in(), &flags.each_ref().map(String::as_str)).await;
    assert_eq!(ask(&pod, "").await.0, 401);
    assert_eq!(ask(&pod, "Authorization: Bearer x.y.z\r\n").await.0, 401);
    assert_eq!(app.requests.load(Ordering::Relaxed), 0);
    let (status, body) = ask(&pod, &format!("Authorization: Bearer {}\r\n", token())).await;
    assert!(status == 200 && body.starts_with("app\n"), "{status} {body}");
}

#[tokio::test]
async fn a_policy_that_is_missing_or_broken_lets_nobody_pass() {
    let app = Backend::start("app").await;
    let flags = [format!("--app-port={}", app.port()), "--policy=signed-in".to_owned()];
    let pod = Pod::start("", &flags.each_ref().map(String::as_str)).await;
    let answer = async || {
        let request = "GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n";
        said(TcpStream::connect(pod.inbound()).await.unwrap(), request).await
    };
    let first = answer().await;
    assert!(first.starts_with("HTTP/1.1 503") && first.contains("invalid_policy"), "{first}");
    // Without its Secret it is no better.
    let without = signed_in().split("---").next().unwrap().to_owned();
    pod.write(&without);
    eventually("the policy is read", async || {
        let (_, dump) = pod.admin("/config_dump").await;
        dump.contains("keys")
    })
    .await;
    let second = answer().await;
    assert!(second.starts_with("HTTP/1.1 503") && second.contains("invalid_policy"), "{second}");
    assert_eq!(app.requests.load(Ordering::Relaxed), 0);
    pod.write(&signed_in());
    eventually("the whole policy", async || ask(&pod, "").await.0 == 401).await;
    // And it is missed again as soon as it goes.
    pod.write("");
    eventually("no policy", async || ask(&pod, &format!("Authorization: Bearer {}\r\n", token())).await.0 == 503).await;
}

#[tokio::test]
async fn what_is_no_request_does_not_pass_a_policy() {
    let app = crate::support::echo("").await;
    let policy = "apiVersion: floodway.dev/v1alpha1\nkind: ProxyPolicy\nmetadata: {name: open, namespace: shop}\n\
                  spec: {requestLimits: {bodyBytes: 1000}}\n";
    let flags = [format!("--app-port={}", app.port()), "--policy=open".to_owned()];
    let pod = Pod::start(policy, &flags.each_ref().map(String::as_str)).await;
    for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], b"*1\r\n$4\r\nPING\r\n", b"get / HTTP/1.1\r\n\r\n"] {
        assert_eq!(said(TcpStream::connect(pod.inbound()).await.unwrap(), bytes).await, "");
    }
    pod.metric_becomes("floodway_connections_refused_total", &["reason=\"no_request\"", "inbound"], 3.0).await;
    // Policies of the upstream that guards the app are asked, too.
    let attached = "apiVersion: floodway.dev/v1alpha1\nkind: ProxyUpstream\nmetadata: {name: app, namespace: shop}\n\
                    spec: {targetRefs: [{kind: Service, name: app}]}\n---\n\
                    apiVersion: floodway.dev/v1alpha1\nkind: ProxyPolicy\nmetadata: {name: closed, namespace: shop}\n\
                    spec: {targetRefs: [{kind: ProxyUpstream, name: app}], ipAccess: {deny: [127.0.0.0/8]}}\n";
    let flags = [format!("--app-port={}", app.port()), "--upstream=app".to_owned()];
    let pod = Pod::start(attached, &flags.each_ref().map(String::as_str)).await;
    assert_eq!(ask(&pod, "").await.0, 403);
    assert_eq!(said(TcpStream::connect(pod.inbound()).await.unwrap(), "*1\r\n").await, "");
}

#[tokio::test]
async fn no_more_requests_reach_the_app_than_a_limit_lets_pass() {
    let app = Backend::start("app").await;
    let policy = "apiVersion: floodway.dev/v1alpha1\nkind: ProxyPolicy\nmetadata: {name: fair, namespace: shop}\n\
                  spec: {rateLimit: [{name: per-user, key: [{header: x-user}], requests: 2, per: 1h}]}\n";
    let flags = [format!("--app-port={}", app.port()), "--policy=fair".to_owned()];
    let pod = Pod::start(policy, &flags.each_ref().map(String::as_str)).await;
    for (user, status) in [("ann", 200), ("ann", 200), ("ann", 429), ("bob", 200), ("ann", 429)] {
        assert_eq!(ask(&pod, &format!("X-User: {user}\r\n")).await.0, status, "{user}");
    }
    assert_eq!(app.requests.load(Ordering::Relaxed), 3);
    pod.metric_becomes("floodway_rate_limited_total", &["inbound", "per-user"], 2.0).await;
}

#[tokio::test]
async fn an_upstream_that_is_missing_lets_nobody_pass() {
    let app = Backend::start("app").await;
    let flags = [format!("--app-port={}", app.port()), "--upstream=app".to_owned()];
    let pod = Pod::start("", &flags.each_ref().map(String::as_str)).await;
    assert_eq!(ask(&pod, "").await.0, 500);
    assert_eq!(said(TcpStream::connect(pod.inbound()).await.unwrap(), "*1\r\n").await, "");
    assert_eq!(app.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_breaker_stands_before_the_app() {
    let app = Backend::start("app").await;
    let upstream = "apiVersion: floodway.dev/v1alpha1\nkind: ProxyUpstream\nmetadata: {name: app, namespace: shop}\n\
                    spec:\n  targetRefs: [{kind: Service, name: app}]\n\
                    \x20 circuitBreaker: {failureRatePercent: 50, minimumCalls: 4, window: {calls: 4}, waitInOpen: 1m}\n";
    let flags = [format!("--app-port={}", app.port()), "--upstream=app".to_owned()];
    let pod = Pod::start(upstream, &flags.each_ref().map(String::as_str)).await;
    eventually("it opens", async || {
        let client = TcpStream::connect(pod.inbound()).await.unwrap();
        let (_, body) = get(client, "/busy", "app", "").await;
        !body.starts_with("app\n")
    })
    .await;
    let before = app.requests.load(Ordering::Relaxed);
    assert_eq!(ask(&pod, "").await.0, 503);
    assert_eq!(app.requests.load(Ordering::Relaxed), before);
    assert!(pod.metric("floodway_breaker_not_permitted_total", &["listener=\"inbound\""]).await >= 1.0);
}

/// An authority, and a certificate with its key that it has signed.
pub(crate) struct Issued {
    pub(crate) authority: String,
    certificate: String,
    key: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) secret: Vec<u8>,
}

pub(crate) fn issued(name: &str) -> Issued {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let pair = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&pair, &authority).unwrap();
    Issued {
        authority: authority.pem(),
        certificate: own.pem(),
        key: pair.serialize_pem(),
        chain: vec![own.der().clone()],
        secret: pair.serialize_der(),
    }
}

fn secret(name: &str, kind: &str, entries: &[(&str, &str)]) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Secret\ntype: {kind}\n\
         metadata: {{name: {name}, namespace: shop, labels: {{floodway.dev/use: \"true\"}}}}\nstringData:\n"
    );
    for (entry, value) in entries {
        writeln!(text, "  {entry}: |").unwrap();
        value.lines().for_each(|line| writeln!(text, "    {line}").unwrap());
    }
    text
}

/// What a client speaks TLS with that trusts `server` and shows what it has of `client`.
pub(crate) fn trusting(server: &Issued, client: Option<&Issued>) -> TlsConnector {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some(one) => {
            let key = PrivatePkcs8KeyDer::from(one.secret.clone()).into();
            config.with_client_auth_cert(one.chain.clone(), key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

/// The answer over TLS to a client that trusts `server` and shows what it has of `client`; an error if there is none.
async fn over_tls(pod: &Pod, server: &Issued, client: Option<&Issued>) -> std::io::Result<String> {
    over_tls_for("app.example", pod, server, client).await
}

/// The same to a request for a host, which may be another one than the certificate is for.
async fn over_tls_for(host: &str, pod: &Pod, server: &Issued, client: Option<&Issued>) -> std::io::Result<String> {
    let stream = TcpStream::connect(pod.inbound()).await?;
    let name = ServerName::try_from("app.example").unwrap();
    let mut stream = trusting(server, client).connect(name, stream).await?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn tls_ends_before_the_app_and_nothing_passes_without() {
    let app = Backend::start("app").await;
    let server = issued("app.example");
    let flags = [format!("--app-port={}", app.port()), "--tls-secret=app-tls".to_owned()];
    let pod = Pod::start("", &flags.each_ref().map(String::as_str)).await;
    // Without the Secret handshakes are refused.
    assert!(over_tls(&pod, &server, None).await.is_err());
    let objects = secret("app-tls", "kubernetes.io/tls", &[("tls.crt", &server.certificate), ("tls.key", &server.key)]);
    pod.write(&objects);
    eventually("the certificate", async || over_tls(&pod, &server, None).await.is_ok()).await;
    let answer = over_tls(&pod, &server, None).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("x-forwarded-proto: https"),
        "{answer}"
    );
    let plain = said(TcpStream::connect(pod.inbound()).await.unwrap(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(plain, "");
    pod.metric_becomes("floodway_connections_refused_total", &["reason=\"tls_required\""], 1.0).await;
}

#[tokio::test]
async fn only_clients_with_a_certificate_reach_the_app() {
    let app = Backend::start("app").await;
    let (server, friend, stranger) = (issued("app.example"), issued("cart.example"), issued("cart.example"));
    let objects = secret("app-tls", "kubernetes.io/tls", &[("tls.crt", &server.certificate), ("tls.key", &server.key)]);
    let friends = secret("friends", "Opaque", &[("ca.crt", &friend.authority)]);
    let flags = [
        format!("--app-port={}", app.port()),
        "--tls-secret=app-tls".to_owned(),
        "--client-ca-secret=friends".to_owned(),
    ];
    let flags = flags.each_ref().map(String::as_str);
    let pod = Pod::start(&format!("{objects}{friends}"), &flags).await;
    assert!(over_tls(&pod, &server, None).await.is_err());
    assert!(over_tls(&pod, &server, Some(&stranger)).await.is_err());
    let answer = over_tls(&pod, &server, Some(&friend)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Other sidecars name the app by the certificate in the handshake, and by its Service in the request.
    let answer = over_tls_for("app", &pod, &server, Some(&friend)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Nobody is let in once nobody can be judged.
    pod.write(&objects);
    eventually("no authority", async || over_tls(&pod, &server, Some(&friend)).await.is_err()).await;
    // What goes out is nobody's to show a certificate for.
    let client = TcpStream::connect(pod.outbound()).await.unwrap();
    assert_eq!(get(client, "/", "nobody", "").await.0, 404);
}
