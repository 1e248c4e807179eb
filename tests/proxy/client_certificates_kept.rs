//! What is kept of a client that was let in, and for how long and for whom that counts: sessions, open connections, connections that
//! clients share between hosts.

use std::sync::Arc;

use floodway::settings::ClientCertificates;
use rcgen::{SerialNumber, date_time_ymd};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::certified::*;
use super::clients::{ask, content};
use super::support::*;
use super::tls_clients::*;

/// Keeps sessions as those of one host, whichever they were begun with.
#[derive(Debug)]
struct AnyHost(ClientSessionMemoryCache);

fn any() -> ServerName<'static> {
    ServerName::try_from("any.test").unwrap()
}

impl ClientSessionStore for AnyHost {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(any(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&any())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(any(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&any())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&any());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(any(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&any())
    }
}

/// A client that brings its sessions wherever it goes.
fn everywhere(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(config);
    config.resumption = Resumption::store(Arc::new(AnyHost(ClientSessionMemoryCache::new(64))));
    Arc::new(config)
}

#[tokio::test]
async fn a_session_is_resumed_with_the_same_terms_alone() {
    let (ca, other) = (Signer::new("ca"), Signer::new("other"));
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem()), ("ca.crl", &ca.revoking(&[], 2100))]);
    world.map("other", &[("ca.crt", &other.certificate.pem())]);
    world.route("a.test", Some(json!({"caConfigMapName": "ca"})), &[]);
    world.route("b.test", Some(json!({"caConfigMapName": "other"})), &[]);
    world.route("c.test", None, &[]);
    let plane = secure(world.table());
    let client = ca.sign(|params| params.serial_number = Some(SerialNumber::from(7_u64)));
    let ask = async |config: &Arc<ClientConfig>, host: &str| {
        told(&plane, config, host, host, "/", "").await.map(|(_, resumed)| resumed).ok()
    };
    for version in BOTH {
        let sign = || world.shows(Some(&client), version, &["http/1.1"]);
        let (shows, nobody) = (everywhere(&sign()), everywhere(&world.shows(None, version, &["http/1.1"])));
        assert_eq!(ask(&shows, "a.test").await, Some(false));
        assert_eq!(ask(&shows, "a.test").await, Some(true), "{version:?}: any worker, the same terms");
        assert_eq!(ask(&shows, "a.test").await, Some(true), "{version:?}: again");
        assert_eq!(ask(&shows, "b.test").await, None, "{version:?}: another authority");
        // Who came in where nobody asks is nobody where somebody does.
        assert_eq!(ask(&nobody, "c.test").await, Some(false));
        assert_eq!(ask(&nobody, "c.test").await, Some(true));
        assert_eq!(ask(&nobody, "a.test").await, None, "{version:?}: from a host that asks for nothing");
    }

    for version in BOTH {
        let shows = world.shows(Some(&client), version, &["http/1.1"]);
        let mut change = |entries: &[(&str, &str)]| {
            world.map("ca", entries);
            assert!(plane.publisher.publish(world.table()));
        };
        let (pem, both) = (ca.certificate.pem(), ca.certificate.pem() + &other.certificate.pem());
        let (none, some) = (ca.revoking(&[], 2100), ca.revoking(&[8], 2100));
        let first = ask(&shows, "a.test").await;
        assert_eq!(first, Some(false));
        assert_eq!(ask(&shows, "a.test").await, Some(true));
        change(&[("ca.crt", &both), ("ca.crl", &(none.clone() + &other.revoking(&[], 2100)))]);
        assert_eq!(ask(&shows, "a.test").await, Some(false), "{version:?}: one more authority");
        assert_eq!(ask(&shows, "a.test").await, Some(true));
        change(&[("ca.crt", &pem), ("ca.crl", &some)]);
        assert_eq!(ask(&shows, "a.test").await, Some(false), "{version:?}: another list");
        assert_eq!(ask(&shows, "a.test").await, Some(true));
        change(&[("ca.crt", &pem), ("ca.crl", &ca.revoking(&[7], 2100))]);
        assert_eq!(ask(&shows, "a.test").await, None, "{version:?}: revoked");
        change(&[("ca.crt", &other.certificate.pem()), ("ca.crl", &other.revoking(&[], 2100))]);
        assert_eq!(ask(&shows, "a.test").await, None, "{version:?}: another authority in its place");
        change(&[("ca.crt", &pem), ("ca.crl", &none)]);
    }
}

/// Both hosts have the same authority, and one of them lets in who shows nothing.
#[tokio::test]
async fn who_needed_nothing_does_not_resume_where_something_is_needed() {
    let ca = Signer::new("ca");
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    world.route("a.test", Some(json!({"caConfigMapName": "ca", "mode": "Optional"})), &[]);
    let plane = secure(world.table());
    for version in BOTH {
        world.route("a.test", Some(json!({"caConfigMapName": "ca", "mode": "Optional"})), &[]);
        plane.publisher.publish(world.table());
        let nobody = world.shows(None, version, &["http/1.1"]);
        assert!(told(&plane, &nobody, "a.test", "a.test", "/", "").await.is_ok());
        assert!(told(&plane, &nobody, "a.test", "a.test", "/", "").await.unwrap().1, "{version:?}: resumed");
        world.route("a.test", Some(json!({"caConfigMapName": "ca"})), &[]);
        assert!(plane.publisher.publish(world.table()));
        assert!(told(&plane, &nobody, "a.test", "a.test", "/", "").await.is_err(), "{version:?}");
    }
}

/// A connection that stays open, for one request after the other.
struct Kept(tokio_rustls::client::TlsStream<tokio::net::TcpStream>);

impl Kept {
    async fn new(plane: &Plane, config: &Arc<ClientConfig>, host: &str) -> Kept {
        Kept(shake(plane.secure, host, config).await.unwrap())
    }

    /// The status, and the content's length.
    async fn ask(&mut self, host: &str) -> String {
        self.0.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(self.0.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse().unwrap())
        });
        let mut content = vec![0; length.unwrap()];
        within(self.0.read_exact(&mut content)).await.unwrap();
        head.split(' ').nth(1).unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_connection_is_for_hosts_that_ask_the_same() {
    let (ca, other) = (Signer::new("ca"), Signer::new("other"));
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    world.map("other", &[("ca.crt", &other.certificate.pem())]);
    let plane = secure(world.table());
    let asks = |name: &str, mode: &str| Some(json!({"caConfigMapName": name, "mode": mode}));
    let client = ca.client();
    for (own, others, shown, status) in [
        (None, None, None, "200"),
        (None, asks("ca", "Required"), None, "421"),
        (None, asks("ca", "Optional"), None, "421"),
        (asks("ca", "Required"), None, Some(&client), "421"),
        (asks("ca", "Required"), asks("ca", "Required"), Some(&client), "200"),
        (asks("ca", "Required"), asks("other", "Required"), Some(&client), "421"),
        (asks("ca", "Optional"), asks("ca", "Optional"), None, "200"),
        (asks("ca", "Optional"), asks("ca", "Required"), None, "421"),
        (asks("ca", "Optional"), asks("ca", "Required"), Some(&client), "421"),
    ] {
        let what = format!("{own:?} {others:?} {}", shown.is_some());
        world.route("a.test", own, &[]);
        world.route("b.test", others, &[]);
        plane.publisher.publish(world.table());
        // The certificate is for both.
        let mut kept = Kept::new(&plane, &world.shows13(shown), "a.test").await;
        assert_eq!(kept.ask("a.test").await, "200", "{what}");
        assert_eq!(kept.ask("b.test").await, status, "{what}");
        assert_eq!(kept.ask("a.test").await, "200", "{what}");

        let config = world.shows(shown, &rustls::version::TLS13, &["h2"]);
        let stream = shake(plane.secure, "a.test", &config).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for (host, expected) in [("a.test", "200"), ("b.test", status), ("a.test", "200")] {
            let request = http::Request::get(format!("https://{host}/")).body(()).unwrap();
            let mut answer = ask(&requests, request).await;
            assert_eq!(answer.status().as_str(), expected, "{what}: {host}");
            let _ = content(answer.body_mut()).await;
        }
    }
    // Who names nobody, and then somebody.
    let mut kept = Kept::new(&plane, &world.shows13(None), "127.0.0.1").await;
    assert_eq!(kept.ask("a.test").await, "421");
    assert_eq!(kept.ask("c.test").await, "404");
}

#[tokio::test]
async fn cleartext_is_no_way_around() {
    let ca = Signer::new("ca");
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    world.route("a.test", Some(json!({"caConfigMapName": "ca"})), &[]);
    world.route("b.test", Some(json!({"caConfigMapName": "ca", "mode": "Optional"})), &[]);
    let redirected = json!({"secretName": "www", "redirect": true, "clientCertificates": {"caConfigMapName": "ca"}});
    world.route_of("c", "c.test", 1, redirected, &[]);
    // A route that asks for nothing is one of a host that does.
    let plane = secure(world.table());
    for (host, status) in [("a.test", "403"), ("b.test", "200"), ("c.test", "308")] {
        let answer = plane.exchange(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
        assert_eq!(answer.contains("client_certificate_missing"), status == "403");
    }
}

#[tokio::test]
async fn of_two_routes_that_disagree_neither_is_open_by_the_other() {
    let (ca, other) = (Signer::new("ca"), Signer::new("other"));
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    world.map("other", &[("ca.crt", &other.certificate.pem())]);
    let tls = |clients: serde_json::Value| json!({"secretName": "www", "clientCertificates": clients});
    let client = ca.client();
    for (older, shown) in [
        (json!({"secretName": "www"}), None),
        (tls(json!({"caConfigMapName": "ca", "mode": "Optional"})), None),
        (tls(json!({"caConfigMapName": "ca"})), Some(&client)),
    ] {
        world.route_of("older", "a.test", 1, older.clone(), &[]);
        world.route_of("newer", "a.test", 2, tls(json!({"caConfigMapName": "other"})), &[]);
        // Both have the same matches; what the newer one says of its own requests is looked at where they are its own.
        world.route_of("only", "b.test", 2, tls(json!({"caConfigMapName": "other"})), &[]);
        let translation = world.translation();
        let told = translation.statuses.routes.iter().find(|(key, _)| &*key.name == "newer").unwrap().1;
        let told = &told.iter().find(|one| one.type_ == "Programmed").unwrap().message;
        assert!(
            told.contains("spec.tls: ProxyRoute shop/older, which comes first, says which certificate host a.test"),
            "{told}"
        );
        let plane = secure(translation.snapshot);
        let config = world.shows13(shown);
        assert!(asked(&plane, &config, "a.test").await.unwrap().starts_with("HTTP/1.1 200 "), "{older}");
        assert!(asked(&plane, &config, "b.test").await.is_err());
    }
    // The terms of the older one, and a rule of the newer one.
    let mut table = {
        world.route_of("older", "a.test", 1, json!({"secretName": "www"}), &[]);
        world.table()
    };
    let own = world.resources.routes.iter().map(|(key, _)| key.clone()).find(|key| &*key.name == "older").unwrap();
    world.resources.routes.remove(&own);
    table.router = world.table().router;
    let plane = secure(table);
    let answer = asked(&plane, &world.shows13(Some(&client)), "a.test").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
}

#[tokio::test]
async fn open_connections_outlive_a_change_but_for_strangers() {
    let (ca, other) = (Signer::new("ca"), Signer::new("other"));
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    world.map("other", &[("ca.crt", &other.certificate.pem())]);
    world.route("a.test", Some(json!({"caConfigMapName": "ca"})), &[]);
    world.route("b.test", None, &[]);
    let plane = secure(world.table());
    let client = ca.client();
    let mut known = Kept::new(&plane, &world.shows13(Some(&client)), "a.test").await;
    let mut stranger = Kept::new(&plane, &world.shows13(None), "b.test").await;
    assert_eq!((&*known.ask("a.test").await, &*stranger.ask("b.test").await), ("200", "200"));
    world.map("ca", &[("ca.crt", &other.certificate.pem())]);
    assert!(plane.publisher.publish(world.table()));
    assert!(asked(&plane, &world.shows13(Some(&client)), "a.test").await.is_err(), "new ones are judged anew");
    assert_eq!(known.ask("a.test").await, "200", "as when a certificate changes");
    world.route("b.test", Some(json!({"caConfigMapName": "ca"})), &[]);
    assert!(plane.publisher.publish(world.table()));
    assert_eq!(stranger.ask("b.test").await, "421", "it has never shown anything");
    // Another reference is another authority.
    world.route("a.test", Some(json!({"caConfigMapName": "other"})), &[]);
    assert!(plane.publisher.publish(world.table()));
    assert_eq!(known.ask("a.test").await, "421");
}

#[tokio::test]
async fn settings_ask_where_no_route_does() {
    let (ca, other) = (Signer::new("ca"), Signer::new("other"));
    let settings = ClientCertificates { ca_config_map: Some("shop/ca".to_owned()), ..ClientCertificates::default() };
    let mut world = World::with(mirror().await, Some(settings));
    world.map("other", &[("ca.crt", &other.certificate.pem())]);
    world.route("a.test", None, &[]);
    world.route("b.test", Some(json!({"caConfigMapName": "other"})), &[]);
    world.route("c.test", Some(json!({"mode": "Disabled"})), &[]);
    let translation = world.translation();
    let complaint = translation.complaint.unwrap();
    assert!(complaint.starts_with("listeners.tls.clientCertificates: ConfigMap shop/ca is not there"), "{complaint}");
    let plane = secure(translation.snapshot);
    let (own, others) = (ca.client(), other.client());
    let comes_in = async |shown, name: &str, host: &str| {
        told(&plane, &world.shows13(shown), name, host, "/", "").await.is_ok_and(|(answer, _)| answer.contains(" 200 "))
    };
    assert!(!comes_in(Some(&own), "a.test", "a.test").await, "not without its authority");
    assert!(comes_in(Some(&others), "b.test", "b.test").await && comes_in(None, "c.test", "c.test").await);

    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    let translation = world.translation();
    assert_eq!(translation.complaint, None);
    assert!(plane.publisher.publish(translation.snapshot));
    let comes_in = async |shown, name: &str, host: &str| {
        told(&plane, &world.shows13(shown), name, host, "/", "").await.is_ok_and(|(answer, _)| answer.contains(" 200 "))
    };
    for (shown, name, host, expected) in [
        (Some(&own), "a.test", "a.test", true),
        (None, "a.test", "a.test", false),
        (Some(&others), "a.test", "a.test", false),
        (Some(&others), "b.test", "b.test", true),
        (None, "c.test", "c.test", true),
        // Who names no host is asked what the settings say.
        (None, "127.0.0.1", "c.test", false),
        (Some(&own), "127.0.0.1", "a.test", true),
        (Some(&own), "127.0.0.1", "c.test", false),
    ] {
        assert_eq!(comes_in(shown, name, host).await, expected, "{name} {host}");
    }
}

/// However often it is resumed, a session is over with the certificate that it began with.
#[tokio::test]
async fn a_session_ends_with_its_certificate() {
    let ca = Signer::new("ca");
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    world.route("a.test", Some(json!({"caConfigMapName": "ca"})), &[]);
    let plane = secure(world.table());
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    let client = ca.sign(|params| {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = soon.into();
    });
    let config = world.shows13(Some(&client));
    let mut resumed = 0;
    loop {
        match told(&plane, &config, "a.test", "a.test", "/", "").await {
            Ok((_, again)) => resumed += u32::from(again),
            Err(_) => break,
        }
        assert!(soon.elapsed().is_err() || soon.elapsed().unwrap().as_secs() < 15, "it never ends");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(resumed > 0 && soon.elapsed().is_ok(), "{resumed}");
}
