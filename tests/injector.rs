//! A pod in, a patch out: every `tests/injector/NAME.yaml` has a `NAME.golden.yaml` beside it, which `UPDATE_GOLDEN=1` rewrites. A
//! document without `kind` in front of the pod is the template, in place of the usual one.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::{env, fs};

use clap::Parser as _;
use floodway::args::Args;
use floodway::injector::{Injection, Pod, Refusal, Template, inject};
use serde_json::{Value, json};

const TEMPLATE: &str = "\
image: registry.example.com/floodway:0.1.0
imagePullPolicy: IfNotPresent
resources: {requests: {cpu: 20m, memory: 24Mi}, limits: {memory: 64Mi}}
";

#[test]
fn pods_become_what_the_golden_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injector");
    let mut inputs: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.retain(|path| !path.to_str().unwrap().ends_with(".golden.yaml"));
    inputs.sort();
    assert!(inputs.len() > 10, "{} pods", inputs.len());
    let mut different = Vec::new();
    for input in inputs {
        let text = serde_yaml::to_string(&become_of(&fs::read_to_string(&input).unwrap(), &input)).unwrap();
        let golden = input.with_extension("golden.yaml");
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        if text != fs::read_to_string(&golden).unwrap_or_default() {
            println!("--- {} would now be:\n{text}", golden.display());
            different.push(golden);
        }
    }
    assert!(different.is_empty(), "not as expected (UPDATE_GOLDEN=1 rewrites them): {different:?}");
}

/// What becomes of a pod; if it is changed, asking again about what came of it changes nothing.
fn become_of(text: &str, input: &Path) -> Value {
    let mut documents: Vec<Value> = text.split("\n---\n").map(|text| serde_yaml::from_str(text).unwrap()).collect();
    let mut pod = documents.pop().unwrap();
    assert_eq!(pod["kind"], "Pod", "{}", input.display());
    let template = documents.pop().map_or_else(|| TEMPLATE.to_owned(), |template| template.to_string());
    let template = Template::read("template", template.as_bytes()).unwrap();
    let asked = |pod: &Value| inject(&serde_json::from_value::<Pod>(pod.clone()).unwrap(), &template);
    match asked(&pod) {
        Ok(Injection::Injected { patch, warnings }) => {
            let changes: json_patch::Patch = serde_json::from_value(serde_json::to_value(&patch).unwrap()).unwrap();
            let before = pod.clone();
            json_patch::patch(&mut pod, &changes).unwrap_or_else(|wrong| panic!("{}: {wrong}", input.display()));
            let again = asked(&pod).unwrap();
            assert_eq!(again, Injection::Skipped { why: "it has the sidecar", warn: false }, "{}", input.display());
            nothing_else_has_changed(&before, &pod, input);
            the_program_takes_its_flags(&pod, input);
            json!({"patch": patch, "warnings": warnings})
        }
        Ok(Injection::Skipped { why, warn }) => json!({"skipped": why, "warn": warn}),
        Err(Refusal(why)) => {
            assert!(why.contains(": ") || why.contains("; "), "{}: no remedy in {why:?}", input.display());
            json!({"refused": why})
        }
    }
}

/// What the containers are started with is what `floodway sidecar` and `floodway capture` read.
fn the_program_takes_its_flags(pod: &Value, input: &Path) {
    for container in pod["spec"]["initContainers"].as_array().unwrap() {
        if container["name"].as_str().unwrap().starts_with("floodway-") {
            // As the kubelet hands them on.
            let flags =
                container["args"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap().replace("$$", "$"));
            let read = Args::try_parse_from(["floodway".to_owned()].into_iter().chain(flags));
            assert!(read.is_ok(), "{}: {}", input.display(), read.unwrap_err());
        }
    }
}

/// Containers keep everything but what probes ask, init containers come behind ours in their order, and the rest stays.
fn nothing_else_has_changed(before: &Value, after: &Value, input: &Path) {
    let (mut before, mut after) = (before.clone(), after.clone());
    let strip = |pod: &mut Value| {
        let list = |value: &mut Value| value.as_array().cloned().unwrap_or_default();
        let init = list(&mut pod["spec"]["initContainers"]);
        let own = |container: &Value| !container["name"].as_str().unwrap().starts_with("floodway-");
        let mut seen_own = false;
        for container in &init {
            assert!(own(container) || !seen_own, "{}: ours are not in front", input.display());
            seen_own |= own(container);
        }
        let init: Vec<Value> = init.into_iter().filter(own).collect();
        let volumes = list(&mut pod["spec"]["volumes"]);
        let volumes: Vec<Value> =
            volumes.into_iter().filter(|volume| volume["name"] != "floodway-api-access").collect();
        let bare = |mut container: Value| {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
                    for action in ["httpGet", "tcpSocket", "grpc"] {
                        probe.remove(action);
                    }
                }
            }
            container
        };
        pod["spec"]["initContainers"] = init.into_iter().map(bare).collect();
        pod["spec"]["volumes"] = volumes.into();
        pod["spec"]["containers"] = list(&mut pod["spec"]["containers"]).into_iter().map(bare).collect();
        pod["metadata"]["annotations"].as_object_mut().unwrap().remove("sidecar.floodway.dev/status");
    };
    strip(&mut before);
    strip(&mut after);
    assert_eq!(before, after, "{}", input.display());
}

fn refusal(annotations: &[(&str, &str)]) -> String {
    let mut all = serde_json::Map::from_iter([("sidecar.floodway.dev/inject".to_owned(), json!("true"))]);
    all.extend(annotations.iter().map(|(name, value)| (format!("sidecar.floodway.dev/{name}"), json!(value))));
    let pod = json!({
        "metadata": {"annotations": all}, "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]},
    });
    match inject(&serde_json::from_value(pod).unwrap(), &Template::new("floodway")) {
        Err(Refusal(why)) => why,
        Ok(injection) => panic!("nobody minds {annotations:?}: {injection:?}"),
    }
}

/// Each annotation that cannot be read is refused in a sentence with its name, its value and the remedy.
#[test]
fn a_wrong_annotation_gets_its_sentence() {
    let transparent = ("mode", "transparent");
    let long = (1..=65).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
    for (annotations, said) in [
        (
            vec![("inject", "yes")],
            "the annotation sidecar.floodway.dev/inject is neither \"true\" nor \"false\": write one of the two",
        ),
        (
            vec![("mode", "Local")],
            "the annotation sidecar.floodway.dev/mode is \"Local\": write \"local\" or \"transparent\"",
        ),
        (vec![("app-port", "http")], "app-port is \"http\": \"http\" is not a port; write a number from 1 to 65535"),
        (vec![("app-port", "0")], "\"0\" is not a port"),
        (vec![("app-port", "65536")], "\"65536\" is not a port"),
        (vec![("app-port", "+80")], "\"+80\" is not a port"),
        (vec![("app-port", "15106")], "15106 is a port of the sidecar itself"),
        (
            vec![("inbound-ports", "80")],
            "inbound-ports is \"80\": it means something only where connections are redirected",
        ),
        (vec![transparent, ("inbound-ports", "80,,81")], "\"\" is not a port"),
        (vec![transparent, ("exclude-outbound-ports", &long)], "these are more than 64"),
        (
            vec![transparent, ("exclude-outbound-addresses", "10.0.0.0/33")],
            "\"10.0.0.0/33\" is no block of addresses; write for example 10.0.0.0/8",
        ),
        (vec![("policies", "a,B")], "policies is \"a,B\": \"B\" is no name of an object"),
        (vec![("policies", "other/a")], "\"other/a\" is no name of an object; write names of the pod's own namespace"),
        (vec![("tls-secret", "")], "tls-secret is \"\""),
        (vec![("client-ca-secret", "ca")], "clients show certificates in TLS only; set tls-secret, too"),
        (vec![("tls-secret", "a"), ("client-certificates", "Required")], "set client-ca-secret and tls-secret, too"),
        (
            vec![("tls-secret", "a"), ("client-ca-secret", "b"), ("client-certificates", "required")],
            "write \"Required\" or \"Optional\"",
        ),
        (vec![("cpu-request", "a lot")], "it is not an amount; write for example 50m"),
        (vec![("memory-limit", "-1Mi")], "it is not an amount"),
        (vec![("memory-limit", "0")], "it is not an amount"),
        (vec![("access-log", "/tmp/log")], "access-log is \"/tmp/log\": write \"stdout\" or \"off\""),
        (vec![("log-level", "loud")], "log-level is \"loud\": \"loud\" is not a log level"),
        (vec![("polices", "a")], "is not known; did you mean sidecar.floodway.dev/policies?"),
        (vec![("weather", "fine")], "is not known; take it away, or see docs/sidecar.md"),
        (vec![("policies", "a\u{1b}[31m")], "policies is \"a?[31m\""),
    ] {
        let why = refusal(&annotations);
        assert!(why.contains(said), "{annotations:?}: {why}");
        assert!(why.len() < 512, "{why}");
    }
}

/// What is in front of apps may run where the strictest policy is in force; the capture step says what it needs beyond.
#[test]
fn the_sidecar_asks_for_no_right() {
    let container = |mode: &str, at: usize| {
        let pod = json!({
            "metadata": {"annotations": {"sidecar.floodway.dev/inject": "true", "sidecar.floodway.dev/mode": mode}},
            "spec": {"containers": [{"name": "app"}]},
        });
        let injected = inject(&serde_json::from_value(pod.clone()).unwrap(), &Template::new("floodway")).unwrap();
        let Injection::Injected { patch, .. } = injected else { panic!("{injected:?}") };
        let mut pod = pod;
        let patch: json_patch::Patch = serde_json::from_value(serde_json::to_value(patch).unwrap()).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
        pod["spec"]["initContainers"][at].clone()
    };
    for (mode, at) in [("local", 0), ("transparent", 1)] {
        let sidecar = container(mode, at);
        assert_eq!(sidecar["name"], "floodway-sidecar");
        let context = &sidecar["securityContext"];
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!((&context["runAsNonRoot"], &context["allowPrivilegeEscalation"]), (&json!(true), &json!(false)));
        assert_eq!((&context["readOnlyRootFilesystem"], &context["runAsUser"]), (&json!(true), &json!(15151)));
    }
    let capture = container("transparent", 0);
    assert_eq!(capture["name"], "floodway-capture");
    assert_eq!(capture["securityContext"]["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    assert_eq!(capture.get("restartPolicy"), None, "it ends before anything else begins");
}

#[test]
fn a_template_that_makes_no_sense_is_refused() {
    for (text, said) in [
        ("", "write one document, with `image` at least"),
        ("image: ''", "image: is empty"),
        ("image: a\nimages: b", "images"),
        ("image: a\ndefaultMode: Local", "local"),
        ("image: a\nlog: loud", "is not a log level"),
        ("image: a\ncaptureImage: ''", "captureImage: is empty"),
        ("image: a\nbindAddress: here", "bindAddress"),
        ("image: a\n---\nimage: b", "write one document"),
    ] {
        let wrong = Template::read("template.yaml", text.as_bytes()).unwrap_err().to_string();
        assert!(wrong.starts_with("template.yaml") && wrong.contains(said), "{text}: {wrong}");
    }
}
