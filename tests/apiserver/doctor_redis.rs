//! `floodway doctor` and the Redis of rate limits: a real one, with a password and with TLS.

use std::path::Path;

use crate::control_plane::ADMIN;
use crate::doctor::{Said, signed, ward};
use crate::redis_server::Redis;

/// What is said of the Redis of these settings.
async fn said(redis: &str) -> Said {
    ward(&format!("rateLimits: {{redis: {{{redis}, timeout: 5s}}}}\n")).await.ask(ADMIN, &[])
}

#[tokio::test]
async fn one_that_counts_is_well_and_a_wrong_password_is_told() {
    let Some(redis) = Redis::start(&["--requirepass", "open-sesame"]) else { return };
    let place = redis.address;
    let file = tempfile::NamedTempFile::new().unwrap();
    let with = async |password: &str| {
        std::fs::write(file.path(), password).unwrap();
        said(&format!("address: \"{place}\", passwordFile: {}", file.path().display())).await
    };
    with("open-sesame\n").await.has("rateLimits", "OK", &format!("{place}: it answers, and counts"));
    let wrong = with("hush-hush").await;
    wrong.has("rateLimits", "WARN", "limits cannot be counted there: it does not take the user and the password");
    assert!(!wrong.text.contains("hush-hush"), "{}", wrong.text);
    said(&format!("address: \"{place}\"")).await.has(
        "rateLimits",
        "WARN",
        "it does not take the user and the password",
    );
    let missing = said(&format!("address: \"{place}\", passwordFile: /nowhere/password")).await;
    missing.has("rateLimits", "WARN", "the file of rateLimits.redis.passwordFile cannot be used");
}

#[tokio::test]
async fn tls_is_spoken_and_what_is_wrong_with_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (own, other) = (signed(&["redis.test"], |_| {}), signed(&["redis.test"], |_| {}));
    let (certificate, key) = (write("tls.crt", &own.certificate), write("tls.key", &own.key));
    let Some((_redis, place)) = Redis::start_with_tls(&certificate, &key, &[]) else { return };
    let (ca, others) = (write("ca.crt", &own.ca), write("other.crt", &other.ca));
    let asked = async |ca: &str, name: &str| {
        assert!(Path::new(ca).exists());
        said(&format!("address: \"{place}\", tls: {{caFile: {ca}, serverName: {name}}}")).await
    };
    asked(&ca, "redis.test").await.has("rateLimits", "OK", "it answers, and counts");
    for (ca, name) in [(&ca, "elsewhere.test"), (&others, "redis.test")] {
        asked(ca, name).await.has("rateLimits", "WARN", "limits cannot be counted there: there is no TLS with it: ");
    }
    said(&format!("address: \"{place}\"")).await.has("rateLimits", "WARN", "limits cannot be counted there: ");
}
