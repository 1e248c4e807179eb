//! A data plane on loopback with routes of the test's choosing, backends that do what the test says, and raw clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::clock;
use floodway::drain::{self, DrainTrigger};
use floodway::health;
use floodway::proxy::{self, Config, Proxy};
use floodway::ready::Live;
use floodway::resilience::Registry;
use floodway::settings::Settings;
use floodway::snapshot::{
    Action, Backend, Cluster, ClusterName, Connections, Endpoint, Forward, HostPattern, PathMatch, Protocol, Publisher,
    Route, RouteMatch, RouteName, Router, Snapshot, Timeouts, VirtualHost,
};
use floodway::telemetry::{AccessLog, Telemetry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A running data plane. Cut down when dropped.
pub struct Plane {
    pub address: SocketAddr,
    /// Where TLS is spoken, if anywhere.
    pub secure: SocketAddr,
    pub publisher: Publisher,
    pub telemetry: Telemetry,
    pub drain: DrainTrigger,
    pub registry: Registry,
    proxy: Option<Proxy>,
    log: tempfile::NamedTempFile,
}

impl Plane {
    /// Serves `snapshot` with default settings.
    pub fn start(snapshot: Snapshot) -> Plane {
        Plane::with(snapshot, |_| {})
    }

    /// Serves `snapshot` with settings of the test's choosing.
    pub fn with(snapshot: Snapshot, change: impl FnOnce(&mut Settings)) -> Plane {
        Plane::with_workers(2, snapshot, change)
    }

    /// The same with as many workers as the test wants.
    pub fn with_workers(workers: usize, snapshot: Snapshot, change: impl FnOnce(&mut Settings)) -> Plane {
        let mut settings = Settings::default();
        settings.listeners.http = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        change(&mut settings);
        let (publisher, reader) = floodway::snapshot::channel();
        publisher.publish(snapshot);
        let (trigger, watcher) = drain::channel();
        let log = tempfile::NamedTempFile::new().unwrap();
        let telemetry = Telemetry::new(&AccessLog::File(log.path().to_owned())).unwrap();
        let registry = Registry::default();
        // What the program's vigil does for what time brings.
        let swept = registry.clone();
        tokio::spawn(async move {
            loop {
                swept.sweep(clock::now());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        tokio::spawn(health::run(reader.clone(), registry.clone(), telemetry.metrics().clone()));
        let (settings, live) = (Arc::new(settings), Live::default());
        let config = Config { settings, workers, live, registry: registry.clone() };
        let proxy = proxy::start(config, reader, &telemetry, watcher).unwrap();
        let address = proxy.addresses()[0];
        let secure = proxy.secure_addresses().first().copied().unwrap_or(address);
        Plane { address, secure, publisher, telemetry, drain: trigger, registry, proxy: Some(proxy), log }
    }

    /// A raw client.
    pub async fn connect(&self) -> Raw {
        Raw(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends `request` and returns everything until the connection closes. The request must ask for that.
    pub async fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.send(request).await;
        client.to_end().await
    }

    /// The lines of the access log of exchanges for `path`, once there are `count` of them.
    pub async fn logged_times(&self, path: &str, count: usize) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        let complete = || {
            let text = std::fs::read_to_string(self.log.path()).unwrap();
            // The last line may still be being written.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            lines = whole.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
            lines.retain(|line| line["path"] == path);
            lines.len() >= count
        };
        eventually(&format!("{count} log lines for {path}"), complete).await;
        lines
    }

    /// The only line of the access log for `path`, once it is there.
    pub async fn logged(&self, path: &str) -> serde_json::Value {
        let mut lines = self.logged_times(path, 1).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    /// The value of a metric, the sum over all label values that contain `labels`; 0 if there is none.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.telemetry.metrics().text();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(labels));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Waits until a metric has a value.
    pub async fn metric_becomes(&self, name: &str, labels: &str, value: f64) {
        let what = format!("{name}{{{labels}}} = {value}");
        eventually(&what, || self.metric(name, labels) == value).await;
    }

    /// Requests in flight to endpoints.
    pub fn in_flight(&self) -> u64 {
        self.proxy.as_ref().unwrap().in_flight()
    }

    /// Waits until the workers have ended.
    pub async fn ended(mut self) {
        self.proxy.take().unwrap().ended().await;
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.drain.begin(Duration::ZERO);
    }
}

/// A client that writes and reads bytes.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The same to somebody who may not want all of it.
    pub async fn send_all(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.0.write_all(bytes.as_ref()).await
    }

    /// Everything until the other side closes; a reset is an end, too.
    pub async fn to_end(&mut self) -> String {
        let mut all = Vec::new();
        let _ = within(self.0.read_to_end(&mut all)).await;
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Everything until the other side closes, and how it did.
    pub async fn rest(&mut self) -> Ending {
        let mut bytes = Vec::new();
        let reset = within(self.0.read_to_end(&mut bytes)).await.is_err();
        Ending { bytes, reset }
    }

    /// Everything up to and with `end`.
    pub async fn until(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        while !all.ends_with(end.as_bytes()) {
            match within(self.0.read_u8()).await {
                Ok(byte) => all.push(byte),
                Err(error) => panic!("{error} before {end:?}, after {:?}", String::from_utf8_lossy(&all)),
            }
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    /// A head, with its empty line.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// A head, or `None` if the other side closes instead of sending one.
    pub async fn request(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.ok()?);
        }
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    /// Waits until the other side has closed, reading nothing more; whether it was a reset.
    pub async fn closed(&mut self) -> bool {
        let mut rest = [0; 1024];
        match within(self.0.read(&mut rest)).await {
            Ok(0) => false,
            Ok(read) => panic!("not closed: {:?}", String::from_utf8_lossy(&rest[..read])),
            Err(_) => true,
        }
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.0.set_zero_linger().unwrap();
    }
}

/// Writes until nothing more is taken for a while; how much was.
pub async fn fill(writer: &mut Raw) -> usize {
    let piece = vec![b'x'; 64 * 1024];
    let mut written = 0;
    let patience = Duration::from_millis(500);
    while let Ok(more) = tokio::time::timeout(patience, writer.0.write(&piece)).await {
        written += more.unwrap();
    }
    written
}

/// How a connection ended.
pub struct Ending {
    pub bytes: Vec<u8>,
    pub reset: bool,
}

/// How long something may take that has to happen. Far more than it takes, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{PATIENCE:?} without {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Fails the test instead of hanging it.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("nothing happened for {PATIENCE:?}"))
}

/// A backend that runs `serve` for every connection; ends with the test's runtime.
pub async fn backend<F>(serve: impl Fn(Raw) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(Raw(stream)));
        }
    });
    address
}

/// An endpoint that refuses connections: its port is taken, until the tests end, so that no other test gets it, and
/// nobody listens on it.
pub fn refusing() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// An endpoint whose connections the test itself plays.
pub async fn played() -> (SocketAddr, Arrivals) {
    let (sender, arrivals) = mpsc::channel(1024);
    let address = backend(move |connection| {
        let _ = sender.try_send(connection);
        async {}
    });
    (address.await, Arrivals(arrivals))
}

/// Connections as they come in.
pub struct Arrivals(mpsc::Receiver<Raw>);

impl Arrivals {
    /// The next connection.
    pub async fn next(&mut self) -> Raw {
        within(self.0.recv()).await.unwrap()
    }

    /// The next connection, and the head that came on it.
    pub async fn request(&mut self) -> (Raw, String) {
        let mut endpoint = self.next().await;
        let head = endpoint.head().await;
        (endpoint, head)
    }

    /// The next head, on the connection that was kept or on a new one.
    pub async fn request_on(&mut self, kept: Option<Raw>) -> (Raw, String) {
        let Some(mut kept) = kept else { return self.request().await };
        let next = async {
            tokio::select! {
                Some(head) = kept.request() => Ok(head),
                arrived = self.0.recv() => Err(arrived.unwrap()),
            }
        };
        match within(next).await {
            Ok(head) => (kept, head),
            Err(mut endpoint) => {
                let head = endpoint.head().await;
                (endpoint, head)
            }
        }
    }
}

/// A backend that answers each request without content with the head that it got, as text.
pub async fn mirror() -> SocketAddr {
    backend(|mut client| async move {
        while let Some(head) = client.request().await {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
            client.send(answer).await;
            client.send(head).await;
        }
    })
    .await
}

/// A cluster named `name` with these endpoints.
pub fn cluster(name: &str, protocol: Protocol, endpoints: &[SocketAddr]) -> Cluster {
    Cluster {
        name: ClusterName::new(name),
        protocol,
        connections: Connections {
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            max_idle_per_endpoint: 100,
            max_requests: None,
            tcp_keep_alive: None,
            upkeep: Default::default(),
            proxy_protocol: None,
            tls: None,
        }
        .into(),
        endpoints: endpoints.iter().map(|&address| Endpoint::new(address)).collect(),
        move_after: None,
        resilience: Arc::default(),
    }
}

/// Timeouts that no test reaches by accident.
pub fn timeouts() -> Timeouts {
    Timeouts {
        connect: None,
        response_head: Duration::from_secs(60),
        first_byte: None,
        idle: Duration::from_secs(60),
        stall: Duration::from_secs(60),
        request: None,
    }
}

/// A route that sends everything under `prefix` (`""` for all) to the cluster named `cluster`.
pub fn forward(prefix: &str, cluster: &str) -> Route {
    route(
        prefix,
        Action::Forward(Forward {
            backends: vec![Backend { weight: 1, cluster: Ok(ClusterName::new(cluster)), policy: None }],
            rewrite: None,
            timeouts: timeouts().into(),
            retry: None,
            streaming: None,
        }),
    )
}

/// A route that does `action` with everything under `prefix`.
pub fn route(prefix: &str, action: Action) -> Route {
    Route {
        name: RouteName { object: "test/route".into(), rule: prefix.into() },
        matches: vec![RouteMatch {
            path: PathMatch::Prefix(prefix.into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }],
        request_headers: None,
        response_headers: None,
        transport: None,
        policy: None,
        action,
    }
}

/// A snapshot with these routes for every host.
pub fn snapshot(routes: Vec<Route>, clusters: Vec<Cluster>) -> Snapshot {
    let routes: Vec<Arc<Route>> = routes.into_iter().map(Arc::new).collect();
    Snapshot {
        router: Router::build([(HostPattern::Any, Arc::new(VirtualHost::build(routes)))]),
        clusters: clusters.into_iter().map(|cluster| (cluster.name.clone(), Arc::new(cluster))).collect(),
        ..Snapshot::default()
    }
}

/// A snapshot that sends everything to `endpoint`, spoken to in HTTP/1.1.
pub fn to(endpoint: SocketAddr) -> Snapshot {
    snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http1, &[endpoint])])
}

/// The head of an event stream.
pub const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// An event stream that has told one event.
pub async fn event_stream(plane: &Plane, arrivals: &mut Arrivals) -> (Raw, Raw) {
    let mut client = plane.connect().await;
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut endpoint, _) = arrivals.request().await;
    endpoint.send(EVENTS).await;
    tell(&mut endpoint, &mut client).await;
    (client, endpoint)
}

/// Lets the endpoint tell an event that the client hears.
pub async fn tell(endpoint: &mut Raw, client: &mut Raw) {
    endpoint.send("9\r\ndata: x\n\n\r\n").await;
    assert!(client.until("\n\n\r\n").await.ends_with("9\r\ndata: x\n\n\r\n"));
}
