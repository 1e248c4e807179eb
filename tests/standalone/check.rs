//! `floodway check`: one line per finding, as a table of texts and what is said of them.

use std::io::Write;
use std::process::Stdio;

use crate::server::floodway;

const HEAD: &str = "apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {name: a}\nspec:\n";

fn check(text: &str) -> (i32, String) {
    let mut child = floodway(&["check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn rule(rule: &str) -> String {
    format!("{HEAD}  rules:\n    - {rule}\n")
}

#[test]
fn findings_have_file_line_column_document_and_path() {
    let good = rule("respond: {status: 200}");
    for (text, code, told) in [
        (good.clone(), 0, "1 file, 1 sound object: 0 errors, 0 warnings\n"),
        (rule("respond: {status: 99}"), 2, "<stdin>:6:25: spec.rules[0].respond.status: 99 is less than 200\n"),
        (format!("{good}---\n{}", rule("respond: {status: yes}")), 2, "<stdin>:13:25: document 2: spec.rules[0].respond.status: "),
        (rule("respnd: {status: 200}"), 2, "<stdin>:6:7: spec.rules[0]"),
        (rule("matches: [{path: {value: no-slash}}]\n      respond: {status: 200}"), 2, "spec.rules[0].matches[0].path"),
        (rule("backends: [{service: {name: lost, port: 80}}]"), 0, "warning: Service default/lost does not exist\n"),
        (
            format!("{good}---\n{}", good.replace("name: a", "name: b")),
            0,
            "document 2: spec.rules[0].matches[0]: warning: ProxyRoute default/a, which comes first, has the same match at host *\n",
        ),
        (format!("{good}---\n{good}"), 2, "document 2: ProxyRoute default/a is already in <stdin>:1; remove one of them\n"),
        ("apiVersion: v1\nkind: Pod\n".to_owned(), 0, "<stdin>:2:7: kind: warning: Pod of v1 is not read here\n"),
        ("kind: ProxyRoute\n".to_owned(), 2, "<stdin>:1:1: every document begins with `apiVersion` and `kind`\n"),
        (good.replace("v1alpha1", "v2"), 2, "<stdin>:1:13: apiVersion: unknown version \"floodway.dev/v2\"; write floodway.dev/v1alpha1\n"),
        (good.replace("ProxyRoute", "Proxyroute"), 2, "<stdin>:2:7: kind: \"Proxyroute\" is not a kind of floodway.dev"),
        (good.replace("name: a", "names: a"), 2, "<stdin>:3:"),
        ("a: [1\nb: 2\n".to_owned(), 2, "<stdin>:2:"),
        ("apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Service\n    metadata: {name: s}\n    spec: {ports: [{port: x}]}\n".to_owned(), 2, "<stdin>:7:27: items[0].spec.ports[0].port: "),
        ("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\naddressType: IPv4\nendpoints: []\n".to_owned(), 0, "without the label kubernetes.io/service-name"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: ExternalName}\n".to_owned(), 2, "<stdin>:4:1: spec.externalName: "),
        (
            "apiVersion: floodway.dev/v1alpha1\nkind: ProxyPolicy\nmetadata: {name: a}\nspec:\n  errorPages:\n    - {statuses: [5xx], reasons: [no_endpont], configMapName: a, html: b}\n".to_owned(),
            2,
            "; did you mean no_endpoint?\n",
        ),
        (String::new(), 0, "1 file, 0 sound objects: 0 errors, 0 warnings\n"),
    ] {
        let (exit, said) = check(&text);
        assert!(said.contains(told), "{text}\n--- said\n{said}\n--- not\n{told}");
        assert_eq!(exit, code, "{text}\n---\n{said}");
    }
}

#[test]
fn the_examples_are_sound() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo");
    let output = floodway(&["check", examples]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.ends_with(": 0 errors, 0 warnings\n"), "{said}");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("big.yaml"), vec![b'#'; 9 * 1024 * 1024]).unwrap();
    std::fs::write(dir.path().join("latin1.yaml"), b"a: \xe4\n").unwrap();
    std::fs::create_dir(dir.path().join("folder.yaml")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(dir.path().join("pipe.yaml")).status().unwrap().success());
    let output = floodway(&["check", dir.path().to_str().unwrap(), "/nowhere.yaml"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for told in [
        "big.yaml: larger than 8 MiB; split it",
        "latin1.yaml:1:4: not UTF-8 text",
        "pipe.yaml: not a regular file",
        "/nowhere.yaml: cannot be read: No such file",
        "4 files, 0 sound objects: 4 errors, 0 warnings",
    ] {
        assert!(said.contains(told), "{said}\nnot {told}");
    }
}
