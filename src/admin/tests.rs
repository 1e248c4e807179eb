#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;
use crate::resilience::Outcome;
use crate::snapshot::{self, Cluster, ClusterName, Connections, Endpoint, Limits, Publisher, Resilience, Snapshot};
use crate::telemetry::log;

struct Admin {
    address: SocketAddr,
    state: AdminState,
    publisher: Publisher,
}

async fn admin(log: Option<Control>) -> Admin {
    admin_that(log, true).await
}

async fn admin_that(log: Option<Control>, writable: bool) -> Admin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (publisher, reader) = snapshot::channel();
    let state = AdminState {
        telemetry: Telemetry::default(),
        ready: Ready::default(),
        live: Live::default(),
        tables: vec![Table { name: None, snapshot: reader, registry: Registry::default() }],
        probes: Probes::default(),
        log,
        writable,
    };
    tokio::spawn(serve(listener, state.clone()));
    Admin { address, state, publisher }
}

struct Reply {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Admin {
    async fn ask(&self, method: &str, target: &str) -> Reply {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        let bytes = self.raw(request.as_bytes()).await;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Reply { status, headers, body: body.to_owned() }
    }

    async fn get(&self, target: &str) -> Reply {
        self.ask("GET", target).await
    }

    async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut bytes = Vec::new();
        // A refused request may end in a reset; what came before it counts.
        let _ = stream.read_to_end(&mut bytes).await;
        bytes
    }
}

#[tokio::test]
async fn readyz_tells_what_is_waited_for() {
    let admin = admin(None).await;
    let routes = admin.state.ready.block("first list of ProxyRoutes");
    let services = admin.state.ready.block("first list of Services");
    let reply = admin.get("/readyz").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.body, "waiting for first list of ProxyRoutes\nwaiting for first list of Services\n");
    drop((routes, services));
    let reply = admin.get("/readyz").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn livez_names_a_stuck_loop() {
    let admin = admin(None).await;
    let pulse = admin.state.live.pulse("worker 3");
    assert_eq!(admin.get("/livez").await.status, 200);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::resume();
    let reply = admin.get("/livez").await;
    assert_eq!((reply.status, reply.body.as_str()), (503, "stuck: worker 3\n"));
    pulse.beat();
    assert_eq!(admin.get("/livez").await.status, 200);
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let admin = admin(None).await;
    admin.state.telemetry.recorder().upstream_connect("shop/llm:8080", true);
    let reply = admin.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE floodway_upstream_connects_total counter",
        r#"floodway_upstream_connects_total{result="success",upstream="shop/llm:8080"} 1"#,
        &format!("floodway_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(reply.body.lines().any(|found| found == line), "{line}\n{}", reply.body);
    }
    assert!(reply.body.contains("\nprocess_resident_memory_bytes "), "{}", reply.body);
}

#[tokio::test]
async fn the_table_in_force_is_dumped() {
    let admin = admin(None).await;
    let reply = admin.get("/config_dump").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "null"));
    assert_eq!(reply.headers["content-type"], "application/json");
    admin.publisher.publish(Snapshot::default());
    let shown: serde_json::Value = serde_json::from_str(&admin.get("/config_dump").await.body).unwrap();
    assert!(shown.get("router").is_some() && shown.get("clusters").is_some(), "{shown}");
}

#[tokio::test]
async fn what_is_known_of_endpoints_is_shown() {
    let admin = admin(None).await;
    let shown = async || serde_json::from_str::<Value>(&admin.get("/upstreams").await.body).unwrap();
    assert_eq!(shown().await, json!({"upstreams": []}));
    let limits = Limits { requests: Some(7), retries: Some(5), ..Limits::NONE };
    let cluster = |ports: &[u16]| {
        Arc::new(Cluster {
            name: ClusterName::new("shop/llm:80"),
            protocol: Default::default(),
            connections: Connections {
                connect_timeout: Duration::from_secs(1),
                idle_timeout: Duration::from_secs(1),
                max_idle_per_endpoint: 1,
                max_requests: None,
                tcp_keep_alive: None,
                upkeep: Default::default(),
                proxy_protocol: None,
                tls: None,
            }
            .into(),
            resilience: Arc::new(Resilience { limits: Some(limits.clone()), ..Resilience::default() }),
            endpoints: ports.iter().map(|port| Endpoint::new(([127, 0, 0, 1], *port).into())).collect(),
            move_after: None,
        })
    };
    let publish = |cluster: &Arc<Cluster>| {
        let clusters = [(cluster.name.clone(), Arc::clone(cluster))].into_iter().collect();
        admin.publisher.publish(Snapshot { clusters, ..Snapshot::default() });
    };
    publish(&cluster(&[1, 2]));
    let fresh = |port| json!({"address": format!("127.0.0.1:{port}"), "available": true, "health": "unchecked", "outstanding": 0, "weight": 1});
    let before = json!({"upstreams": [{"name": "shop/llm:80", "available": 2, "endpoints": [fresh(1), fresh(2)]}]});
    assert_eq!(shown().await, before, "before any request");

    let states = admin.state.tables[0].registry.of(&cluster(&[1, 2]), clock::now());
    let now = clock::now();
    states[0].report(Outcome::Unreachable, now);
    states[1].report(Outcome::Answered { status: 200, first_byte: Duration::from_micros(1500) }, now);
    states[1].enter();
    let mut now = shown().await["upstreams"][0].take();
    let remaining = now["endpoints"][0]["ejected"]["remainingMs"].take().as_u64().unwrap();
    assert!((1..=1000).contains(&remaining), "{remaining}");
    assert_eq!(now["available"], 1);
    let limits = json!({"requests": {"active": 0, "most": 7, "pending": 0}, "retries": {"active": 0, "most": 5}});
    assert_eq!(now["limits"], limits);
    assert_eq!(now["endpoints"][0]["ejected"], json!({"why": "refused", "times": 1, "remainingMs": null}));
    assert_eq!((&now["endpoints"][1]["firstByteMs"], &now["endpoints"][1]["outstanding"]), (&json!(1.5), &json!(1)));

    // Who is gone is shown while it has streams.
    publish(&cluster(&[1]));
    admin.state.tables[0].registry.of(&cluster(&[1]), clock::now());
    assert_eq!(shown().await["upstreams"][0]["endpoints"][1]["gone"], true);
    states[1].leave();
    assert_eq!(shown().await["upstreams"][0]["endpoints"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_log_level_changes_at_run_time() {
    let (subscriber, control) = log::subscriber(log::Format::Text, "warn".parse().unwrap());
    let admin = admin(Some(control)).await;
    assert_eq!(admin.get("/log").await.body, "warn\n");
    let reply = admin.ask("PUT", "/log?level=info%2Cfloodway::proxy=debug").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "floodway::proxy=debug,info\n"));
    let reply = admin.ask("PUT", "/log?level=debgu").await;
    assert!(reply.status == 400 && reply.body.contains("\"debgu\" is not a log level"), "{}", reply.body);
    assert_eq!(admin.ask("PUT", "/log").await.status, 400);
    assert_eq!(admin.ask("POST", "/log?level=info").await.headers["allow"], "GET, HEAD, PUT");
    assert_eq!(admin.get("/log").await.body, "floodway::proxy=debug,info\n");
    drop(subscriber);
}

#[tokio::test]
async fn other_methods_and_paths_are_refused_helpfully() {
    let admin = admin(None).await;
    for path in ["/", "/livez", "/readyz", "/metrics", "/config_dump", "/upstreams"] {
        let reply = admin.ask("POST", path).await;
        assert_eq!((reply.status, reply.headers["allow"].as_str()), (405, "GET, HEAD"), "{path}");
        let head = admin.ask("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    for path in ["/nothing", "/metrics/", "//", "/%2e%2e/etc/passwd"] {
        let reply = admin.get(path).await;
        assert!(reply.status == 404 && reply.body.contains("/config_dump"), "{path}: {}", reply.body);
    }
    assert!(admin.get("/").await.body.contains("/readyz"));
    assert_eq!(admin.get("/log").await.status, 501);
}

#[tokio::test]
async fn nonsense_harms_nobody() {
    let admin = admin(None).await;
    let long = [b"GET /".as_slice(), &[b'a'; 64 * 1024]].concat();
    for request in [b"\0\0\0\0\r\n\r\n".as_slice(), b"GET\r\n\r\n", &long, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let reply = admin.raw(request).await;
        assert!(!reply.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(admin.get("/livez").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_nothing_is_cut() {
    let admin = admin(None).await;
    for sent in [b"".as_slice(), b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n"] {
        let start = Instant::now();
        admin.raw(sent).await;
        assert!(start.elapsed() <= HEAD_TIMEOUT * 2, "{:?}: {:?}", sent, start.elapsed());
    }
}

#[tokio::test]
async fn without_leave_nothing_is_changed() {
    let (_subscriber, control) = log::subscriber(log::Format::Text, "info".parse().unwrap());
    let admin = admin_that(Some(control.clone()), false).await;
    let reply = admin.ask("PUT", "/log?level=debug").await;
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("listeners.adminWritable: true"), "{}", reply.body);
    assert_eq!(admin.get("/log").await.body, "info\n");
    assert_eq!(control.current(), "info");
}
