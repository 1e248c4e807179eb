//! What is demanded of those who come to the app: policies, TLS, certificates, a breaker. Nothing gets past them, whatever is missing.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
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
struct Issued {
    authority: String,
    certificate: String,
    key: String,
    chain: Vec<CertificateDer<'static>>,
    secret: Vec<u8>,
}

fn issued(name: &str) -> Issued {
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

/// The answer over TLS to a client that trusts `server` and shows what it has of `client`; an error if there is none.
async fn over_tls(pod: &Pod, server: &Issued, client: Option<&Issued>) -> std::io::Result<String> {
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
    let stream = TcpStream::connect(pod.inbound()).await?;
    let name = ServerName::try_from("app.example").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n").await?;
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
    // Nobody is let in once nobody can be judged.
    pod.write(&objects);
    eventually("no authority", async || over_tls(&pod, &server, Some(&friend)).await.is_err()).await;
    // What goes out is nobody's to show a certificate for.
    let client = TcpStream::connect(pod.outbound()).await.unwrap();
    assert_eq!(get(client, "/", "nobody", "").await.0, 404);
}

/// An app that speaks HTTP/2 alone, and answers calls of gRPC with their own first bytes.
async fn grpc_app() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                    let mut stream = respond.send_response(head, false).unwrap();
                    stream.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x02hi"), false).unwrap();
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    stream.send_trailers(trailers).unwrap();
                }
            });
        }
    });
    address
}

/// The message and the status of a call.
async fn call(stream: TcpStream, authority: &str) -> (Vec<u8>, String) {
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{authority}/shop.Cart/Get"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
    let mut client = client.ready().await.unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    stream.send_data(bytes::Bytes::from_static(b"\0\0\0\0\0"), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut message = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        message.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    driving.abort();
    (message, trailers.get("grpc-status").map_or(String::new(), |value| value.to_str().unwrap().to_owned()))
}

#[tokio::test]
async fn grpc_reaches_an_app_of_which_nobody_said_what_it_speaks() {
    let app = grpc_app().await;
    let pod = Pod::start("", &[&format!("--app-port={}", app.port())]).await;
    let answer = call(TcpStream::connect(pod.inbound()).await.unwrap(), "app.example").await;
    assert_eq!(answer, (b"\0\0\0\0\x02hi".to_vec(), "0".to_owned()));
    assert_eq!(pod.metric("floodway_requests_total", &["protocol=\"HTTP/2\"", "inbound"]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_hangs_is_cut_off_after_the_grace() {
    let app = Backend::start("app").await;
    let pod = Pod::start("", &[&format!("--app-port={}", app.port()), "--grace=1s"]).await;
    let mut events = TcpStream::connect(pod.inbound()).await.unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    pod.metric_becomes("floodway_active_streams", &["sse", "inbound"], 1.0).await;
    let ended = tokio::task::spawn_blocking(move || pod.running.shutdown());
    let mut rest = String::new();
    let read = tokio::time::timeout(Duration::from_secs(20), events.read_to_string(&mut rest)).await;
    assert!(read.is_ok(), "the stream goes on");
    ended.await.unwrap().unwrap();
}
