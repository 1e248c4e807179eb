//! What is planted in Secrets that policies use, or cannot use, and what clients show, is in no condition, no event, no log and on no page of
//! the admin port.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use rcgen::{CertificateParams, KeyPair};
use ring::hmac;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::control_plane::{ADMIN, shared};
use crate::gateway::{Gateway, Options};
use crate::objects::{api_of, apply, eventually, grant_lease, namespace};

/// In everything that is planted, and in nothing else; and what base64 makes of it wherever it stands.
const PLANTED: [&str; 4] = ["c4n4ry", "YzRuNHJ5", "M0bjRye", "jNG40cn"];

fn secret(name: &str, entries: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": {"floodway.dev/use": "true"}},
        "stringData": entries,
    })
}

fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyPolicy", "metadata": {"name": name}, "spec": spec})
}

/// Status and answer of a request with this line.
async fn ask(gateway: &Gateway, path: &str, line: &str) -> (String, String) {
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: planted.test\r\nConnection: close\r\n{line}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (answer.split(' ').nth(1).unwrap_or_default().to_owned(), answer)
}

#[tokio::test]
async fn secrets_of_policies_are_in_no_condition_event_log_or_page() {
    let plane = shared().await;
    let admin = plane.client(ADMIN).await;
    let namespace = namespace(&admin).await;
    grant_lease(&admin, &namespace).await;
    let canary = PLANTED[0];
    let key = canary.repeat(6);
    let message = [json!({"alg": "HS256"}), json!({"iss": "test", "sub": canary, "exp": 4_102_444_800_u64})]
        .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()))
        .join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), message.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref());
    let token = format!("{message}.{signature}");
    let hash = bcrypt::hash(canary, 4).unwrap();
    let pair = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["planted.test".to_owned()]).unwrap().self_signed(&pair).unwrap().pem();
    let keys = |key: &str| format!("{{\"keys\": [{{\"kty\": \"oct\", \"alg\": \"HS256\", \"k\": \"{key}\"}}]}}");
    let tls = |name: &str, key: String| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate, "tls.key": key},
        })
    };
    let of_keys = |name: &str| json!({"jwt": {"issuers": [{"issuer": "test", "jwks": {"secretName": name}}]}});
    let refused = ["keys-broken", "users-broken", "clients-broken"];
    let rule = |name: &&str| {
        json!({
            "matches": [{"path": {"value": format!("/{name}")}}], "policies": [{"name": name}],
            "respond": {"status": 200, "body": "ok"},
        })
    };
    let rules: Vec<Value> = ["keys", "users", "clients"].iter().chain(&refused).map(rule).collect();
    let route = |name: &str, host: &str, rules: &[Value]| {
        json!({
            "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute", "metadata": {"name": name},
            "spec": {"hosts": [host], "tls": {"secretName": name}, "rules": rules},
        })
    };
    let objects = [
        secret("keys", json!({"jwks.json": keys(&BASE64_URL_SAFE_NO_PAD.encode(&key))})),
        secret("users", json!({"htpasswd": format!("ada:{hash}")})),
        secret("clients", json!({"acme": format!("{canary}-of-a-client-of-ours")})),
        secret("keys-broken", json!({"jwks.json": keys(&format!("{canary}!"))})),
        secret("users-broken", json!({"htpasswd": format!("ada:{{SHA}}{canary}")})),
        secret("clients-broken", json!({"acme": canary})),
        tls("www", pair.serialize_pem()),
        tls("www-broken", format!("-----BEGIN PRIVATE KEY-----\n{canary}\n-----END PRIVATE KEY-----\n")),
        policy("keys", of_keys("keys")),
        policy("users", json!({"basicAuth": {"secretName": "users"}})),
        policy("clients", json!({"apiKey": {"secretName": "clients"}})),
        policy("keys-broken", of_keys("keys-broken")),
        policy("users-broken", json!({"basicAuth": {"secretName": "users-broken"}})),
        policy("clients-broken", json!({"apiKey": {"secretName": "clients-broken"}})),
        route("www", "planted.test", &rules),
        route("www-broken", "broken.test", &[json!({"respond": {"status": 200}})]),
    ];
    for object in &objects {
        apply(&admin, Some(&namespace), object).await;
    }
    let options =
        Options { namespaces: &[&namespace], pod_namespace: &namespace, args: &["--log=trace"], ..Options::default() };
    let gateway = Gateway::ready(plane, options).await;

    let statuses = eventually("a status of everything", async || {
        let mut statuses = Vec::new();
        for object in objects.iter().filter(|object| object["kind"] != "Secret") {
            let name = object["metadata"]["name"].as_str().unwrap();
            let found = api_of(&admin, Some(&namespace), object).get(name).await.ok()?;
            let status = found.data.get("status")?.clone();
            (status["conditions"].as_array()?.len() == 3).then_some(())?;
            let unresolved =
                status.to_string().contains("\"ResolvedRefs\"") && status.to_string().contains("\"False\"");
            (unresolved || !name.ends_with("-broken")).then_some(())?;
            statuses.push(status);
        }
        Some(serde_json::to_string(&statuses).unwrap())
    })
    .await;

    let basic = |text: &str| format!("Authorization: Basic {}", BASE64_STANDARD.encode(text));
    for (path, line, status) in [
        ("/keys", format!("Authorization: Bearer {token}"), "200"),
        ("/keys", format!("Authorization: Bearer {token}x"), "401"),
        ("/keys", format!("Authorization: Bearer {canary}"), "401"),
        ("/users", basic(&format!("ada:{canary}")), "200"),
        ("/users", basic(&format!("{canary}:{canary}")), "401"),
        ("/clients", format!("X-Api-Key: {canary}-of-a-client-of-ours"), "200"),
        ("/clients", format!("X-Api-Key: {canary}-of-nobody"), "401"),
        ("/keys-broken", format!("Authorization: Bearer {token}"), "503"),
        ("/users-broken", basic(&format!("ada:{canary}")), "503"),
        ("/clients-broken", format!("X-Api-Key: {canary}"), "503"),
    ] {
        let (got, answer) = ask(&gateway, path, &line).await;
        assert_eq!(got, status, "{path} {line}\n{answer}");
        assert!(!answer.contains(canary), "{answer}");
    }
    let events = Api::<Event>::namespaced(admin.clone(), &namespace).list(&ListParams::default()).await.unwrap();
    let mut told = vec![("a status", statuses), ("an event", serde_json::to_string(&events.items).unwrap())];
    for page in ["/config_dump", "/metrics", "/upstreams", "/readyz", "/log"] {
        let (status, text) = gateway.admin(page).await.unwrap();
        assert!(status.is_success(), "{page}");
        told.push((page, text));
    }
    // What it writes about the last request may still be on its way.
    gateway.terminate().await;
    told.push(("the log", gateway.log()));
    let pem = pair.serialize_pem();
    let lines = pem.lines().filter(|line| !line.starts_with('-'));
    let secrets: Vec<&str> = PLANTED.into_iter().chain([&*signature, &*hash]).chain(lines).collect();
    for (what, text) in &told {
        for secret in &secrets {
            assert!(!text.contains(secret), "{what} tells {secret}:\n{text}");
        }
    }
}
