//! Nothing is cut by change: streams of every kind stay open, and new requests are answered, while the table is replaced a
//! thousand times. `make soak` runs the same for longer, with more of everything.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use floodway::snapshot::{Action, Backend, Cluster, ClusterName, HeaderEdits, Protocol, Route, Snapshot};
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tokio::task::JoinHandle;

use super::clients::*;
use super::endpoints::nothing_is_left;
use super::scale::{Scale, room_for};
use super::support::*;
use super::uncut_clients::*;

/// Between two events, messages or calls of one stream.
pub const PACE: Duration = Duration::from_millis(400);
/// Bytes of a download. More than the buffers below hold, so that it passes all the time.
pub const DOWNLOAD: usize = 2 << 20;

/// What both sides of all streams know.
#[derive(Default)]
pub struct Shared {
    /// The streams are to end, cleanly.
    pub over: AtomicBool,
    /// Events that endpoints sent, and that clients got.
    pub sent: AtomicU64,
    pub got: AtomicU64,
}

impl Shared {
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

pub fn event(number: u64) -> String {
    format!("id: {number}\ndata: {}\n\n", number * 7)
}

/// What is downloaded: no two of its pages are alike.
pub static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| (0..DOWNLOAD as u32 / 4).flat_map(u32::to_be_bytes).collect());

/// An endpoint that does by path what is asked for, in HTTP/1.1.
async fn http1_endpoint(shared: Arc<Shared>) -> SocketAddr {
    backend(move |mut connection| {
        let shared = Arc::clone(&shared);
        async move {
            connection.0.set_nodelay(true).unwrap();
            let mut peeked = [0; 7];
            while let Ok(7) = connection.0.peek(&mut peeked).await {
                if &peeked == b"GET /ws" {
                    let accepted = tokio_tungstenite::accept_async_with_config(connection.0, Some(small()));
                    let Ok(mut socket) = accepted.await else { return };
                    while let Some(Ok(message)) = socket.next().await {
                        if message.is_text() {
                            socket.send(message).await.unwrap();
                        }
                    }
                    return;
                }
                let Some(head) = connection.request().await else { return };
                match head.split(' ').nth(1).unwrap() {
                    "/events" => events(&mut connection, &shared).await,
                    "/download" => {
                        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {DOWNLOAD}\r\n\r\n")).await;
                        connection.send(&*CONTENT).await;
                    }
                    _ => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await,
                }
            }
        }
    })
    .await
}

async fn events(connection: &mut Raw, shared: &Shared) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(head).await;
    for number in 0.. {
        let event = event(number);
        connection.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        shared.sent.fetch_add(1, Ordering::Relaxed);
        if shared.is_over() {
            break;
        }
        tokio::time::sleep(PACE).await;
    }
    connection.send("0\r\n\r\n").await;
}

/// An endpoint that sends each message of a call back as it comes, and ends as gRPC does.
async fn grpc_endpoint() -> SocketAddr {
    http2_backend(|mut request, mut answer| async move {
        let mut response = Response::new(());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let mut stream = answer.send_response(response, false).unwrap();
        while let Some(message) = piece(request.body_mut()).await {
            stream.send_data(message.unwrap(), false).unwrap();
        }
        let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
        stream.send_trailers(HeaderMap::from_iter([status])).unwrap();
    })
    .await
}

/// The endpoints of a test, on a thread of their own.
struct Endpoints {
    http1: Vec<SocketAddr>,
    grpc: Vec<SocketAddr>,
}

impl Endpoints {
    fn start(shared: &Arc<Shared>) -> Endpoints {
        let (told, addresses) = std::sync::mpsc::sync_channel(1);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let http1 = join_all((0..4).map(|_| http1_endpoint(Arc::clone(&shared)))).await;
                let grpc = join_all((0..3).map(|_| grpc_endpoint())).await;
                told.send(Endpoints { http1, grpc }).unwrap();
                std::future::pending::<()>().await;
            });
        });
        addresses.recv().unwrap()
    }

    /// The table of step `step`: routes come, go, change places and are edited, and endpoints come and go.
    fn table(&self, step: usize) -> Snapshot {
        let mut routes = vec![forward("/short", "short"), edited("/download", "short", step)];
        if step % 3 != 1 {
            routes.push(edited("/events", "streams", step));
            routes.push(edited("/ws", "streams", step));
            routes.push(edited("/call", "calls", step));
        }
        for extra in 0..step % 7 {
            routes.push(forward(&format!("/extra-{step}-{extra}"), "short"));
        }
        let length = routes.len();
        routes.rotate_left(step % length);
        let mut clusters = vec![cluster("short", Protocol::Http1, some(&self.http1, step))];
        if step % 5 != 2 {
            clusters.push(cluster("streams", Protocol::Http1, some(&self.http1, step + 1)));
            clusters.push(cluster("calls", Protocol::Http2, some(&self.grpc, step)));
        }
        let clusters: Vec<Cluster> = clusters;
        snapshot(routes, clusters)
    }
}

/// Most of the time only some of the endpoints, so that each leaves and comes back.
fn some(endpoints: &[SocketAddr], step: usize) -> &[SocketAddr] {
    let from = step % endpoints.len();
    if step.is_multiple_of(6) { endpoints } else { &endpoints[from..] }
}

/// A route whose timeouts, fields and weights are others at each step.
fn edited(prefix: &str, cluster: &str, step: usize) -> Route {
    let mut route = forward(prefix, cluster);
    let edits = |name| HeaderEdits {
        set: vec![(HeaderName::from_static(name), HeaderValue::from(step))],
        ..HeaderEdits::default()
    };
    route.request_headers = Some(Box::new(edits("x-step")));
    route.response_headers = step.is_multiple_of(2).then(|| Box::new(edits("x-stepped")));
    if let Action::Forward(forward) = &mut route.action {
        forward.timeouts.idle += Duration::from_secs(step as u64);
        forward.timeouts.connect = step.is_multiple_of(3).then(|| Duration::from_millis(500 + step as u64));
        forward.backends[0].weight = 1 + step as u32 % 9;
        forward.backends.push(Backend {
            weight: step as u32 % 2,
            cluster: Ok(ClusterName::new(cluster)),
            policy: None,
        });
    }
    route
}

#[tokio::test]
async fn a_thousand_tables_cut_nothing() {
    let Scale { seconds, scale } = Scale::asked();
    room_for(6_000 * scale);
    let shared = Arc::new(Shared::default());
    let endpoints = Endpoints::start(&shared);
    let plane = Plane::start(endpoints.table(0));
    let begun = tokio::time::Instant::now();

    let opening = |path: &'static str, count: usize| join_all((0..count).map(move |_| asked(plane.address, path)));
    let mut running: Vec<JoinHandle<u64>> = Vec::new();
    for client in opening("/events", 400 * scale).await {
        running.push(tokio::spawn(stream_of_events(client, Arc::clone(&shared))));
    }
    running.extend(join_all((0..400 * scale).map(|_| web_socket(plane.address, Arc::clone(&shared)))).await);
    for streams in join_all((0..10 * scale).map(|_| http2_streams(plane.address, &shared, 5))).await {
        running.extend(streams);
    }
    for client in opening("/download", 100 * scale).await {
        running.push(tokio::spawn(downloads(client, plane.address, Arc::clone(&shared))));
    }
    plane.metric_becomes("floodway_active_streams", "", 1000.0 * scale as f64).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<JoinHandle<()>> = [true, true, false, false]
        .map(|keeps| tokio::spawn(asking(plane.address, Arc::clone(&shared), Arc::clone(&answered), keeps)))
        .into();

    let mut step = 0;
    while step < 1000 || begun.elapsed() < Duration::from_secs(seconds) {
        step += 1;
        let before = answered.load(Ordering::Relaxed);
        assert!(plane.publisher.publish(endpoints.table(step)));
        // So that every table is used by somebody.
        let used = async {
            while answered.load(Ordering::Relaxed) == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within(used).await;
    }
    for stream in &running {
        assert!(!stream.is_finished(), "a stream ended before its time");
    }
    println!("{step} tables in {:?}, {} requests", begun.elapsed(), answered.load(Ordering::Relaxed));
    shared.over.store(true, Ordering::Relaxed);

    for stream in join_all(running).await {
        assert!(stream.unwrap() > 3, "it passed through many tables");
    }
    for client in join_all(clients).await {
        client.unwrap();
    }
    assert_eq!(shared.sent.load(Ordering::Relaxed), shared.got.load(Ordering::Relaxed), "no event is missing");
    assert_eq!(plane.metric("floodway_failures_total", ""), 0.0, "nothing failed");
    assert_eq!(plane.metric("floodway_requests_total", "code=\"5"), 0.0);
    assert_eq!(plane.metric("floodway_requests_total", "code=\"4"), 0.0);
    let ended = |labels| plane.metric("floodway_exchanges_ended_total", labels);
    eventually("all are recorded", || ended("") == ended("end=\"complete\"")).await;
    assert!(ended("") >= (1000 * scale + answered.load(Ordering::Relaxed)) as f64);
    nothing_is_left(&plane).await;
}
