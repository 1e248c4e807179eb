//! What people see of our objects with kubectl: columns, short names, events, and words on every field. Columns are asked for as kubectl
//! does (the API server makes the table), and of kubectl itself.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::control_plane::{ADMIN, assets, shared};
use crate::gateway::{Gateway, Options};
use crate::objects::{apply, conditions, eventually, grant_lease, namespace};

/// The table of a kind: names of columns with their priorities, and the cells of the first row.
async fn table(client: &kube::Client, namespace: &str, plural: &str) -> (Vec<(String, i64)>, Vec<Value>) {
    let request = http::Request::get(format!("/apis/floodway.dev/v1alpha1/namespaces/{namespace}/{plural}"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table: Value = client.request(request.body(Vec::new()).unwrap()).await.unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap();
    let column = |it: &Value| (it["name"].as_str().unwrap().to_owned(), it["priority"].as_i64().unwrap());
    (columns.iter().map(column).collect(), table["rows"][0]["cells"].as_array().cloned().unwrap_or_default())
}

#[tokio::test]
async fn columns_say_what_there_is_and_whether_it_works() {
    let plane = shared().await;
    let client = plane.client(ADMIN).await;
    let namespace = namespace(&client).await;
    grant_lease(&client, &namespace).await;
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "floodway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let route = json!({
        "hosts": ["a.test", "b.test"], "tls": {"secretName": "www"},
        "rules": [
            {"backends": [{"service": {"name": "one", "port": 80}}, {"service": {"name": "two", "port": 80}}],
             "policies": [{"name": "inside"}]},
            {"matches": [{"path": {"type": "Prefix", "value": "/x"}}], "backends": [{"upstream": {"name": "partner"}}]},
        ],
    });
    apply(&client, Some(&namespace), &object("ProxyRoute", "shop", route)).await;
    let policy = json!({"ipAccess": {"allow": ["10.0.0.0/8"]}, "targetRefs": [{"kind": "ProxyRoute", "name": "shop"}]});
    apply(&client, Some(&namespace), &object("ProxyPolicy", "inside", policy)).await;
    let upstream = json!({"endpoints": [{"address": "192.0.2.7:80"}, {"address": "192.0.2.8:80"}]});
    apply(&client, Some(&namespace), &object("ProxyUpstream", "partner", upstream)).await;
    let options = Options { namespaces: &[&namespace], pod_namespace: &namespace, ..Options::default() };
    let _gateway = Gateway::ready(plane, options).await;
    eventually("conditions", async || conditions(&client, &namespace, "shop").await).await;

    let names = |columns: &[(String, i64)], priority: i64| -> Vec<String> {
        columns.iter().filter(|(_, of)| *of == priority).map(|(name, _)| name.clone()).collect()
    };
    let (columns, row) = table(&client, &namespace, "proxyroutes").await;
    assert_eq!(names(&columns, 0), ["Name", "Hosts", "Accepted", "Programmed", "Age"]);
    let wide = ["Resolved", "Reason", "Certificate", "Service", "Upstream", "Policy", "Class"];
    assert_eq!(names(&columns, 1), wide);
    let cell = |columns: &[(String, i64)], row: &[Value], name: &str| {
        let at = columns.iter().position(|(column, _)| column == name).unwrap();
        row[at].as_str().unwrap_or_default().to_owned()
    };
    for (column, value) in [
        ("Hosts", r#"["a.test","b.test"]"#),
        ("Accepted", "True"),
        ("Resolved", "False"),
        ("Certificate", "www"),
        ("Service", "one"),
        ("Upstream", "partner"),
        ("Policy", "inside"),
    ] {
        assert_eq!(cell(&columns, &row, column), value, "{column}");
    }
    let (columns, row) = table(&client, &namespace, "proxypolicies").await;
    assert_eq!(names(&columns, 0), ["Name", "Target", "Accepted", "Programmed", "Age"]);
    assert_eq!(cell(&columns, &row, "Target"), "shop");
    let (columns, row) = table(&client, &namespace, "proxyupstreams").await;
    assert_eq!(names(&columns, 0), ["Name", "Service", "Accepted", "Programmed", "Healthy", "Age"]);
    assert_eq!(names(&columns, 1), ["Health", "Endpoint", "Hostname", "Reason"]);
    assert_eq!(cell(&columns, &row, "Endpoint"), "192.0.2.7:80");

    // With kubectl itself, by short names and by the category.
    let kubeconfig = plane.kubeconfig(ADMIN);
    let run = |arguments: &[&str]| -> String {
        let mut command = Command::new(kubectl());
        command.arg("--kubeconfig").arg(&kubeconfig).args(["--namespace", &namespace]).args(arguments);
        // What it remembers of an API server is of no use to the next one.
        let Output { status, stdout, stderr } = command.env("KUBECACHEDIR", plane.path("kubectl")).output().unwrap();
        assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    };
    let said = run(&["get", "floodway", "-o", "name"]);
    for name in
        ["proxyroute.floodway.dev/shop", "proxypolicy.floodway.dev/inside", "proxyupstream.floodway.dev/partner"]
    {
        assert!(said.contains(name), "{said}");
    }
    let heads = |text: &str| text.lines().next().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let said = run(&["get", "proute"]);
    assert_eq!(heads(&said), ["NAME", "HOSTS", "ACCEPTED", "PROGRAMMED", "AGE"]);
    assert!(said.lines().nth(1).unwrap().starts_with("shop "), "{said}");
    for short in ["proute", "pup", "ppolicy"] {
        let said = run(&["get", short, "-o", "wide"]);
        assert!(said.contains("REASON"), "{said}");
    }
    for path in ["proxyroute.spec.rules.streaming.sse.heartbeat", "pup.spec.circuitBreaker", "ppolicy.spec.jwt.issuers"]
    {
        let explained = run(&["explain", path]);
        assert!(explained.contains("DESCRIPTION") && !explained.contains("<empty>"), "{explained}");
    }
    assert!(run(&["explain", "proxyroute.spec.rules", "--recursive"]).contains("heartbeat"));

    // Of what is wrong, an event tells, too.
    let told = eventually("an event", async || {
        let said = run(&["events", "--for", "proxyroute/shop"]);
        said.contains("Warning").then_some(said)
    })
    .await;
    assert!(told.contains("proxyroute/shop") || told.contains("ProxyRoute/shop"), "{told}");
    let described = run(&["describe", "proute", "shop"]);
    let events = described.split("Events:").nth(1).unwrap_or_else(|| panic!("{described}"));
    assert!(events.contains("Warning") && events.contains("floodway"), "{described}");
    assert!(described.contains("does not exist"), "{described}");
}

/// The program, beside etcd and kube-apiserver.
fn kubectl() -> std::path::PathBuf {
    let program = assets().join("kubectl");
    assert!(
        program.is_file(),
        "{} is missing: run `tests/tools/build.sh` (as `make test` does) to build it from source",
        program.display()
    );
    program
}
