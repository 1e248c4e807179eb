//! Secrets and ConfigMaps in files.

use super::*;

fn pem(what: &str, content: &str) -> String {
    format!("-----BEGIN {what}-----\n{content}\n-----END {what}-----\n")
}

#[test]
fn secrets_and_config_maps_are_read_and_nobody_is_shown_them() {
    let mut folder = Folder::new();
    folder.write(
        "a.yaml",
        "
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Secret, metadata: {name: s}, type: Opaque, data: {key: aHVzaA==}, stringData: {user: ada}}
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: other}, data: {page: hush}, binaryData: {i: AP8=}}
",
    );
    assert_eq!(folder.load(), (true, vec![]));
    let secret = Arc::clone(folder.resources.secret("default", "s").unwrap());
    assert_eq!(secret.entry("key").unwrap().expose(), b"hush");
    assert_eq!(secret.entry("user").unwrap().expose(), b"ada");
    assert_eq!(folder.resources.config_map("other", "c").unwrap().entry("i").unwrap().expose(), [0, 255]);
    assert!(!format!("{:?}", folder.resources).contains("hush"));

    // What is wrong is told without it, and the last good version stays.
    for (wrong, told) in [
        ("data: {key: hush!}", "data.key: has to be base64 of its content"),
        ("data: hush", "data: has to be names with values"),
        ("data: {key: [hush]}", "data.key: has to be base64 of its content"),
        ("stringData: {key: {hush: hush}}", "stringData.key: has to be text; put it in quotes"),
        ("stringData: {'hush hush': x}", "stringData: a name here is not one that Kubernetes has"),
    ] {
        folder.write("a.yaml", &format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{wrong}\n"));
        let (changed, said) = folder.load();
        assert!(!changed && said.len() == 1 && !said[0].contains("hush"), "{said:?}");
        assert!(said[0].contains(told), "{said:?}");
        assert!(Arc::ptr_eq(&secret, folder.resources.secret("default", "s").unwrap()));
    }
}

#[test]
fn pairs_of_files_make_tls_secrets() {
    let mut folder = Folder::new();
    folder.write("web.crt", &pem("CERTIFICATE", "one"));
    let (changed, told) = folder.load();
    assert!(!changed && told[0].ends_with("web.crt: there is no web.key; a certificate is read together with its key"));
    folder.write("web.key", &pem("PRIVATE KEY", "hush"));
    assert_eq!(folder.load(), (true, vec![]));
    let held = |folder: &Folder| folder.resources.secret("default", "web").cloned();
    let entry = |folder: &Folder, name| held(folder)?.entry(name).map(|bytes| bytes.expose().to_vec());
    assert!(held(&folder).unwrap().is_tls());
    assert_eq!(entry(&folder, "tls.crt").unwrap(), pem("CERTIFICATE", "one").as_bytes());
    assert_eq!(entry(&folder, "tls.key").unwrap(), pem("PRIVATE KEY", "hush").as_bytes());
    assert_eq!(entry(&folder, "tls.ocsp-staple"), None);
    let first = held(&folder).unwrap();
    assert_eq!(folder.load(), (false, vec![]));

    // Half a file leaves what was good.
    fs::write(folder.path("web.key"), "-----BEGIN PRIVATE KEY-----\nhush\n").unwrap();
    age(&folder.path("web.key"));
    let (changed, told) = folder.load();
    assert!(!changed && told[0].contains("web.key: no whole private key in PEM"), "{told:?}");
    assert!(!told[0].contains("hush"), "{told:?}");
    assert!(Arc::ptr_eq(&first, &held(&folder).unwrap()));
    folder.write("web.key", &pem("PRIVATE KEY", "more"));
    assert_eq!(folder.load(), (true, vec![folder.path("web.key").display().to_string() + ": sound again"]));
    fs::write(folder.path("web.ocsp"), [0x30, 1, 0]).unwrap();
    age(&folder.path("web.ocsp"));
    assert_eq!(folder.load(), (true, vec![]));
    assert_eq!(entry(&folder, "tls.ocsp-staple").unwrap(), [0x30, 1, 0]);

    // So does half a pair; and the Secret goes with both.
    fs::remove_file(folder.path("web.key")).unwrap();
    let (changed, told) = folder.load_later();
    assert!(!changed && told[0].contains("web.crt: there is no web.key"), "{told:?}");
    assert!(held(&folder).is_some());
    fs::remove_file(folder.path("web.crt")).unwrap();
    fs::remove_file(folder.path("web.ocsp")).unwrap();
    assert!(folder.load_later().0);
    assert!(folder.resources.secrets.is_empty());
}

#[test]
fn authorities_and_their_lists_make_config_maps() {
    let mut folder = Folder::new();
    folder.write("partners.ca", &pem("CERTIFICATE", "one"));
    assert_eq!(folder.load(), (true, vec![]));
    let entry = |folder: &Folder, name: &str, entry: &str| {
        folder.resources.config_map("default", name)?.entry(entry).map(|bytes| bytes.expose().to_vec())
    };
    assert_eq!(entry(&folder, "partners", "ca.crt").unwrap(), pem("CERTIFICATE", "one").as_bytes());
    assert_eq!(entry(&folder, "partners", "ca.crl"), None);
    fs::write(folder.path("partners.crl"), [0x30, 1, 0]).unwrap();
    age(&folder.path("partners.crl"));
    folder.write("lists.crl", &pem("X509 CRL", "two"));
    // A pair of the same name is another object.
    folder.write("partners.crt", &pem("CERTIFICATE", "one"));
    folder.write("partners.key", &pem("PRIVATE KEY", "hush"));
    assert_eq!(folder.load(), (true, vec![]));
    assert_eq!(entry(&folder, "partners", "ca.crl").unwrap(), [0x30, 1, 0]);
    assert_eq!(entry(&folder, "lists", "ca.crl").unwrap(), pem("X509 CRL", "two").as_bytes());
    assert!(folder.resources.secret("default", "partners").unwrap().is_tls());

    // Half a list leaves the last good one.
    fs::write(folder.path("partners.crl"), "-----BEGIN X509 CRL-----\ntwo\n").unwrap();
    age(&folder.path("partners.crl"));
    let (changed, told) = folder.load();
    assert!(!changed && told[0].contains("partners.crl: no whole revocation list in PEM"), "{told:?}");
    assert_eq!(entry(&folder, "partners", "ca.crl").unwrap(), [0x30, 1, 0]);
    folder.write("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: lists}\ndata: {a: b}\n");
    let (_, told) = folder.load();
    assert!(told[0].contains("lists.ca: ConfigMap default/lists is already in "), "{told:?}");
}

#[test]
fn a_pair_and_a_document_of_one_name_are_told() {
    let mut folder = Folder::new();
    folder.write("a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: web}\nstringData: {a: b}\n");
    folder.write("web.crt", &pem("CERTIFICATE", "one"));
    folder.write("web.key", &pem("PRIVATE KEY", "hush"));
    let (_, told) = folder.load();
    assert!(told[0].contains("web.crt: Secret default/web is already in "), "{told:?}");
    assert!(!folder.resources.secret("default", "web").unwrap().is_tls());
    folder.write("Wrong_Name.crt", &pem("CERTIFICATE", "one"));
    folder.write("Wrong_Name.key", &pem("PRIVATE KEY", "hush"));
    let (_, told) = folder.load();
    assert!(told[0].contains("Wrong_Name.crt: its name is not one of a Secret"), "{told:?}");
}
