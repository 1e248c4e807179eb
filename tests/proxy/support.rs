//! A data plane on loopback with routes of the test's choosing, backends that do what the test says, and raw clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::drain::{self, DrainTrigger};
use floodway::proxy::{self, Config, Proxy};
use floodway::ready::Live;
use floodway::settings::Settings;
use floodway::snapshot::{
    Action, Backend, Cluster, ClusterName, Connections, Endpoint, Forward, HeaderEdits, HostPattern, PathMatch,
    Protocol, Publisher, Rewrite, Route, RouteMatch, RouteName, Router, Snapshot, Timeouts, VirtualHost,
};
use floodway::telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A running data plane. Cut down when dropped.
pub struct Plane {
    pub address: SocketAddr,
    pub publisher: Publisher,
    pub telemetry: Telemetry,
    pub drain: DrainTrigger,
    proxy: Option<Proxy>,
}

impl Plane {
    /// Serves `snapshot` with default settings.
    pub fn start(snapshot: Snapshot) -> Plane {
        Plane::with(snapshot, |_| {})
    }

    /// Serves `snapshot` with settings of the test's choosing.
    pub fn with(snapshot: Snapshot, change: impl FnOnce(&mut Settings)) -> Plane {
        let mut settings = Settings::default();
        settings.listeners.http = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        change(&mut settings);
        let (publisher, reader) = floodway::snapshot::channel();
        publisher.publish(snapshot);
        let (trigger, watcher) = drain::channel();
        let telemetry = Telemetry::default();
        let config = Config { settings: Arc::new(settings), workers: 2, live: Live::default() };
        let proxy = proxy::start(config, reader, &telemetry, watcher).unwrap();
        Plane { address: proxy.addresses()[0], publisher, telemetry, drain: trigger, proxy: Some(proxy) }
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

    /// Everything until the other side closes; a reset is an end, too.
    pub async fn to_end(&mut self) -> String {
        let mut all = Vec::new();
        let _ = within(self.0.read_to_end(&mut all)).await;
        String::from_utf8_lossy(&all).into_owned()
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
}

/// Fails the test instead of hanging it.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("nothing happened for 20 seconds")
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

/// A backend that answers each request without content with the head that it got, as text.
pub async fn mirror() -> SocketAddr {
    backend(|mut client| async move {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match client.0.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
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
        },
        endpoints: endpoints.iter().map(|&address| Endpoint { address, weight: 1 }).collect(),
    }
}

/// Timeouts that no test reaches by accident.
pub fn timeouts() -> Timeouts {
    Timeouts { connect: None, response_head: Duration::from_secs(60), idle: Duration::from_secs(60), request: None }
}

/// A route that sends everything under `prefix` (`""` for all) to the cluster named `cluster`.
pub fn forward(prefix: &str, cluster: &str) -> Route {
    route(
        prefix,
        Action::Forward(Forward {
            backends: vec![Backend { weight: 1, cluster: Ok(ClusterName::new(cluster)) }],
            rewrite: Rewrite::default(),
            timeouts: timeouts(),
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
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        action,
    }
}

/// A snapshot with these routes for every host.
pub fn snapshot(routes: Vec<Route>, clusters: Vec<Cluster>) -> Snapshot {
    let routes: Vec<Arc<Route>> = routes.into_iter().map(Arc::new).collect();
    Snapshot {
        router: Router::build([(HostPattern::Any, Arc::new(VirtualHost::build(routes)))]),
        clusters: clusters.into_iter().map(|cluster| (cluster.name.clone(), Arc::new(cluster))).collect(),
    }
}

/// A snapshot that sends everything to `endpoint`, spoken to in HTTP/1.1.
pub fn to(endpoint: SocketAddr) -> Snapshot {
    snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http1, &[endpoint])])
}
