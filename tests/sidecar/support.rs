//! A pod: an app, its sidecar with objects from a folder, and clients that say where their connections were to go.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use floodway::app::{self, Running};
use floodway::args::{Args, Command, SidecarArgs};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Longer than anything takes; what takes longer is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Both ways in which an app's own connections come to the sidecar.
pub(crate) const MODES: [&str; 2] = ["--mode=local", "--mode=transparent"];

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never happened: {what}");
}

/// A sidecar.
pub(crate) struct Pod {
    pub(crate) running: Running,
    dir: tempfile::TempDir,
    /// Where connections were to go, by the client's port.
    meant: Arc<Mutex<HashMap<u16, SocketAddr>>>,
}

impl Pod {
    /// With these objects and flags; the namespace is `shop`.
    pub(crate) async fn start(objects: &str, more: &[&str]) -> Pod {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), objects);
        let args = args(dir.path(), more);
        let meant: Arc<Mutex<HashMap<u16, SocketAddr>>> = Arc::default();
        let asked = Arc::clone(&meant);
        let destination =
            Arc::new(move |stream: &TcpStream| asked.lock().unwrap().get(&stream.peer_addr().ok()?.port()).copied());
        let start = move || app::sidecar(&args, Some(destination));
        let running = tokio::task::spawn_blocking(start).await.unwrap().unwrap();
        Pod { running, dir, meant }
    }

    /// Other objects take the place of those that are there.
    pub(crate) fn write(&self, objects: &str) {
        write(self.dir.path(), objects);
    }

    pub(crate) fn inbound(&self) -> SocketAddr {
        self.running.inbound()[0]
    }

    pub(crate) fn outbound(&self) -> SocketAddr {
        self.running.outbound()[0]
    }

    /// A connection to a listener that was to go elsewhere.
    pub(crate) async fn redirected(&self, listener: SocketAddr, meant: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        self.meant.lock().unwrap().insert(socket.local_addr().unwrap().port(), meant);
        socket.connect(listener).await.unwrap()
    }

    /// A connection of the app to the Service `llm` of [`service`], in the way of this mode. Where nothing is redirected, requests
    /// have to name it.
    pub(crate) async fn to_service(&self, mode: &str) -> TcpStream {
        match mode {
            "--mode=local" => TcpStream::connect(self.outbound()).await.unwrap(),
            _ => self.redirected(self.outbound(), "10.96.0.1:80".parse().unwrap()).await,
        }
    }

    /// The answer of the admin port.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        get(TcpStream::connect(self.running.admin()).await.unwrap(), path, "admin", "").await
    }

    /// The value of a metric, the sum over all series whose labels contain all of these.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let fits = |line: &&str| {
            line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label))
        };
        text.lines().filter(fits).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    pub(crate) async fn metric_becomes(&self, name: &str, labels: &[&str], value: f64) {
        eventually(&format!("{name}{labels:?} = {value}"), async || self.metric(name, labels).await == value).await;
    }
}

fn write(dir: &Path, objects: &str) {
    std::fs::write(dir.join("next"), objects).unwrap();
    std::fs::rename(dir.join("next"), dir.join("objects.yaml")).unwrap();
}

fn args(dir: &Path, more: &[&str]) -> SidecarArgs {
    let dir = dir.to_str().unwrap();
    let fixed = [
        "floodway",
        "sidecar",
        "--dir",
        dir,
        "--namespace=shop",
        "--inbound=127.0.0.1:0",
        "--outbound=127.0.0.1:0",
        "--admin=127.0.0.1:0",
        "--access-log=off",
    ];
    match Args::try_parse_from(fixed.iter().chain(more)).unwrap().command {
        Command::Sidecar(args) => *args,
        other => panic!("{other:?}"),
    }
}

/// Status and content of the answer to a GET; the connection is closed after it.
pub(crate) async fn get(stream: TcpStream, path: &str, host: &str, fields: &str) -> (u16, String) {
    let answer =
        said(stream, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n")).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}

/// Everything that comes back for some bytes until the connection ends, however that is.
pub(crate) async fn said(mut stream: TcpStream, bytes: impl AsRef<[u8]>) -> String {
    let _ = stream.write_all(bytes.as_ref()).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
    };
    assert!(tokio::time::timeout(PATIENCE, reading).await.is_ok(), "the connection did not end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A server of HTTP/1.1 that answers with its name and the head that it got. `/events` is a stream of events that ends when the
/// client leaves, `/busy` gets a 503, and `/socket` becomes a WebSocket that sends back what it gets. While it is `sick`, all
/// gets a 503.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) sick: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Backend {
    pub(crate) async fn start(name: &'static str) -> Backend {
        Backend::at("127.0.0.1:0", name).await
    }

    /// At an address, in a network of the test's own.
    pub(crate) async fn at(address: &str, name: &'static str) -> Backend {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, asked, sick) = (Arc::clone(&connections), Arc::clone(&requests), Arc::<AtomicBool>::default());
        let unwell = Arc::clone(&sick);
        let task = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                all.spawn(serve(stream, name, Arc::clone(&asked), Arc::clone(&unwell)));
            }
        });
        Backend { address, connections, requests, sick, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Nobody listens any more.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn serve(
    mut stream: TcpStream,
    name: &'static str,
    requests: Arc<AtomicUsize>,
    sick: Arc<AtomicBool>,
) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        requests.fetch_add(1, Ordering::Relaxed);
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path == "/events" {
            let begin = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(begin.as_bytes()).await.ok()?;
            loop {
                stream.write_all(b"9\r\ndata: 1\n\n\r\n").await.ok()?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if path == "/socket" {
            let key = head.lines().find_map(|line| {
                line.to_ascii_lowercase().starts_with("sec-websocket-key:").then(|| line[18..].trim().to_owned())
            })?;
            let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            let begin = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(begin.as_bytes()).await.ok()?;
            let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
            let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(stream, role, None).await;
            while let Some(Ok(message)) = socket.next().await {
                socket.send(message).await.ok()?;
            }
            return None;
        }
        let status = if path == "/busy" || sick.load(Ordering::Relaxed) { "503 Busy" } else { "200 OK" };
        let body = format!("{name}\n{head}");
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// A server that answers whatever comes with it, and says `hello` first if it is to.
pub(crate) async fn echo(first: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(first.as_bytes()).await;
                let (mut reader, mut writer) = stream.split();
                // The end of what comes is the end of what goes.
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
    address
}

/// A Service `shop/NAME` on port 80 with the cluster IP 10.96.0.1, whose endpoints are these, and a ProxyUpstream that names it.
pub(crate) fn service(name: &str, endpoints: &[&Backend], upstream: &str) -> String {
    service_at(name, &endpoints.iter().map(|backend| backend.port()).collect::<Vec<_>>(), upstream)
}

/// The same, with endpoints on these ports of loopback.
pub(crate) fn service_at(name: &str, ports: &[u16], upstream: &str) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: 80}}]}}\n\
         ---\napiVersion: floodway.dev/v1alpha1\nkind: ProxyUpstream\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  targetRefs: [{{kind: Service, name: {name}}}]\n{upstream}"
    );
    for port in ports {
        text.push_str(&format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-{port}, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{{name: http, port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
        ));
    }
    text
}

/// `objects` whose Service has a cluster IP and port where somebody listens: who is passed on there arrives.
pub(crate) fn at_cluster_ip(objects: &str, meant: SocketAddr) -> String {
    objects
        .replace("10.96.0.1", &meant.ip().to_string())
        .replace("{name: http, port: 80}", &format!("{{name: http, port: {}}}", meant.port()))
}
