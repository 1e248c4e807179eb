//! The watches against an API server that does what a real one does rarely: it forgets, fails and lies.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

use super::*;
use crate::telemetry::Telemetry;

/// An API server that holds ProxyRoutes only.
#[derive(Clone)]
struct Server {
    routes: Arc<Mutex<Vec<Value>>>,
    /// The minor version that it has.
    minor: Arc<Mutex<u32>>,
    /// Lists are answered with this status.
    status: Arc<Mutex<u16>>,
    /// What watches of ProxyRoutes are sent; nothing ends them.
    events: broadcast::Sender<Option<Value>>,
}

impl Server {
    async fn start() -> (Server, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server {
            routes: Arc::default(),
            minor: Arc::new(Mutex::new(33)),
            status: Arc::new(Mutex::new(200)),
            events: broadcast::channel(16).0,
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
        config.default_retry = false;
        (server, Client::try_from(config).unwrap())
    }

    /// One request per connection.
    async fn serve(self, mut stream: TcpStream) -> Option<()> {
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader).lines();
        let target = lines.next_line().await.ok()??;
        while !lines.next_line().await.ok()??.is_empty() {}
        let mut events = self.events.subscribe();
        let routes = target.contains("/proxyroutes?");
        let (status, body) = match *self.status.lock().unwrap() {
            200 if target.contains("/version") => {
                let minor = *self.minor.lock().unwrap();
                let empty = ["gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
                let mut info = json!({"major": "1", "minor": minor.to_string(), "gitVersion": format!("v1.{minor}.0")});
                empty.iter().for_each(|field| info[field] = json!(""));
                (200, info.to_string())
            }
            200 if target.contains("watch=true") => (200, String::new()),
            200 => {
                let items = if routes { self.routes.lock().unwrap().clone() } else { Vec::new() };
                let list =
                    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
                (200, list.to_string())
            }
            status => (status, json!({"kind": "Status", "code": status, "message": "no", "reason": "No"}).to_string()),
        };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{body}");
        writer.write_all(head.as_bytes()).await.ok()?;
        if status != 200 || !target.contains("watch=true") {
            return None;
        }
        loop {
            let event = events.recv().await.ok()??;
            if routes {
                writer.write_all(format!("{event}\n").as_bytes()).await.ok()?;
            }
        }
    }

    fn list(&self, names: &[&str]) {
        *self.routes.lock().unwrap() = names.iter().map(|name| route(name)).collect();
    }
}

fn route(name: &str) -> Value {
    json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute",
        "metadata": {"name": name, "namespace": "ns", "resourceVersion": "1"},
        "spec": {"rules": [{"respond": {"status": 200}}]},
    })
}

struct Watched {
    server: Server,
    store: Store,
    ready: Ready,
    telemetry: Telemetry,
    synced: oneshot::Receiver<()>,
}

async fn watched(names: &[&str], status: u16) -> Watched {
    let (server, client) = Server::start().await;
    server.list(names);
    *server.status.lock().unwrap() = status;
    let (store, ready, telemetry) = (Store::default(), Ready::default(), Telemetry::default());
    let (sender, synced) = oneshot::channel();
    let watches = Watches {
        watcher: Watcher::Gateway,
        namespaces: Vec::new(),
        policies: Some(Vec::new()),
        secrets: Some(Vec::new()),
        store: store.clone(),
        ready: ready.clone(),
        metrics: telemetry.metrics().clone(),
        seen: Arc::new(|_, _, _| {}),
    };
    tokio::spawn(run(client, watches, sender));
    Watched { server, store, ready, telemetry, synced }
}

impl Watched {
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok();
        assert!(in_time, "{what}: {:?} {:?}", self.names(), self.ready.reasons());
    }

    fn names(&self) -> Vec<String> {
        self.store.read(|resources| {
            let names: std::collections::BTreeSet<_> =
                resources.routes.keys().map(|key| key.name.to_string()).collect();
            names.into_iter().collect()
        })
    }

    fn metric(&self, name: &str) -> String {
        let series = format!("{name}{{source=\"ProxyRoute\"}} ");
        let text = self.telemetry.metrics().text();
        text.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn a_watch_that_is_gone_begins_with_a_new_list() {
    let mut watched = watched(&["a", "b"], 200).await;
    (&mut watched.synced).await.unwrap();
    assert_eq!((watched.names(), watched.ready.reasons()), (vec!["a".to_owned(), "b".to_owned()], Vec::new()));
    // The watch may be a moment behind the list.
    watched
        .until("an event", |watched| {
            let _ = watched.server.events.send(Some(json!({"type": "ADDED", "object": route("c")})));
            watched.names().len() == 3
        })
        .await;

    watched.server.list(&["b", "d"]);
    let gone = json!({"kind": "Status", "code": 410, "message": "too old resource version", "reason": "Expired"});
    watched.server.events.send(Some(json!({"type": "ERROR", "object": gone}))).unwrap();
    watched.until("a new list", |watched| watched.names() == ["b", "d"]).await;
    watched.until("a metric", |watched| watched.metric("floodway_source_relists_total") == "2").await;
    assert_eq!(watched.metric("floodway_source_errors_total"), "1");
    assert_eq!(watched.metric("floodway_source_connected"), "1");
    assert!(watched.metric("floodway_source_last_event_timestamp_seconds").parse::<f64>().unwrap() > 1.7e9);
}

#[tokio::test]
async fn a_server_that_fails_keeps_the_last_good_objects_in_force() {
    let mut watched = watched(&["a"], 200).await;
    (&mut watched.synced).await.unwrap();
    watched.server.list(&[]);
    *watched.server.status.lock().unwrap() = 503;
    watched
        .until("the loss", |watched| {
            // Ends the watches; a new one is refused.
            let _ = watched.server.events.send(None);
            watched.metric("floodway_source_connected") == "0"
        })
        .await;
    assert_eq!(watched.names(), ["a"]);
    assert!(watched.ready.reasons().is_empty(), "what was read is served");
    *watched.server.status.lock().unwrap() = 200;
    watched.until("a new list", |watched| watched.names().is_empty()).await;
}

#[tokio::test]
async fn nothing_counts_as_read_before_every_kind_was_listed() {
    let mut watched = watched(&["a"], 401).await;
    watched
        .until("reasons", |watched| {
            let reasons = watched.ready.reasons();
            reasons.len() == 7 && reasons.iter().all(|reason| reason.contains("does not accept our credentials"))
        })
        .await;
    assert!(watched.synced.try_recv().is_err());
    *watched.server.status.lock().unwrap() = 200;
    watched.until("readiness", |watched| watched.ready.reasons().is_empty()).await;
    (&mut watched.synced).await.unwrap();
    assert_eq!(watched.names(), ["a"]);
}

#[tokio::test]
async fn an_api_server_that_is_too_old_is_refused_in_a_sentence_and_one_that_was_upgraded_is_not() {
    let (server, client) = Server::start().await;
    *server.minor.lock().unwrap() = 29;
    let ready = Ready::default();
    let told = ready.clone();
    let waiting = tokio::spawn(async move { version::wait(&client, &told).await });
    let begin = "another API server: Floodway needs Kubernetes 1.30 or later, and the API server is v1.29.0: ";
    let reasons = async || {
        let mut reasons = ready.reasons();
        while reasons.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            reasons = ready.reasons();
        }
        reasons
    };
    let reasons = tokio::time::timeout(Duration::from_secs(20), reasons()).await.unwrap();
    assert!(reasons.len() == 1 && reasons[0].starts_with(begin), "{reasons:?}");
    assert!(!waiting.is_finished());
    *server.minor.lock().unwrap() = 30;
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    assert!(ready.reasons().is_empty());
}
