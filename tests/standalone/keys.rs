//! Keys that are fetched: until they are there nobody passes, and what was fetched outlives whoever had it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use crate::server::{Server, eventually, floodway};

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A set with a key, and a token of joe's that it has signed.
fn issued() -> (String, String) {
    let (key, token) = signed("a");
    (set(&[&key]), token)
}

pub(crate) fn set(keys: &[&str]) -> String {
    format!(r#"{{"keys": [{}]}}"#, keys.join(", "))
}

/// A key under a name, and a token of joe's that it has signed.
pub(crate) fn signed(kid: &str) -> (String, String) {
    let (random, scheme) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(scheme, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(scheme, pkcs8.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    let key = format!(r#"{{"kty": "EC", "crv": "P-256", "kid": "{kid}", "x": "{x}", "y": "{y}"}}"#);
    let header = encode(format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#));
    let message = format!("{header}.{}", encode(r#"{"iss":"joe","exp":99999999999}"#));
    let signature = pair.sign(&random, message.as_bytes()).unwrap();
    (key, format!("{message}.{}", encode(signature)))
}

#[test]
fn nobody_passes_until_keys_were_fetched_and_they_outlive_their_server() {
    let answer = Arc::new(Mutex::new(Some("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_owned())));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let told = Arc::clone(&answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Some(answer) = told.lock().unwrap().clone() else { return };
            let (mut stream, mut head) = (stream.unwrap(), Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    break;
                }
                head.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let objects = format!(
        r#"
apiVersion: floodway.dev/v1alpha1
kind: ProxyPolicy
metadata: {{name: signed-in}}
spec:
  jwt:
    issuers: [{{issuer: joe, jwks: {{url: "http://{address}/keys", insecureHttp: true}}}}]
    from: [{{query: t}}]
---
apiVersion: floodway.dev/v1alpha1
kind: ProxyRoute
metadata: {{name: r}}
spec: {{rules: [{{policies: [{{name: signed-in}}], respond: {{status: 200, body: ok}}}}]}}
"#
    );
    std::fs::write(dir.path().join("objects.yaml"), objects).unwrap();
    let output = floodway(&["check", dir.path().to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    let server = Server::start(dir.path(), &[]);
    let (keys, token) = issued();
    let (path, forged) = (format!("/?t={token}"), format!("/?t={token}AAAA"));
    eventually("nobody passes", || {
        let (status, body) = server.get(&path);
        status == 503 && body.contains("keys_unavailable")
    });
    eventually("it is told why", || server.said().contains("status 503 instead of 200"));
    assert!(server.said().contains("INSECURE"), "{}", server.said());
    assert_eq!(server.get("/").0, 401, "who shows no token needs no keys");
    *answer.lock().unwrap() = Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len()));
    server.waits_for(&path, 200, "ok");
    assert_eq!(server.get(&forged).0, 401);
    // Whoever is asked next gets no answer.
    answer.lock().unwrap().take();
    assert_eq!(server.get(&path), (200, "ok".to_owned()));
    let (_, metrics) = server.admin("/metrics");
    let source = format!("source=\"http://{address}/keys insecure\"");
    assert!(metrics.contains(&format!("floodway_jwks_fetches_total{{outcome=\"fetched\",{source}}} 1")), "{metrics}");
    let (_, dump) = server.admin("/config_dump");
    assert!(dump.contains("/keys insecure") && !dump.contains(&token), "{dump}");
}
