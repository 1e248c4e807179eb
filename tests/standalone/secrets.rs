//! What is planted in Secrets, ConfigMaps and key files comes out nowhere: not on the admin port, in no log, in no finding.

use std::fs;
use std::path::Path;

use crate::server::{Server, eventually, floodway};

/// In everything that is planted, and in nothing else; and what base64 makes of it wherever it stands.
pub(crate) const PLANTED: &str = "c4n4ry";
pub(crate) const ENCODED: [&str; 3] = ["YzRuNHJ5", "M0bjRye", "jNG40cn"];

pub(crate) fn assert_silent(what: &str, text: &str) {
    for secret in [PLANTED].iter().chain(&ENCODED) {
        assert!(!text.contains(secret), "{what} tells {secret}:\n{text}");
    }
}

fn pem(what: &str) -> String {
    format!("-----BEGIN {what}-----\n{PLANTED}\n-----END {what}-----\n")
}

/// Sound objects of every kind of field.
fn sound(dir: &Path) {
    let text = format!(
        "
apiVersion: floodway.dev/v1alpha1
kind: ProxyRoute
metadata: {{name: r}}
spec: {{rules: [{{respond: {{status: 200, body: ok}}}}]}}
---
{{apiVersion: v1, kind: Secret, metadata: {{name: opaque, annotations: {{last: {PLANTED}}}}}, type: Opaque, data: {{key: {}}}}}
---
{{apiVersion: v1, kind: Secret, metadata: {{name: text}}, stringData: {{token: {PLANTED}, pem: {PLANTED}}}}}
---
{{apiVersion: v1, kind: Secret, metadata: {{name: auth}}, type: kubernetes.io/basic-auth, stringData: {{password: {PLANTED}}}}}
---
{{apiVersion: v1, kind: Secret, metadata: {{name: tls}}, type: kubernetes.io/tls, data: {{tls.crt: {}, tls.key: {}}}}}
---
{{apiVersion: v1, kind: ConfigMap, metadata: {{name: map}}, data: {{a: {PLANTED}}}, binaryData: {{b: {}}}}}
",
        ENCODED[0], ENCODED[0], ENCODED[0], ENCODED[0]
    );
    fs::write(dir.join("sound.yaml"), text).unwrap();
    fs::write(dir.join("pair.crt"), pem("CERTIFICATE")).unwrap();
    fs::write(dir.join("pair.key"), pem("PRIVATE KEY")).unwrap();
}

/// Secrets that are wrong in every way, by the name of their file.
fn broken() -> Vec<(&'static str, String)> {
    let secret = |rest: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: broken}}\n{rest}\n");
    let wrong = |rest: &str| secret(&rest.replace('@', PLANTED));
    vec![
        ("base64.yaml", wrong("data: {key: '@!'}")),
        ("scalar.yaml", wrong("data: @")),
        ("list.yaml", wrong("stringData: [@]")),
        ("nested.yaml", wrong("stringData: {key: {@: @}}")),
        ("name.yaml", wrong("stringData: {'@ @': @}")),
        ("type.yaml", wrong("type: [@]\nstringData: {key: @}")),
        ("quote.yaml", wrong("stringData: {key: \"@}")),
        ("anchor.yaml", wrong("stringData: {key: *@}")),
        ("tag.yaml", wrong("stringData: {key: !!int @}")),
        ("binary.yaml", wrong("data: {key: !!binary '@!'}")),
        ("escape.yaml", wrong("stringData: {key: \"\\q@\"}")),
        ("indent.yaml", wrong("stringData:\n\tkey: @")),
        ("colon.yaml", wrong("stringData:\n  key: @: @: @")),
        ("block.yaml", wrong("stringData:\n  key: |\n @\n  more")),
        ("version.yaml", wrong("stringData: {key: @}").replace("v1", "v9")),
        ("metadata.yaml", wrong("stringData: {key: @}").replace("{name: broken}", "{names: broken}")),
        ("large.yaml", wrong(&format!("stringData: {{key: '{}'}}", "@".repeat(200_000)))),
        ("half.key", format!("-----BEGIN PRIVATE KEY-----\n{PLANTED}\n")),
        ("half.crt", PLANTED.to_owned()),
        ("half.ocsp", PLANTED.to_owned()),
    ]
}

#[test]
fn what_is_planted_in_secrets_comes_out_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    sound(dir.path());
    for level in ["debug", "trace"] {
        let server = Server::start(dir.path(), &["--log", level]);
        server.waits_for("/", 200, "ok");
        let broken = broken();
        for (name, text) in &broken {
            fs::write(dir.path().join(name), text).unwrap();
        }
        eventually("every broken file is told of", || {
            let said = server.said();
            broken.iter().filter(|(name, _)| *name != "version.yaml").all(|(name, _)| said.contains(name))
        });
        for path in ["/config_dump", "/metrics", "/upstreams", "/readyz", "/log"] {
            let (status, text) = server.admin(path);
            assert_eq!(status, 200, "{path}");
            assert_silent(path, &text);
        }
        assert_silent("the log", &server.said());
        let output = floodway(&["check", dir.path().to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        for output in [output.stdout, output.stderr] {
            assert_silent("floodway check", &String::from_utf8(output).unwrap());
        }
        for (name, _) in &broken {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let output = floodway(&["check", dir.path().to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        // What is planted where a certificate should be is none.
        assert!(said.contains("7 sound objects: 2 errors, 0 warnings"), "{said}");
        assert!(said.contains("pair.crt: ") && said.contains("data.tls.crt: "), "{said}");
        assert_silent("floodway check", &said);
    }
}
