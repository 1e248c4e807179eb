//! Certificates from Secrets of the API server: one that is renewed is served, one that is broken leaves the last good one, and the
//! owner of the route is told.

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::control_plane::{ADMIN, free_port, shared};
use crate::gateway::{Gateway, Options};
use crate::objects::{apply, conditions, eventually, grant_lease, namespace};

/// A Secret whose certificate expires at the beginning of a year, and the key in it.
fn secret(year: i32) -> Value {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["www.example.com".to_owned()]).unwrap();
    params.not_after = date_time_ymd(year, 1, 1);
    let certificate = params.self_signed(&pair).unwrap().pem();
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "www"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate, "tls.key": pair.serialize_pem()},
    })
}

/// A route for that host with a `tls`.
fn route(tls: Value) -> Value {
    json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": "www"},
        "spec": {"hosts": ["www.example.com"], "tls": tls, "rules": [{"respond": {"status": 200, "body": "ok"}}]},
    })
}

#[tokio::test]
async fn a_renewed_secret_is_served_and_a_broken_one_is_told_of() {
    let plane = shared().await;
    let admin = plane.client(ADMIN).await;
    let namespace = namespace(&admin).await;
    grant_lease(&admin, &namespace).await;
    apply(&admin, Some(&namespace), &route(json!({"secretName": "www", "hsts": {"maxAge": "8760h"}}))).await;
    let options = Options { namespaces: &[&namespace], pod_namespace: &namespace, ..Options::default() };
    let gateway = Gateway::ready(plane, options).await;
    let told = async |part: &str| {
        eventually(&format!("a condition with {part:?}"), async || {
            let conditions = conditions(&admin, &namespace, "www").await?;
            conditions.iter().any(|condition| condition.contains(part)).then_some(())
        })
        .await;
    };
    let label = format!("\"{namespace}/www\"");
    let expires = async |at: f64| {
        eventually(&format!("a certificate until {at}"), async || {
            let known = gateway.metric("floodway_certificate_expiry_seconds", &[&label]).await;
            (known == Some(at)).then_some(())
        })
        .await;
    };
    told("ResolvedRefs=False").await;
    apply(&admin, Some(&namespace), &secret(2100)).await;
    expires(4_102_444_800.0).await;
    told("ResolvedRefs=True").await;

    let mut broken = secret(2090);
    broken["stringData"]["tls.key"] = KeyPair::generate().unwrap().serialize_pem().into();
    apply(&admin, Some(&namespace), &broken).await;
    told("ResolvedRefs=False").await;
    expires(4_102_444_800.0).await;
    apply(&admin, Some(&namespace), &secret(2101)).await;
    expires(4_133_980_800.0).await;
    told("ResolvedRefs=True").await;
    let dump = gateway.config_dump().await;
    assert_eq!(dump["tls"]["www.example.com"]["certificates"].as_array().map(Vec::len), Some(1), "{dump}");
}

/// A connection of a client that trusts the certificate of this Secret and no other.
async fn trusting(secret: &Value, address: SocketAddr) -> Option<TlsStream<TcpStream>> {
    let certificate = CertificateDer::from_pem_slice(secret["stringData"]["tls.crt"].as_str()?.as_bytes()).ok()?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).ok()?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("www.example.com").ok()?;
    TlsConnector::from(config).connect(name, TcpStream::connect(address).await.ok()?).await.ok()
}

async fn until(client: &mut TlsStream<TcpStream>, end: &[u8]) {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        all.push(client.read_u8().await.unwrap());
    }
}

/// A stream that was opened under one version of the Secret goes on under the next, which new clients meet.
#[tokio::test]
async fn a_secret_rotates_under_an_open_stream() {
    let plane = shared().await;
    let admin = plane.client(ADMIN).await;
    let namespace = namespace(&admin).await;
    grant_lease(&admin, &namespace).await;
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let route = json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": "www"},
        "spec": {
            "hosts": ["www.example.com"], "tls": {"secretName": "www"},
            "rules": [{"backends": [{"upstream": {"name": "events"}}]}],
        },
    });
    let upstream = json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyUpstream", "metadata": {"name": "events"},
        "spec": {"endpoints": [{"address": endpoint.local_addr().unwrap().to_string()}]},
    });
    let (old, new) = (secret(2100), secret(2101));
    for object in [&route, &upstream, &old] {
        apply(&admin, Some(&namespace), object).await;
    }
    let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let https = format!("--https={secure}");
    let options =
        Options { namespaces: &[&namespace], pod_namespace: &namespace, args: &[&https], ..Options::default() };
    let _gateway = Gateway::ready(plane, options).await;
    let mut client = eventually("the first certificate", async || trusting(&old, secure).await).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n").await.unwrap();
    let (mut stream, _) = endpoint.accept().await.unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    until(&mut client, b"\r\n\r\n").await;

    apply(&admin, Some(&namespace), &new).await;
    eventually("the second certificate", async || trusting(&new, secure).await.map(drop)).await;
    assert!(trusting(&old, secure).await.is_none(), "nobody meets the first one any more");
    for _ in 0..3 {
        stream.write_all(b"9\r\ndata: x\n\n\r\n").await.unwrap();
        until(&mut client, b"data: x\n\n\r\n").await;
    }
}

/// Also if it was so when the gateway came, before it led.
#[tokio::test]
async fn an_event_tells_of_a_certificate_that_has_expired() {
    let plane = shared().await;
    let admin = plane.client(ADMIN).await;
    let namespace = namespace(&admin).await;
    grant_lease(&admin, &namespace).await;
    for object in [&route(json!({"secretName": "www"})), &secret(2001)] {
        apply(&admin, Some(&namespace), object).await;
    }
    let options = Options { namespaces: &[&namespace], pod_namespace: &namespace, ..Options::default() };
    let _gateway = Gateway::ready(plane, options).await;
    let api: Api<Event> = Api::namespaced(admin.clone(), &namespace);
    let event = eventually("an event", async || {
        let events = api.list(&ListParams::default()).await.ok()?.items;
        events.into_iter().find(|event| event.reason.as_deref() == Some("CertificateExpired"))
    });
    let event = event.await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let about = event.regarding.unwrap();
    assert_eq!((about.kind.as_deref(), about.name.as_deref()), (Some("ProxyRoute"), Some("www")));
    assert!(event.note.unwrap().contains(&format!("Secret {namespace}/www, expired at 2001-01-01")));
}
