//! Alerts and dashboard: they name metrics and labels that there are, and say what a person needs to know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::helm::{documents, render, root};

/// Labels that the scraper gives every series.
const OF_THE_TARGET: [&str; 3] = ["namespace", "pod", "job"];

fn chart(path: &str) -> String {
    fs::read_to_string(root().join("charts/floodway").join(path)).unwrap()
}

pub(crate) fn alerts() -> Vec<Value> {
    documents(&chart("alerts/floodway.yaml")).remove(0).as_array().unwrap().clone()
}

/// The metrics of docs/metrics.md, which another test holds to the program, with their types and labels.
fn metrics() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let labels = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[0].trim_end_matches('`').to_owned(), (cells[1].to_owned(), labels))
    })
    .collect()
}

/// Fails if an expression names a metric or a label that is not there.
fn check(expression: &str, whose: &str) {
    let metrics = metrics();
    let words = regex::Regex::new(r"\b(?:floodway|process)_[a-z0-9_]+").unwrap();
    // A metric with its labels in braces; the labels that it is chosen by are in front of an operator.
    let chosen = regex::Regex::new(r"\b((?:floodway|process)_[a-z0-9_]+)\{([^}]*)\}").unwrap();
    let label = regex::Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)""#).unwrap();
    let grouped = regex::Regex::new(r"by \(([^)]*)\)").unwrap();

    let find = |word: &str| {
        let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end));
        let found = metrics
            .get(word)
            .or_else(|| metrics.get(histogram.unwrap_or_default()).filter(|(kind, _)| kind == "histogram"));
        found.unwrap_or_else(|| panic!("{whose} asks for {word}, which is no metric")).clone()
    };
    let mut labels = BTreeSet::from(["le".to_owned()]);
    for word in words.find_iter(expression) {
        let (kind, own) = find(word.as_str());
        let before = &expression[..word.start()];
        let rated = before.ends_with("rate(") || before.ends_with("increase(");
        assert!(!rated || kind != "gauge", "{whose}: {} goes up and down, so it has no rate", word.as_str());
        labels.extend(own);
    }
    assert!(words.is_match(expression), "{whose} asks for no metric: {expression}");
    for of in chosen.captures_iter(expression) {
        let (_, own) = find(&of[1]);
        for name in label.captures_iter(&of[2]) {
            let name = &name[1];
            assert!(own.contains(name) || OF_THE_TARGET.contains(&name), "{whose}: {} has no label {name}", &of[1]);
        }
    }
    for by in grouped.captures_iter(expression) {
        for name in by[1].split(',').map(str::trim) {
            assert!(labels.contains(name) || OF_THE_TARGET.contains(&name), "{whose}: nothing has the label {name}");
        }
    }
}

#[test]
fn alerts_say_what_is_wrong() {
    let schema: Value = serde_json::from_str(&chart("values.schema.json")).unwrap();
    let known =
        schema.pointer("/properties/monitoring/properties/prometheusRule/properties/disabled/items/enum").unwrap();
    let alerts = alerts();
    let names: Vec<&Value> = alerts.iter().map(|alert| &alert["alert"]).collect();
    assert_eq!(known.as_array().unwrap().iter().collect::<Vec<_>>(), names, "values.schema.json has other alerts");
    let runbooks = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let explained = runbooks.lines().filter(|line| line.starts_with("### Floodway")).count();
    assert_eq!(explained, alerts.len(), "docs/operations.md explains alerts that are not there");
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        check(alert["expr"].as_str().unwrap(), name);
        assert!(alert["expr"].as_str().unwrap().contains("@SELECTOR"), "{name} is not of this release alone");
        assert!(alert["for"].is_string(), "{name} has no `for`");
        assert!(
            ["warning", "critical"].map(Value::from).contains(&alert["labels"]["severity"]),
            "{name} has no severity"
        );
        for said in ["summary", "description"] {
            let text = alert["annotations"][said].as_str().unwrap_or_default();
            assert!(text.len() > 20 && text.ends_with(|end: char| ".A".contains(end)), "{name}: {said} is {text:?}");
        }
        let runbook = alert["annotations"]["runbook_url"].as_str().unwrap_or_default();
        assert_eq!(runbook, format!("@RUNBOOKS#{}", name.to_lowercase()));
        assert!(
            runbooks.contains(&format!("\n### {name}\n")),
            "docs/operations.md does not say what to do about {name}"
        );
        // A label that a sentence names has to be left by the expression.
        for (at, _) in alert.to_string().match_indices("$labels.") {
            let text = alert.to_string();
            let label = text[at + 8..].split(|c: char| !c.is_ascii_lowercase()).next().unwrap();
            let expression = alert["expr"].as_str().unwrap();
            assert!(expression.contains(label) || label == "pod", "{name} has no label {label}");
        }
    }
}

/// What Prometheus's own code says: `rules` of a file of rules, `queries` of a list of expressions, `firing` of alerts and series.
fn promql(what: &str, text: &Value) -> Result<String, String> {
    let program = root().join("target/kube-tools/promql");
    assert!(
        program.is_file(),
        "{} is missing: run `tests/tools/build.sh` (as `make test` does) to build it from source",
        program.display()
    );
    let mut command = Command::new(program);
    command.arg(what).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The rules as they come out of the chart.
fn rules(values: &str) -> Value {
    let objects = render(values, &[]).unwrap();
    objects.iter().find(|object| object["kind"] == "PrometheusRule").unwrap()["spec"].clone()
}

/// Expressions, durations, labels and the templates in annotations.
#[test]
fn prometheus_reads_the_rules() {
    let plain = rules("monitoring: {force: true, prometheusRule: {enabled: true}}");
    for mut spec in [plain.clone(), rules(include_str!("values/everything.yaml"))] {
        promql("rules", &spec).unwrap_or_else(|said| panic!("{said}"));
        // And it minds what is wrong.
        spec["groups"][0]["rules"][0]["annotations"]["summary"] = "{{ $labels.route }".into();
        assert!(promql("rules", &spec).unwrap_err().contains("FloodwayErrors"));
    }
}

/// Prometheus's own engine over made-up series: each alert fires when what it tells of has happened, and only then.
#[test]
fn alerts_fire_when_they_should() {
    let values = "monitoring: {force: true, prometheusRule: {enabled: true}}\nresources: {limits: {memory: 1000Mi}}";
    let spec = rules(values);
    let alerts = &spec["groups"][0]["rules"];
    let cases = documents(include_str!("alerts.yaml")).remove(0);
    let mut fired = BTreeSet::new();
    for case in cases.as_array().unwrap() {
        let what = case["what"].as_str().unwrap();
        // Series are of pods of the release, unless they say otherwise.
        let of_pods = case["series"].as_array().unwrap().iter().map(|line| match line.as_str().unwrap() {
            line if line.contains("namespace=") => line.to_owned(),
            line if line.contains("pod=") => line.replacen('{', "{namespace=\"edge\",", 1),
            line => line.replacen('{', "{namespace=\"edge\",pod=\"floodway-1\",", 1),
        });
        let series: Vec<String> = of_pods.collect();
        let said = promql("firing", &serde_json::json!({"alerts": alerts, "series": series}))
            .unwrap_or_else(|said| panic!("{what}: {said}"));
        let firing: Value = serde_json::from_str(&said).unwrap();
        // Without series of leaders there is none, which is what the others are not about.
        let of_leaders = series.iter().any(|line| line.starts_with("floodway_leader"));
        let of_interest = |alert: &&Value| alert["alert"] != "FloodwayNoLeader" || of_leaders;
        let found: Vec<&Value> = firing.as_array().unwrap().iter().filter(of_interest).collect();
        let expected: Vec<&Value> = case["fires"].as_array().unwrap().iter().collect();
        assert_eq!(found, expected, "{what}");
        fired.extend(found.iter().map(|alert| alert["alert"].to_string()));
    }
    assert_eq!(fired.len(), alerts.as_array().unwrap().len(), "only these have a case in alerts.yaml: {fired:?}");
}

/// The queries of the dashboard, with something in place of its variables, and the examples of docs/metrics.md.
#[test]
fn prometheus_reads_the_queries() {
    let dashboard: Value = serde_json::from_str(&chart("dashboards/floodway.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let mut queries: Vec<String> = targets
        .map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$__range", "1h"))
        .collect();
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    for row in page.lines().filter(|line| line.starts_with("| `floodway_") || line.starts_with("| `process_")) {
        let example = row.trim_end_matches([' ', '|', '`']).rsplit_once(": `");
        queries.extend(example.map(|(_, query)| query.replace("\\|", "|")));
    }
    assert!(queries.len() > 80, "{}", queries.len());
    promql("queries", &queries.into()).unwrap_or_else(|said| panic!("{said}"));
    assert!(promql("queries", &Value::from(vec!["sum by (route) (rate(floodway_requests_total[5m])"])).is_err());
}

/// Log, events, doctor and the first alert begin on the same day, and the pages say which.
#[test]
fn the_alert_comes_with_the_event() {
    let days = floodway::app::CERTIFICATE_EXPIRES_SOON / 86_400;
    let alerts = alerts();
    let alert = alerts.iter().find(|alert| alert["alert"] == "FloodwayCertificateExpiresSoon").unwrap();
    assert!(alert["expr"].as_str().unwrap().ends_with(&format!(" < {days} * 86400")), "{alert}");
    assert_eq!(days, 21, "the pages say three weeks");
    for (page, said) in [
        ("tls", "`FloodwayCertificateExpiresSoon`, three weeks before"),
        ("operations", "three weeks before, once a day"),
        ("install", "a certificate expires within 21 days"),
    ] {
        let text = fs::read_to_string(root().join(format!("docs/{page}.md"))).unwrap();
        assert!(text.contains(said), "docs/{page}.md does not say {said:?}");
    }
}

#[test]
fn the_dashboard_shows_what_there_is() {
    let dashboard: Value = serde_json::from_str(&chart("dashboards/floodway.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<&str> =
        panels.iter().filter(|panel| panel["type"] == "row").filter_map(|panel| panel["title"].as_str()).collect();
    let wanted =
        ["Traffic", "Errors by reason", "Latency and first byte", "Streams by kind", "Upstreams", "Rate limits", "TLS"];
    assert_eq!(rows[..7], wanted);
    assert_eq!(rows[7..], ["Configuration", "Process"]);

    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            check(expression, &format!("panel {title:?}"));
            assert!(expression.contains("$namespace") && expression.contains("$job"), "{title}: {expression}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables: Vec<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "namespace", "job", "route", "upstream"]);
    for variable in &dashboard["templating"]["list"].as_array().unwrap()[1..] {
        check(variable["query"]["query"].as_str().unwrap(), variable["name"].as_str().unwrap());
    }
}
