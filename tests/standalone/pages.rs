//! Error pages of a ConfigMap that is not there, comes, changes and goes: nobody is kept out for it.

use std::fs;

use crate::server::{Server, floodway};

const OBJECTS: &str = r#"
apiVersion: floodway.dev/v1alpha1
kind: ProxyRoute
metadata: {name: r}
spec:
  rules:
    - matches: [{path: {value: /shut}}]
      policies: [{name: shut}, {name: sorry}]
      respond: {status: 200, body: open}
    - policies: [{name: sorry}]
      respond: {status: 200, body: ok}
---
apiVersion: floodway.dev/v1alpha1
kind: ProxyPolicy
metadata: {name: shut}
spec: {ipAccess: {allow: [192.0.2.0/24]}}
---
apiVersion: floodway.dev/v1alpha1
kind: ProxyPolicy
metadata: {name: sorry}
spec: {errorPages: [{statuses: [4xx], configMapName: pages, plain: error.txt}]}
"#;

fn pages(text: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: pages, labels: {{floodway.dev/use: 'true'}}}}, data: {{error.txt: '{text}'}}}}\n"
    )
}

#[test]
fn pages_follow_their_config_map_and_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("objects.yaml"), OBJECTS).unwrap();
    let output = floodway(&["check", dir.path().to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("spec.errorPages[0].configMapName") && said.contains("default/pages"), "{said}");

    let server = Server::start(dir.path(), &[]);
    server.waits_for("/", 200, "ok");
    let (status, own) = server.get("/shut");
    assert!(status == 403 && own.contains("reason: address_denied"), "{own}");
    for text in ["Sorry: {{status}}", "Another: {{reason}}"] {
        fs::write(dir.path().join("pages.yaml"), pages(text)).unwrap();
        let filled = text.replace("{{status}}", "403").replace("{{reason}}", "address_denied");
        server.waits_for("/shut", 403, &filled);
    }
    fs::remove_file(dir.path().join("pages.yaml")).unwrap();
    crate::server::eventually("the page is Floodway's own again", || {
        server.get("/shut").1.contains("reason: address_denied\n")
    });
    server.waits_for("/", 200, "ok");
}
