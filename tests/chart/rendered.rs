//! What the chart makes of values.

use floodway::settings::Settings;
use serde_json::{Value, json};

use crate::helm::{all_values, helm, render};

pub(crate) fn rendered(values: &str) -> Vec<Value> {
    render(values, &[]).unwrap_or_else(|said| panic!("{said}\n{values}"))
}

pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The Deployment or the DaemonSet of the gateway.
pub(crate) fn workload(objects: &[Value]) -> &Value {
    let gateways = |object: &&Value| object["metadata"]["labels"]["app.kubernetes.io/name"] == "floodway";
    let mut gateways = objects.iter().filter(gateways);
    gateways.find(|object| object["kind"] == "Deployment" || object["kind"] == "DaemonSet").unwrap()
}

pub(crate) fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// Only Deployments, and so on, that somebody asked for.
fn kinds(objects: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[test]
fn lint_finds_nothing() {
    for (name, values) in all_values() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("values.yaml");
        std::fs::write(&file, values).unwrap();
        let said = helm(&["lint", "--strict", "charts/floodway", "-f", file.to_str().unwrap()]);
        assert!(said.is_ok(), "{name}: {}", said.unwrap_err());
    }
}

/// For every block of values in docs/install.md and every file of the tests: the program takes the settings, and the pod gets the time that its drain takes.
#[test]
fn the_program_takes_the_settings() {
    for (name, values) in all_values() {
        let objects = rendered(&values);
        let map =
            of_kind(&objects, "ConfigMap").into_iter().find(|map| map["data"]["settings.yaml"].is_string()).unwrap();
        let text = map["data"]["settings.yaml"].as_str().unwrap();
        let settings = Settings::default().overlaid("settings.yaml", text.as_bytes());
        let settings = settings.unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        settings.validate().unwrap();
        let pod = at(workload(&objects), "/spec/template/spec");
        let given = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(given > (settings.drain.delay + settings.drain.grace).as_secs(), "{name}");
        // Every listener has a port of the container, and the other way round.
        let ports = pod["containers"][0]["ports"].as_array().unwrap();
        let listeners = &settings.listeners;
        let mut heard: Vec<u16> = listeners.http.iter().chain(&listeners.https).map(|a| a.port()).collect();
        heard.push(listeners.admin.port());
        let named: Vec<u64> = ports.iter().map(|port| port["containerPort"].as_u64().unwrap()).collect();
        assert_eq!(named.len(), heard.len(), "{name}");
        assert!(heard.iter().all(|port| named.contains(&u64::from(*port))), "{name}: {heard:?} and {named:?}");
    }
}

#[test]
fn what_is_off_makes_nothing() {
    let least = rendered(include_str!("values/least.yaml"));
    let wanted = [
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "Deployment",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    ];
    assert_eq!(kinds(&least), wanted);
    assert_eq!(of_kind(&least, "ClusterRole").len(), 1, "Secrets are not to be read");
    let default = rendered("");
    assert_eq!(of_kind(&default, "PodDisruptionBudget").len(), 1);
    for kind in ["HorizontalPodAutoscaler", "NetworkPolicy", "ServiceMonitor", "PodMonitor", "PrometheusRule"] {
        assert!(of_kind(&default, kind).is_empty(), "{kind}");
    }
}

/// The log's level is followed by the program; everything else needs new pods.
#[test]
fn a_change_of_settings_rolls_the_pods_and_one_of_the_level_does_not() {
    let hash = |values: &str| {
        let objects = rendered(values);
        at(workload(&objects), "/spec/template/metadata/annotations/floodway.dev~1settings").clone()
    };
    let plain = hash("");
    assert!(plain.is_string());
    assert_eq!(hash("settings: {log: {level: debug}}"), plain);
    assert_ne!(hash("settings: {log: {format: text}}"), plain);
    assert_eq!(hash("settings: {log: {format: text, level: debug}}"), hash("settings: {log: {format: text}}"));
    assert_ne!(hash("settings: {limits: {connections: 7}}"), plain);
}

#[test]
fn a_daemon_set_has_host_ports_and_no_replicas() {
    let values = "{workload: DaemonSet, hostPorts: {http: 80, https: 443}, service: {type: ClusterIP}}";
    let objects = rendered(values);
    let daemons = workload(&objects);
    assert_eq!(daemons["kind"], "DaemonSet");
    assert_eq!(at(daemons, "/spec/replicas"), &Value::Null);
    assert_eq!(at(daemons, "/spec/strategy"), &Value::Null);
    assert_eq!(at(daemons, "/spec/updateStrategy/rollingUpdate"), &json!({"maxSurge": 0, "maxUnavailable": 1}));
    let ports = at(daemons, "/spec/template/spec/containers/0/ports").as_array().unwrap();
    assert_eq!(ports[0], json!({"name": "http", "containerPort": 8080, "hostPort": 80}));
    assert_eq!(ports[2], json!({"name": "admin", "containerPort": 9901}));
    assert!(of_kind(&objects, "PodDisruptionBudget").is_empty());
    // Without host ports a new pod comes first.
    let objects = rendered("workload: DaemonSet");
    let rolling = at(workload(&objects), "/spec/updateStrategy/rollingUpdate").clone();
    assert_eq!(rolling, json!({"maxSurge": 1, "maxUnavailable": 0}));
}

#[test]
fn low_ports_need_a_sysctl_and_no_capability() {
    let sysctls = |values: &str| at(workload(&rendered(values)), "/spec/template/spec/securityContext/sysctls").clone();
    let from = |port: &str| json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": port}]);
    assert_eq!(sysctls(""), Value::Null);
    assert_eq!(sysctls("ports: {https: 443}"), from("443"));
    assert_eq!(sysctls("{ports: {https: 443}, extraPorts: [{name: alt, port: 81}]}"), from("81"));
    // Whoever names it has the word.
    let own =
        "{ports: {http: 80}, podSecurityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '0'}]}}";
    assert_eq!(sysctls(own), from("0"));
    let objects = rendered("ports: {http: 80, https: 443}");
    let context = at(workload(&objects), "/spec/template/spec/containers/0/securityContext").clone();
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
}

#[test]
fn an_autoscaler_takes_the_place_of_replicas() {
    let objects = rendered("autoscaling: {enabled: true, minReplicas: 3}");
    assert_eq!(at(workload(&objects), "/spec/replicas"), &Value::Null);
    let scaler = of_kind(&objects, "HorizontalPodAutoscaler")[0];
    assert_eq!(at(scaler, "/spec/minReplicas"), 3);
    assert_eq!(at(scaler, "/spec/scaleTargetRef/kind"), "Deployment");
    assert!(at(scaler, "/spec/behavior/scaleDown/stabilizationWindowSeconds").as_u64().unwrap() >= 600);
    assert_eq!(of_kind(&objects, "PodDisruptionBudget").len(), 1);
    assert!(of_kind(&rendered("autoscaling: {enabled: true, minReplicas: 1}"), "PodDisruptionBudget").is_empty());
}

#[test]
fn the_admin_port_is_for_those_who_are_named() {
    let ingress = |values: &str| at(of_kind(&rendered(values), "NetworkPolicy")[0], "/spec/ingress").clone();
    let open = ingress("{networkPolicy: {enabled: true}, tests: {enabled: false}}");
    assert_eq!(open, json!([{"ports": [{"protocol": "TCP", "port": 8080}, {"protocol": "TCP", "port": 8443}]}]));
    let named =
        ingress("{networkPolicy: {enabled: true, admin: {from: [{podSelector: {}}]}}, tests: {enabled: false}}");
    assert_eq!(named[1], json!({"ports": [{"protocol": "TCP", "port": 9901}], "from": [{"podSelector": {}}]}));
    // The pod of `helm test` passes, by a label that nothing else has; and no Service leads to that pod.
    let objects = rendered("networkPolicy: {enabled: true}");
    let peers = at(of_kind(&objects, "NetworkPolicy")[0], "/spec/ingress/1/from").as_array().unwrap();
    let [peer] = peers.as_slice() else { panic!("{peers:?}") };
    let test = of_kind(&objects, "Pod")[0];
    for (label, value) in at(peer, "/podSelector/matchLabels").as_object().unwrap() {
        assert_eq!(&test["metadata"]["labels"][label], value);
    }
    for service in of_kind(&objects, "Service") {
        let selector = at(service, "/spec/selector").as_object().unwrap();
        assert!(selector.iter().any(|(label, value)| test["metadata"]["labels"][label] != *value));
    }
}

#[test]
fn kinds_of_the_operator_are_made_where_they_are_known() {
    let values = "monitoring: {serviceMonitor: {enabled: true}, prometheusRule: {enabled: true}}";
    let unknown = rendered(values);
    assert!(of_kind(&unknown, "ServiceMonitor").is_empty() && of_kind(&unknown, "PrometheusRule").is_empty());
    let scrape = "/spec/template/metadata/annotations/prometheus.io~1scrape";
    assert_eq!(at(workload(&unknown), scrape), "true");

    let known = render(values, &["--api-versions", "monitoring.coreos.com/v1"]).unwrap();
    let monitor = of_kind(&known, "ServiceMonitor")[0];
    // What it chooses is one Service, that of the metrics, and its port is there.
    let wanted = at(monitor, "/spec/selector/matchLabels").as_object().unwrap();
    let chosen: Vec<&Value> = of_kind(&known, "Service")
        .into_iter()
        .filter(|service| wanted.iter().all(|(label, value)| service["metadata"]["labels"][label] == *value))
        .collect();
    let [service] = chosen.as_slice() else { panic!("{chosen:?}") };
    assert_eq!(at(service, "/spec/ports/0/name"), at(monitor, "/spec/endpoints/0/port"));
    // Nobody scrapes twice.
    assert_eq!(at(workload(&known), scrape), &Value::Null);
}

#[test]
fn alerts_are_of_the_release() {
    let rules = |values: &str| -> Vec<Value> {
        let values = format!(
            "{values}\nmonitoring: {{force: true, prometheusRule: {{enabled: true, disabled: [FloodwayErrors]}}}}"
        );
        let objects = rendered(&values);
        at(of_kind(&objects, "PrometheusRule")[0], "/spec/groups/0/rules").as_array().unwrap().clone()
    };
    let all = rules("");
    assert_eq!(all.len(), crate::monitoring::alerts().len() - 1);
    for rule in &all {
        let expression = rule["expr"].as_str().unwrap();
        assert!(!expression.contains('@'), "{expression}");
        let runbook = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert_eq!(runbook, format!("docs/operations.md#{}", rule["alert"].as_str().unwrap().to_lowercase()));
        assert!(expression.contains(r#"{namespace="edge",pod=~"floodway-.+""#), "{expression}");
    }
    // 90 % of 512 MiB; and no limit, no alert.
    let memory = |rules: &[Value]| rules.iter().find(|rule| rule["alert"] == "FloodwayMemory").cloned();
    assert!(memory(&all).unwrap()["expr"].as_str().unwrap().ends_with("> 483183820"), "{:?}", memory(&all));
    assert!(memory(&rules("resources: null")).is_none());
    // The injector's certificate is not told of when it is meant to live for less time than the alert looks ahead.
    let excluded = |lifetime: &str| -> Vec<bool> {
        let rules = rules(&format!("injector: {{enabled: true, certificateLifetime: {lifetime}}}"));
        let of = rules.iter().filter(|rule| rule["alert"].as_str().unwrap().starts_with("FloodwayCertificate"));
        of.map(|rule| rule["expr"].as_str().unwrap().contains(r#",secret!="edge/floodway-injector-certificate"}"#))
            .collect()
    };
    assert_eq!(excluded("2160h"), [false, false]);
    assert_eq!(excluded("720h"), [true, true]);
    assert_eq!(excluded("30m"), [true, true]);
}

#[test]
fn a_digest_wins_over_a_tag() {
    let image = |values: &str| at(workload(&rendered(values)), "/spec/template/spec/containers/0/image").clone();
    assert_eq!(image(""), format!("floodway:{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(image("image: {tag: next}"), "floodway:next");
    let digest = format!("sha256:{}", "0a".repeat(32));
    assert_eq!(image(&format!("image: {{tag: next, digest: '{digest}'}}")), format!("floodway@{digest}"));
}

/// For each type of Service the notes tell how to get at it.
#[test]
fn the_notes_tell_the_next_step() {
    for (value, said) in [
        ("service.type=LoadBalancer", "get service floodway --watch"),
        ("service.type=NodePort", ".nodePort}"),
        ("service.type=ClusterIP", "port-forward service/floodway 8080:80"),
        ("workload=DaemonSet,hostPorts.http=80", "Port 80 of the node is http."),
        ("monitoring.podMonitor.enabled=true", "NOT MADE"),
        ("injector.enabled=true", "label namespace NAMESPACE floodway.dev/injection=enabled"),
    ] {
        let arguments =
            ["install", "floodway", "charts/floodway", "--dry-run=client", "--namespace", "edge", "--set", value];
        let notes = helm(&arguments).unwrap();
        assert!(notes.contains(said), "{value}:\n{notes}");
    }
}
