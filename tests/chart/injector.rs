//! What the chart makes of the injector, and of what sidecars may watch: the program takes its flags and its template, and nothing
//! of it gets in the way of the gateway.

use clap::Parser as _;
use floodway::args::{Args, Command};
use floodway::injector::{Mode, Template};
use serde_json::{Value, json};

use crate::helm::render;

const OWN: &str = include_str!("values/injector.yaml");

/// The objects of the injector.
fn rendered(values: &str) -> Vec<Value> {
    render(values, &["--show-only", "templates/injector.yaml"]).unwrap()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn the_program_takes_flags_and_template() {
    for values in ["injector: {enabled: true}", OWN] {
        let objects = rendered(values);
        let deployment = of_kind(&objects, "Deployment");
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
        let arguments =
            Args::try_parse_from(["floodway"].into_iter().chain(arguments)).unwrap_or_else(|wrong| panic!("{wrong}"));
        let Command::Injector(arguments) = arguments.command else { panic!("not the injector") };
        // What it is told to keep is what it may, and what there is.
        let webhooks = of_kind(&objects, "MutatingWebhookConfiguration");
        assert_eq!(webhooks["metadata"]["name"], arguments.configuration);
        assert_eq!(webhooks["webhooks"][0]["name"], arguments.webhook);
        assert_eq!(of_kind(&objects, "Service")["metadata"]["name"], arguments.service);
        assert_eq!(of_kind(&objects, "Role")["rules"][0]["resourceNames"], json!([arguments.secret]));
        assert_eq!(of_kind(&objects, "ClusterRole")["rules"][0]["resourceNames"], json!([arguments.configuration]));
        let ports: Vec<u64> =
            container["ports"].as_array().unwrap().iter().map(|port| port["containerPort"].as_u64().unwrap()).collect();
        assert_eq!(ports, [u64::from(arguments.listen.port()), u64::from(arguments.admin.port())]);
        let given = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(given > arguments.drain_delay.as_secs() + 5);
        let text = of_kind(&objects, "ConfigMap")["data"]["template.yaml"].as_str().unwrap();
        Template::read("template.yaml", text.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
    }
    let text = of_kind(&rendered(OWN), "ConfigMap")["data"]["template.yaml"].as_str().unwrap().to_owned();
    let template = Template::read("template.yaml", text.as_bytes()).unwrap();
    assert_eq!((template.default_mode, template.legacy_iptables), (Mode::Transparent, true));
    assert_eq!(template.capture_image.as_deref(), Some("registry.example.com/floodway-capture:0.1.0"));
    assert_eq!((template.bind_address.to_string().as_str(), template.log.as_str()), ("::", "warn"));
    assert_eq!(template.resources["limits"]["memory"], "64Mi");
}

#[test]
fn the_webhook_concerns_only_who_asks() {
    let objects = rendered(OWN);
    let webhook = &of_kind(&objects, "MutatingWebhookConfiguration")["webhooks"][0];
    // This field is the injector's own.
    assert_eq!(webhook["clientConfig"].get("caBundle"), None);
    assert_eq!(webhook["rules"].as_array().unwrap().len(), 1);
    assert_eq!(webhook["rules"][0]["operations"], json!(["CREATE"]));
    assert_eq!(webhook["rules"][0]["resources"], json!(["pods"]));
    assert_eq!((&webhook["failurePolicy"], &webhook["timeoutSeconds"]), (&json!("Fail"), &json!(3)));
    let excluded = &webhook["namespaceSelector"]["matchExpressions"][1];
    assert_eq!(excluded["operator"], "NotIn");
    for namespace in ["kube-system", "kube-public", "kube-node-lease", "edge"] {
        assert!(excluded["values"].as_array().unwrap().contains(&json!(namespace)), "{excluded}");
    }
    assert!(webhook["matchConditions"][0]["expression"].as_str().unwrap().contains("'sidecar.floodway.dev/inject' in"));
}

#[test]
fn gateway_and_injector_are_told_apart() {
    let objects = render("injector: {enabled: true}", &[]).unwrap();
    let workloads: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "Deployment").collect();
    assert_eq!(workloads.len(), 2);
    let chosen = |selector: &Value| -> Vec<&str> {
        let chosen = workloads.iter().filter(|workload| {
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            selector.as_object().unwrap().iter().all(|(label, value)| labels[label] == *value)
        });
        chosen.map(|workload| workload["metadata"]["name"].as_str().unwrap()).collect()
    };
    for object in &objects {
        let name = object["metadata"]["name"].as_str().unwrap();
        let selector = match object["kind"].as_str().unwrap() {
            "Service" => &object["spec"]["selector"],
            "Deployment" | "PodDisruptionBudget" => &object["spec"]["selector"]["matchLabels"],
            _ => continue,
        };
        let wanted = if name.contains("injector") { "floodway-injector" } else { "floodway" };
        assert_eq!(chosen(selector), [wanted], "{name}");
    }
}

#[test]
fn sidecars_may_watch_their_own_namespace() {
    let roles = |values: &str| render(values, &["--show-only", "templates/sidecar.yaml"]).unwrap();
    let objects = roles("sidecar: {namespaces: [shop, chat]}");
    assert_eq!(objects.len(), 4);
    for object in &objects {
        assert_eq!(object["metadata"]["name"], "floodway-sidecar");
        if object["kind"] == "RoleBinding" {
            let whose = format!("system:serviceaccounts:{}", object["metadata"]["namespace"].as_str().unwrap());
            assert_eq!(object["subjects"][0]["name"], whose);
        }
        assert!(!object.to_string().contains("secrets"), "Secrets have to be asked for");
    }
}
