#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::api::{Condition, ProxyRoute};
use crate::snapshot::{HostPattern, HostTls};
use crate::translate::{Context, Key, Resources, SecretData, Translation, Translator};

fn secret(names: &[&str]) -> Arc<SecretData> {
    let pair = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&pair).unwrap();
    let bytes = |text: String| text.into_bytes().into();
    Arc::new(SecretData::tls(bytes(certificate.pem()), bytes(pair.serialize_pem()), None).unwrap())
}

fn broken() -> Arc<SecretData> {
    Arc::new(SecretData::tls(b"hush".to_vec().into(), b"hush".to_vec().into(), None).unwrap())
}

fn key(name: &str) -> Key {
    Key::new("shop", name)
}

fn put(resources: &mut Resources, name: &str, day: u8, hosts: &[&str], tls: &Value) {
    let metadata =
        json!({"name": name, "namespace": "shop", "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z")});
    let spec = json!({"hosts": hosts, "tls": tls, "rules": [{"respond": {"status": 200}}]});
    let route: ProxyRoute = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    resources.routes.insert(key(name), Arc::new(route.into()));
}

fn translator() -> Translator {
    Translator::new(Context {
        roots: Default::default(),
        key_hosts: Default::default(),
        class_name: "floodway".to_owned(),
        zone: None,
        defaults: Default::default(),
        policy: Default::default(),
        shared_limits: true,
        default_certificate: Some(Key::new("infra", "any")),
        client_certificates: None,
        https_port: 8443,
    })
}

fn at(translation: &Translation, host: &str) -> Option<Arc<HostTls>> {
    translation.snapshot.tls.get(&HostPattern::parse(host).unwrap()).cloned()
}

/// By type: status, reason and message.
fn told<'a>(translation: &'a Translation, route: &str, type_: &str) -> (&'a str, &'a str, &'a str) {
    let conditions = &translation.statuses.routes[&key(route)];
    let Condition { status, reason, message, .. } = conditions.iter().find(|one| one.type_ == type_).unwrap();
    (status, reason, message)
}

#[test]
fn a_broken_secret_leaves_the_last_good_one_and_a_missing_one_refuses() {
    let (mut resources, mut translator) = (Resources::default(), translator());
    put(&mut resources, "www", 1, &["www.example.com"], &json!({"secretName": "www"}));
    let translation = translator.translate(&resources);
    assert_eq!(at(&translation, "www.example.com").unwrap().certificates, [], "refused, and not left to the default");
    let (status, reason, message) = told(&translation, "www", "ResolvedRefs");
    assert_eq!((status, reason), ("False", "RefNotFound"));
    assert!(message.starts_with("spec.tls.secretName: Secret shop/www is not there"), "{message}");
    assert_eq!(told(&translation, "www", "Programmed").0, "False");

    resources.put_secret(key("www"), secret(&["www.example.com"]));
    let first = translator.translate(&resources);
    let good = at(&first, "www.example.com").unwrap();
    assert_eq!((good.certificates.len(), good.route.as_deref()), (1, Some("shop/www")));
    assert_eq!(told(&first, "www", "Programmed"), ("True", "Programmed", "requests are served as the spec says"));
    assert_eq!(told(&first, "www", "ResolvedRefs").0, "True");

    // However often it is broken, and whoever translates it.
    for _ in 0..2 {
        resources.put_secret(key("www"), broken());
        let translation = translator.translate(&resources);
        assert!(Arc::ptr_eq(&at(&translation, "www.example.com").unwrap(), &good));
        let (status, reason, message) = told(&translation, "www", "ResolvedRefs");
        assert_eq!((status, reason), ("False", "InvalidCertificate"));
        assert!(message.contains("tls.crt: has no certificate in PEM") && message.contains("last good"), "{message}");
        assert!(!message.contains("hush"));
        assert_eq!(told(&translation, "www", "Programmed").0, "True");
        assert_eq!(self::translator().translate(&resources), translation);
    }
    resources.put_secret(key("www"), secret(&["www.example.com"]));
    let renewed = translator.translate(&resources);
    assert_ne!(at(&renewed, "www.example.com").unwrap(), good);
    assert!(resources.good_secrets.is_empty());

    // Who takes it away does not want it served.
    resources.put_secret(key("www"), broken());
    resources.remove_secret(&key("www"));
    let translation = translator.translate(&resources);
    assert_eq!(at(&translation, "www.example.com").unwrap().certificates, []);
    resources.routes.remove(&key("www"));
    assert_eq!(at(&translator.translate(&resources), "www.example.com"), None);
}

#[test]
fn the_older_of_two_routes_says_what_a_host_has() {
    let (mut resources, mut translator) = (Resources::default(), translator());
    for name in ["old", "new"] {
        resources.put_secret(key(name), secret(&["www.example.com", "*.example.com"]));
    }
    put(&mut resources, "new", 2, &["www.example.com", "*.example.com"], &json!({"secretName": "new"}));
    put(&mut resources, "same", 3, &["*.example.com"], &json!({"secretName": "new"}));
    let translation = translator.translate(&resources);
    assert_eq!(told(&translation, "same", "Programmed").1, "Conflicted", "by its matches, not by its certificate");
    assert!(!told(&translation, "same", "Programmed").2.contains("certificate"));

    put(&mut resources, "old", 1, &["www.example.com"], &json!({"secretName": "old", "minVersion": "1.3"}));
    let translation = translator.translate(&resources);
    assert_eq!(at(&translation, "www.example.com").unwrap().route.as_deref(), Some("shop/old"));
    assert_eq!(at(&translation, "*.example.com").unwrap().route.as_deref(), Some("shop/new"));
    let (_, reason, message) = told(&translation, "new", "Programmed");
    assert_eq!(reason, "PartiallyConflicted");
    assert!(
        message.contains(
            "; spec.tls: ProxyRoute shop/old, which comes first, says which certificate host www.example.com"
        ),
        "{message}"
    );
    resources.routes.remove(&key("old"));
    let translation = translator.translate(&resources);
    assert_eq!(at(&translation, "www.example.com").unwrap().route.as_deref(), Some("shop/new"));
    assert_eq!(told(&translation, "new", "Programmed").1, "Programmed");
}

#[test]
fn names_that_a_certificate_does_not_have_are_told_and_it_is_served() {
    let (mut resources, mut translator) = (Resources::default(), translator());
    resources.put_secret(key("www"), secret(&["www.example.com", "*.a.example.com"]));
    let hosts = ["www.example.com", "b.a.example.com", "*.a.example.com", "c.b.a.example.com", "*.example.com"];
    put(&mut resources, "www", 1, &hosts, &json!({"secretName": "www"}));
    let translation = translator.translate(&resources);
    assert_eq!(
        told(&translation, "www", "Programmed"),
        (
            "True",
            "CertificateMismatch",
            "spec.tls.secretName: the certificate of Secret shop/www is not for c.b.a.example.com, *.example.com, but for \
             www.example.com, *.a.example.com"
        )
    );
    assert_eq!(at(&translation, "*.example.com").unwrap().certificates.len(), 1);
}

#[test]
fn the_default_certificate_is_for_those_who_name_no_known_host() {
    let (mut resources, mut translator) = (Resources::default(), translator());
    let translation = translator.translate(&resources);
    let complaint = translation.complaint.unwrap();
    assert!(complaint.starts_with("listeners.tls.defaultCertificate: Secret infra/any is not there"), "{complaint}");
    let any = Key::new("infra", "any");
    resources.put_secret(any.clone(), secret(&["example.com"]));
    let translation = translator.translate(&resources);
    let good = translation.snapshot.tls.unnamed().cloned().unwrap();
    assert_eq!((good.certificates.len(), translation.complaint), (1, None));
    resources.put_secret(any.clone(), broken());
    let translation = translator.translate(&resources);
    assert_eq!(translation.snapshot.tls.unnamed(), Some(&good));
    assert!(translation.complaint.unwrap().contains("last good"));
    resources.remove_secret(&any);
    assert_eq!(translator.translate(&resources).snapshot.tls.unnamed(), None);
}

#[test]
fn what_is_wrong_with_the_fields_is_not_accepted() {
    for (hosts, tls, path) in [
        (&[][..], json!({"secretName": "www"}), "spec.tls.secretName: "),
        (&["a.example.com"], json!({"minVersion": "1.3"}), "spec.tls: "),
        (&["a.example.com"], json!({"hsts": {"maxAge": "x"}}), "spec.tls.hsts.maxAge: "),
        (&["a.example.com"], json!({"hsts": {"maxAge": "90000h"}}), "spec.tls.hsts.maxAge: "),
    ] {
        let (mut resources, mut translator) = (Resources::default(), translator());
        put(&mut resources, "www", 1, hosts, &tls);
        let translation = translator.translate(&resources);
        let (status, _, message) = told(&translation, "www", "Accepted");
        assert!(status == "False" && message.starts_with(path), "{message}");
        assert_eq!(translation.snapshot.tls.iter().count(), 0);
    }
}

/// Has TLS of hosts passed on to a Service that is there.
fn pass(resources: &mut Resources, name: &str, day: u8, hosts: &[&str]) {
    let service = json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 443}]}});
    let service = crate::translate::Service::from_object(&serde_json::from_value(service).unwrap()).unwrap();
    resources.services.insert(key("db"), Arc::new(service));
    let metadata =
        json!({"name": name, "namespace": "shop", "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z")});
    let rules = json!([{"backends": [{"service": {"name": "db", "port": 443}}]}]);
    let spec = json!({"hosts": hosts, "tls": {"passthrough": true}, "rules": rules});
    let route: ProxyRoute = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    resources.routes.insert(key(name), Arc::new(route.into()));
}

/// Whatever comes in between, and in whichever order: the oldest route of a host says whether its TLS is passed on, also where it says
/// nothing of TLS, and what is remembered never shows.
#[test]
fn the_oldest_route_says_whether_tls_is_passed_on() {
    const HOST: &str = "www.example.com";
    let (mut resources, mut remembering) = (Resources::default(), translator());
    resources.put_secret(key("www"), secret(&[HOST]));
    let mut translate = |resources: &Resources| {
        let translation = remembering.translate(resources);
        assert_eq!(translator().translate(resources), translation);
        let passed = at(&translation, HOST).map(|terms| {
            let route = terms.passed.as_ref().map(|route| route.name.object.to_string());
            (route, terms.certificates.len())
        });
        (translation, passed)
    };
    let passed_by = |name: &str| Some((Some(format!("shop/{name}")), 0));
    pass(&mut resources, "passes", 5, &[HOST]);
    let (translation, passed) = translate(&resources);
    assert_eq!(passed, passed_by("passes"));
    assert_eq!(told(&translation, "passes", "Programmed").1, "Programmed");

    // One that is younger and ends TLS.
    put(&mut resources, "ends", 6, &[HOST], &json!({"secretName": "www"}));
    let (translation, passed) = translate(&resources);
    assert_eq!(passed, passed_by("passes"));
    let (_, _, message) = told(&translation, "ends", "Programmed");
    assert!(
        message.contains("ProxyRoute shop/passes, which comes first, has TLS of host www.example.com"),
        "{message}"
    );

    // One that is older and says nothing of TLS keeps what comes to it.
    put(&mut resources, "plain", 4, &[HOST], &json!({}));
    let (translation, passed) = translate(&resources);
    assert_eq!(passed, Some((None, 1)), "the certificate of the younger one");
    let (status, reason, message) = told(&translation, "passes", "Programmed");
    assert_eq!((status, reason), ("False", "Conflicted"));
    assert!(message.contains("ProxyRoute shop/plain"), "{message}");
    resources.routes.remove(&key("ends"));
    assert_eq!(translate(&resources).1, None, "left to the default certificate");

    // One that is older still, and passes it on.
    pass(&mut resources, "first", 3, &[HOST, "other.example.com"]);
    let (translation, passed) = translate(&resources);
    assert_eq!(passed, passed_by("first"));
    assert!(told(&translation, "passes", "Programmed").2.contains("ProxyRoute shop/first"));
    resources.routes.remove(&key("first"));
    resources.routes.remove(&key("plain"));
    assert_eq!(translate(&resources).1, passed_by("passes"));
    resources.routes.remove(&key("passes"));
    assert_eq!(translate(&resources).1, None);
}

/// A change of what TLS is passed on to is seen where TLS is looked up.
#[test]
fn where_tls_is_passed_on_to_follows_what_is_there() {
    let (mut resources, mut translator) = (Resources::default(), translator());
    pass(&mut resources, "passes", 1, &["www.example.com"]);
    let action = |translation: &Translation| {
        let terms = at(translation, "www.example.com").unwrap();
        let crate::snapshot::Action::Forward(action) = &terms.passed.as_ref().unwrap().action else { panic!() };
        action.backends[0].cluster.is_ok()
    };
    assert!(action(&translator.translate(&resources)));
    resources.services.remove(&key("db"));
    let translation = translator.translate(&resources);
    assert!(!action(&translation));
    assert_eq!(told(&translation, "passes", "ResolvedRefs").1, "BackendNotFound");
}
