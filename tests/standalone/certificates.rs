//! Certificates from pairs of files: what is served, what is told, and what `floodway check` says of a wrong pair.

use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::server::{Server, eventually, floodway};

/// Writes a pair that expires at the beginning of a year.
fn write(dir: &Path, name: &str, year: i32) -> String {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["www.example.com".to_owned()]).unwrap();
    params.not_after = date_time_ymd(year, 1, 1);
    let certificate = params.self_signed(&pair).unwrap();
    fs::write(dir.join(format!("{name}.key")), pair.serialize_pem()).unwrap();
    fs::write(dir.join(format!("{name}.crt")), certificate.pem()).unwrap();
    pair.serialize_pem()
}

fn route(dir: &Path) {
    let text = "
apiVersion: floodway.dev/v1alpha1
kind: ProxyRoute
metadata: {name: www}
spec:
  hosts: [www.example.com]
  tls: {secretName: www, redirect: true}
  rules: [{respond: {status: 200, body: ok}}]
";
    fs::write(dir.join("route.yaml"), text).unwrap();
}

#[test]
fn a_pair_is_served_until_there_is_a_better_one() {
    let dir = tempfile::tempdir().unwrap();
    route(dir.path());
    let key = write(dir.path(), "www", 2100);
    let server = Server::start(dir.path(), &[]);
    let expires = |server: &Server, at: &str| {
        let (_, text) = server.admin("/metrics");
        text.contains(&format!("floodway_certificate_expiry_seconds{{secret=\"default/www\"}} {at}\n"))
    };
    eventually("the first pair", || expires(&server, "4102444800"));
    let (_, dump) = server.admin("/config_dump");
    assert!(dump.contains("\"www.example.com\"") && dump.contains("\"fingerprint\""), "{dump}");
    for line in key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!dump.contains(line) && !server.said().contains(line), "a key is told");
    }

    // A key that is another's leaves the first one in force, and a new pair takes its place.
    fs::write(dir.path().join("www.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    eventually("a word about it", || server.said().contains("tls.key: is not the key of the first certificate"));
    assert!(expires(&server, "4102444800"), "the last good one stays");
    let output = floodway(&["check", dir.path().to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("www.key: is not the key of the first certificate; put the server's own"), "{said}");

    write(dir.path(), "www", 2000);
    eventually("the new pair", || expires(&server, "946684800"));
    let output = floodway(&["check", dir.path().to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_example_is_served_as_it_stands() {
    let server =
        Server::start(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tls"), &["--https", "127.0.0.1:0"]);
    eventually("its certificate", || {
        let (_, text) = server.admin("/metrics");
        text.contains("floodway_certificate_expiry_seconds{secret=\"default/demo-only\"}")
    });
}

#[test]
fn who_signs_for_clients_is_read_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "www", 2100);
    let text = "
apiVersion: floodway.dev/v1alpha1
kind: ProxyRoute
metadata: {name: www}
spec:
  hosts: [www.example.com]
  tls: {secretName: www, clientCertificates: {caConfigMapName: partners}}
  rules: [{respond: {status: 200, body: ok}}]
";
    fs::write(dir.path().join("route.yaml"), text).unwrap();
    let check = || {
        let output = floodway(&["check", dir.path().to_str().unwrap()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let at = "spec.tls.clientCertificates.caConfigMapName: warning: ";
    let said = check();
    assert!(said.contains(&format!("{at}ConfigMap default/partners is not there")), "{said}");
    fs::write(dir.path().join("partners.ca"), "hush").unwrap();
    let said = check();
    assert!(said.contains(at) && !said.contains("hush"), "{said}");
    fs::copy(dir.path().join("www.crt"), dir.path().join("partners.ca")).unwrap();
    let said = check();
    assert!(said.contains(" 0 errors, 0 warnings"), "{said}");

    let server = Server::start(dir.path(), &["--https", "127.0.0.1:0"]);
    let (_, dump) = server.admin("/config_dump");
    assert!(dump.contains("\"authority\": \"ConfigMap default/partners\""), "{dump}");
}
