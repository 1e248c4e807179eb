//! Which clients come in that have to show certificates, and what endpoints are told of them.

use rcgen::{ExtendedKeyUsagePurpose, SanType, SerialNumber, date_time_ymd};
use serde_json::{Value, json};

use super::certified::*;
use super::support::*;
use super::tls_clients::*;

const REFUSED: &str = "floodway_connections_refused_total";

#[tokio::test]
async fn who_shows_a_good_certificate_comes_in_and_nobody_else() {
    let (ca, other) = (Signer::new("ca"), Signer::new("other"));
    let between = Signer::below("between", Some(&ca));
    let same_name = Signer::new("ca");
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    world.route("a.test", Some(json!({"caConfigMapName": "ca"})), &[]);
    world.route("b.test", Some(json!({"caConfigMapName": "ca", "mode": "Optional"})), &[]);
    let plane = secure(world.table());
    let expired = ca.sign(|params| {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let early = ca.sign(|params| params.not_before = date_time_ymd(2100, 1, 1));
    let server = ca.sign(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let giant = ca.sign(|params| {
        let name = |at: usize| SanType::DnsName(format!("n{at}.{}.example", "x".repeat(40)).try_into().unwrap());
        params.subject_alt_names = (0..200).map(name).collect();
    });
    let any_usage = ca.sign(|params| params.extended_key_usages.clear());
    let mut refused = 0.0;
    for version in BOTH {
        for (what, shown, good) in [
            ("its own", ca.client(), true),
            ("one without a purpose", ca.sign(|params| params.extended_key_usages.clear()), true),
            ("a chain", between.client().with(&between), true),
            ("half a chain", between.client(), false),
            ("another's", other.client(), false),
            ("another's of the same name", same_name.client(), false),
            ("another's, with its authority", other.client().with(&other), false),
        ] {
            let config = world.shows(Some(&shown), version, &["http/1.1"]);
            for host in ["a.test", "b.test"] {
                let answer = asked(&plane, &config, host).await;
                let is_in = answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "));
                assert_eq!(is_in, good, "{what} {version:?} {host}: {answer:?}");
                refused += if good { 0.0 } else { 1.0 };
            }
        }
        for (what, shown) in [("expired", &expired), ("early", &early), ("a server's", &server), ("giant", &giant)] {
            let config = world.shows(Some(shown), version, &["http/1.1"]);
            for host in ["a.test", "b.test"] {
                let answer = asked(&plane, &config, host).await;
                assert!(answer.is_err(), "{what} {version:?} {host}: {answer:?}");
                refused += 1.0;
            }
        }
        assert!(asked(&plane, &world.shows(Some(&any_usage), version, &[]), "a.test").await.is_ok());
        let nobody = world.shows(None, version, &["http/1.1"]);
        assert!(asked(&plane, &nobody, "a.test").await.is_err(), "{version:?}");
        assert!(asked(&plane, &nobody, "b.test").await.unwrap().starts_with("HTTP/1.1 200 "), "{version:?}");
    }
    plane.metric_becomes(REFUSED, "\"tls_client_certificate\"", refused).await;
    plane.metric_becomes(REFUSED, "\"tls_no_client_certificate\"", 2.0).await;
}

#[tokio::test]
async fn who_is_on_a_list_is_refused() {
    let ca = Signer::new("ca");
    let between = Signer::below("between", Some(&ca));
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    let serial =
        |signer: &Signer, serial: u64| signer.sign(|params| params.serial_number = Some(SerialNumber::from(serial)));
    let (bad, good) = (serial(&ca, 666), serial(&ca, 7));
    let (bad_below, below) = (serial(&between, 666).with(&between), serial(&between, 7).with(&between));
    let own = ca.revoking(&[666], 2100);
    let both = own.clone() + &between.revoking(&[666], 2100);
    let all_below = ca.revoking(&[4711], 2100) + &between.revoking(&[], 2100);
    let old = ca.revoking(&[666], 2001);
    let forged = Signer::new("ca").revoking(&[7], 2100);
    let lists = |more: Value| {
        let mut lists = json!({"configMapName": "crl"});
        lists.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"caConfigMapName": "ca", "revocation": lists})
    };
    // Who comes in: (good, bad, good below, bad below).
    for (what, crl, asks, expected) in [
        ("its own", &own, lists(json!({})), [true, false, false, false]),
        ("one of each issuer", &both, lists(json!({})), [true, false, true, false]),
        ("an issuer", &all_below, lists(json!({})), [true, true, false, false]),
        ("an issuer, which is not asked", &all_below, lists(json!({"scope": "Client"})), [true, true, true, true]),
        ("the client's", &both, lists(json!({"scope": "Client"})), [true, false, true, false]),
        ("an old one", &old, lists(json!({})), [false, false, false, false]),
        ("an old one, which will do", &old, lists(json!({"expired": "Accept"})), [true, false, false, false]),
        ("a forged one", &forged, lists(json!({})), [false, false, false, false]),
    ] {
        world.map("crl", &[("ca.crl", crl)]);
        world.route("a.test", Some(asks), &[]);
        let plane = secure(world.table());
        for (shown, comes_in) in [&good, &bad, &below, &bad_below].into_iter().zip(expected) {
            let answer = asked(&plane, &world.shows13(Some(shown)), "a.test").await;
            assert_eq!(answer.is_ok(), comes_in, "{what}: {answer:?}");
        }
    }
    // A list beside the authority counts, whether anybody speaks of it or not.
    world.map("ca", &[("ca.crt", &ca.certificate.pem()), ("ca.crl", &own)]);
    for asks in [json!({"caConfigMapName": "ca"}), json!({"caConfigMapName": "ca", "revocation": {}})] {
        world.route("a.test", Some(asks), &[]);
        let plane = secure(world.table());
        assert!(asked(&plane, &world.shows13(Some(&good)), "a.test").await.is_ok());
        assert!(asked(&plane, &world.shows13(Some(&bad)), "a.test").await.is_err());
    }
}

#[tokio::test]
async fn without_an_authority_or_its_list_nobody_comes_in() {
    let ca = Signer::new("ca");
    let mut world = World::new(mirror().await);
    let client = ca.client();
    let pem = ca.certificate.pem();
    world.route("a.test", Some(json!({"caConfigMapName": "ca", "mode": "Optional", "revocation": {}})), &[]);
    let plane = secure(world.table());
    let mut refused = 0.0;
    for (entries, says) in [
        (None, "ConfigMap shop/ca is not there"),
        (Some(vec![("ca.crt", "")]), "ca.crt: is missing or empty"),
        (Some(vec![("ca.crt", "hush")]), "ca.crt: has no certificate in PEM"),
        (Some(vec![("ca.crt", &pem[..pem.len() - 40])]), "ca.crt: "),
        (
            Some(vec![("ca.crt", "-----BEGIN CERTIFICATE-----\naHVzaA==\n-----END CERTIFICATE-----\n")]),
            "ca.crt: holds what is no",
        ),
        (Some(vec![("ca.crt", &pem)]), "ca.crl: is missing or empty"),
        (Some(vec![("ca.crt", &pem), ("ca.crl", "hush")]), "ca.crl: has no list in PEM"),
        (
            Some(vec![("ca.crt", &pem), ("ca.crl", "-----BEGIN X509 CRL-----\naHVzaA==\n-----END X509 CRL-----\n")]),
            "ca.crl: holds a list that cannot be read",
        ),
    ] {
        if let Some(entries) = entries {
            world.map("ca", &entries);
        }
        let translation = world.translation();
        let conditions = translation.statuses.routes.values().next().unwrap();
        let told: Vec<_> =
            conditions.iter().map(|one| format!("{} {}: {}", one.type_, one.status, one.message)).collect();
        assert!(told[1].starts_with("ResolvedRefs False: spec.tls.clientCertificates.caConfigMapName: "), "{told:?}");
        assert!(told[1].contains(says) && !told[1].contains("hush"), "{told:?}");
        assert!(
            told[2].contains("Programmed False: handshakes for its hosts are refused, because clients"),
            "{told:?}"
        );
        plane.publisher.publish(translation.snapshot);
        for shown in [None, Some(&client)] {
            assert!(asked(&plane, &world.shows13(shown), "a.test").await.is_err(), "{says}");
            refused += 1.0;
        }
    }
    plane.metric_becomes(REFUSED, "tls_no_client_authority", refused).await;
    world.map("ca", &[("ca.crt", &pem), ("ca.crl", &ca.revoking(&[], 2100))]);
    assert!(plane.publisher.publish(world.table()));
    assert!(asked(&plane, &world.shows13(Some(&client)), "a.test").await.is_ok());
    assert!(asked(&plane, &world.shows13(None), "a.test").await.is_ok());
}

const FAMILY: [&str; 10] = [
    "Client-Cert: :AAAA:",
    "client-cert-chain: :AAAA:, :AAAA:",
    "X-Forwarded-Client-Cert: Hash=00",
    "ssl-client-verify: SUCCESS",
    "SSL-Client-Subject-DN: CN=root",
    "ssl-client-anything: x",
    "ssl_client_verify: SUCCESS",
    "client_cert: :AAAA:",
    "x_forwarded_client_cert: Hash=00",
    "Connection: client-cert, ssl-client-verify, x-forwarded-client-cert",
];

/// The lines that tell of a certificate.
fn family(seen: &str) -> Vec<String> {
    let (_, seen) = seen.split_once("\r\n\r\n").unwrap();
    let of_family = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().replace('_', "-").to_ascii_lowercase();
        name.starts_with("client-cert") || name.starts_with("ssl-client") || name == "x-forwarded-client-cert"
    };
    seen.lines().filter(of_family).map(str::to_owned).collect()
}

#[tokio::test]
async fn endpoints_are_told_who_a_client_is_and_by_nobody_else() {
    let ca = Signer::new("ca");
    let between = Signer::below("between", Some(&ca));
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    let forward = json!(["ClientCert", "ClientCertChain", "Xfcc", "SslClient"]);
    world.route("a.test", Some(json!({"caConfigMapName": "ca", "forward": forward, "mode": "Optional"})), &[]);
    world.route("b.test", Some(json!({"caConfigMapName": "ca"})), &[]);
    world.route("c.test", None, &[]);
    let client = between.sign(|params| {
        params.subject_alt_names = vec![
            SanType::DnsName("cart.example".try_into().unwrap()),
            SanType::URI("spiffe://example/cart".try_into().unwrap()),
        ];
    });
    let client = client.with(&between);
    let spoofed = FAMILY.map(|line| format!("{line}\r\n")).concat();
    let plane = secure(world.table());
    let ask = async |shown: Option<&Signed>, host: &str| {
        let config = world.shows13(shown);
        family(&told(&plane, &config, host, host, "/seen", &spoofed).await.unwrap().0)
    };
    let seen = ask(Some(&client), "a.test").await;
    let names: Vec<_> = seen.iter().map(|line| line.split(':').next().unwrap()).collect();
    let expected = [
        "client-cert",
        "client-cert-chain",
        "x-forwarded-client-cert",
        "ssl-client-verify",
        "ssl-client-subject-dn",
        "ssl-client-issuer-dn",
        "ssl-client-fingerprint",
        "ssl-client-san",
    ];
    assert_eq!(names, expected, "{seen:?}");
    let base64 = |der: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    assert_eq!(seen[0], format!("client-cert: :{}:", base64(&client.chain[0])));
    assert_eq!(seen[1], format!("client-cert-chain: :{}:", base64(&client.chain[1])));
    assert!(seen[2].ends_with(";Subject=\"CN=cart\";DNS=cart.example;URI=spiffe://example/cart"), "{seen:?}");
    assert_eq!(seen[4..6], ["ssl-client-subject-dn: CN=cart", "ssl-client-issuer-dn: CN=between"]);
    assert_eq!(seen[7], "ssl-client-san: DNS:cart.example, URI:spiffe://example/cart");
    assert_eq!(ask(None, "a.test").await, ["ssl-client-verify: NONE"]);
    assert_eq!(ask(Some(&client), "b.test").await, [""; 0]);
    assert_eq!(ask(None, "c.test").await, [""; 0]);
    let plain = plane.exchange(format!("GET / HTTP/1.1\r\nHost: c.test\r\n{spoofed}Connection: close\r\n\r\n")).await;
    assert_eq!(family(&plain), [""; 0]);

    let logged = plane.logged_times("/seen", 4).await;
    // Of both workers, in whatever order.
    let of = |host: &str| logged.iter().find(|line| line["host"] == host).unwrap();
    assert_eq!(of("b.test")["tls_client_subject"], "CN=cart");
    let fingerprint = of("b.test")["tls_client_fingerprint"].as_str().unwrap();
    assert_eq!(format!("ssl-client-fingerprint: {fingerprint}"), seen[6]);
    assert!(of("c.test").get("tls_client_subject").is_none(), "{logged:?}");
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_if_the_settings_say_so() {
    let spoofed = FAMILY[..6].iter().map(|line| format!("{line}\r\n")).collect::<String>();
    let request =
        format!("GET / HTTP/1.1\r\nHost: a\r\n{spoofed}ssl_client_verify: SUCCESS\r\nConnection: close\r\n\r\n");
    let endpoint = mirror().await;
    for (trusted, believed, kept) in [(true, true, 6), (true, false, 0), (false, true, 0)] {
        let plane = Plane::with(to(endpoint), |settings| {
            let net = if trusted { "127.0.0.0/8" } else { "192.0.2.0/24" };
            settings.forwarding.trusted_proxies = vec![net.parse().unwrap()];
            settings.forwarding.client_certificates = believed;
        });
        let seen = family(&plane.exchange(&request).await);
        assert_eq!(seen.len(), kept, "{trusted} {believed}: {seen:?}");
    }
}

#[tokio::test]
async fn policies_say_who_may_pass() {
    let ca = Signer::new("ca");
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    world.policy("cart", json!({"clientCertificate": {"allow": [
        {"dns": "*.cart.example"}, {"uri": "spiffe://example/ns/shop/*"}, {"email": "*@ops.example"}, {"subject": "CN=root,O=Shop"},
    ]}}));
    world.policy("anybody", json!({"clientCertificate": {}}));
    world.policy("broken", json!({"clientCertificate": {"allow": [{"dns": "a", "uri": "urn:a"}]}}));
    let optional = || Some(json!({"caConfigMapName": "ca", "mode": "Optional"}));
    world.route("a.test", optional(), &["cart"]);
    world.route("b.test", optional(), &["anybody"]);
    world.route("c.test", optional(), &["broken"]);
    let plane = secure(world.table());
    let san = |san: SanType| ca.sign(|params| params.subject_alt_names = vec![san]);
    let uri = |text: &str| san(SanType::URI(text.try_into().unwrap()));
    let subject = ca.sign(|params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Shop");
        params.distinguished_name.push(rcgen::DnType::CommonName, "root");
    });
    for (shown, passes) in [
        (san(SanType::DnsName("eu.cart.example".try_into().unwrap())), true),
        (san(SanType::DnsName("a.eu.cart.example".try_into().unwrap())), false),
        (san(SanType::DnsName("*.cart.example".try_into().unwrap())), false),
        (uri("spiffe://example/ns/shop/sa/cart"), true),
        (uri("spiffe://example/ns/shop/../root"), false),
        (uri("spiffe://example/ns/shops"), false),
        (san(SanType::Rfc822Name("ada@ops.example".try_into().unwrap())), true),
        (san(SanType::Rfc822Name("ada@ops.example.org".try_into().unwrap())), false),
        (subject, true),
        (ca.client(), false),
    ] {
        let config = world.shows13(Some(&shown));
        let answer = asked(&plane, &config, "a.test").await.unwrap();
        let expected = if passes { "HTTP/1.1 200 " } else { "HTTP/1.1 403 " };
        assert!(answer.starts_with(expected) && passes != answer.contains("client_certificate_denied"), "{answer}");
        assert!(asked(&plane, &config, "b.test").await.unwrap().starts_with("HTTP/1.1 200 "));
        assert!(asked(&plane, &config, "c.test").await.unwrap().contains("invalid_policy"));
    }
    for host in ["a.test", "b.test"] {
        let refused = asked(&plane, &world.shows13(None), host).await.unwrap();
        assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("client_certificate_missing"), "{refused}");
        let plain = plane.exchange(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert!(plain.starts_with("HTTP/1.1 403 ") && plain.contains("client_certificate_missing"), "{plain}");
    }
}

/// What the system's own clients make of it.
#[tokio::test]
async fn curl_and_openssl_are_asked_and_answered() {
    let ca = Signer::new("ca");
    let mut world = World::new(mirror().await);
    world.map("ca", &[("ca.crt", &ca.certificate.pem())]);
    world.route("a.test", Some(json!({"caConfigMapName": "ca", "forward": ["SslClient"]})), &[]);
    let plane = secure(world.table());
    let folder = tempfile::tempdir().unwrap();
    let client = ca.client();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let root = write("root.pem", &world.server.certificate.pem());
    let (own, key) = (write("client.pem", &client.pem), write("client.key", &client.key_pem()));
    let input = write("input", "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    let port = plane.secure.port();
    let run = async |program: &str, arguments: String| {
        let (program, input) = (program.to_owned(), input.clone());
        let run = move || {
            let mut command = std::process::Command::new(program);
            let output =
                command.args(arguments.split(' ')).stdin(std::fs::File::open(input).unwrap()).output().unwrap();
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        };
        within(tokio::task::spawn_blocking(run)).await.unwrap()
    };
    let told = "ssl-client-subject-dn: CN=cart";
    for version in ["--tls-max 1.2", "--tlsv1.3"] {
        for (shown, expected) in [(format!("--cert {own} --key {key} "), true), (String::new(), false)] {
            let all = format!(
                "-sS --max-time 15 {version} --resolve a.test:{port}:127.0.0.1 --cacert {root} {shown}https://a.test:{port}/"
            );
            let said = run("curl", all).await;
            assert_eq!(said.contains(told), expected, "{version}: {said}");
        }
    }
    for version in ["-tls1_2", "-tls1_3"] {
        for (shown, expected) in [(format!(" -cert {own} -key {key}"), true), (String::new(), false)] {
            let all = format!(
                "s_client {version} -connect 127.0.0.1:{port} -servername a.test -CAfile {root} -verify_return_error -ign_eof{shown}"
            );
            let said = run("openssl", all).await;
            assert_eq!(said.contains(told), expected, "{version}: {said}");
            // RFC 8446 4.3.2: who may sign is named, so that clients choose well.
            assert!(said.contains("Acceptable client certificate CA names\nCN = ca\n"), "{said}");
        }
    }
}
