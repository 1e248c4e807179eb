//! Certificates from Secrets of the API server: one that is renewed is served, one that is broken leaves the last good one, and the
//! owner of the route is told.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::control_plane::{ADMIN, shared};
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

#[tokio::test]
async fn a_renewed_secret_is_served_and_a_broken_one_is_told_of() {
    let plane = shared().await;
    let admin = plane.client(ADMIN).await;
    let namespace = namespace(&admin).await;
    grant_lease(&admin, &namespace).await;
    let route = json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": "www"},
        "spec": {
            "hosts": ["www.example.com"], "tls": {"secretName": "www", "hsts": {"maxAge": "8760h"}},
            "rules": [{"respond": {"status": 200, "body": "ok"}}],
        },
    });
    apply(&admin, Some(&namespace), &route).await;
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
