//! Nothing is cut by change: streams of every kind stay open, and new requests are answered, while the table is replaced a
//! thousand times. `make soak` runs the same for longer, with more of everything.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use floodway::snapshot::{Action, Backend, Cluster, ClusterName, HeaderEdits, Protocol, Route, Snapshot};
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::clients::*;
use super::endpoints::nothing_is_left;
use super::scale::{Scale, room_for};
use super::support::*;

/// Between two events, messages or calls of one stream.
const PACE: Duration = Duration::from_millis(400);
/// Bytes of a download. More than the buffers below hold, so that it passes all the time.
const DOWNLOAD: usize = 2 << 20;

/// What both sides of all streams know.
#[derive(Default)]
struct Shared {
    /// The streams are to end, cleanly.
    over: AtomicBool,
    /// Events that endpoints sent, and that clients got.
    sent: AtomicU64,
    got: AtomicU64,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

fn event(number: u64) -> String {
    format!("id: {number}\ndata: {}\n\n", number * 7)
}

/// What is downloaded: no two of its pages are alike.
static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| (0..DOWNLOAD as u32 / 4).flat_map(u32::to_be_bytes).collect());

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
        forward.backends.push(Backend { weight: step as u32 % 2, cluster: Ok(ClusterName::new(cluster)) });
    }
    route
}

/// Events as they come in, however they are cut into pieces.
#[derive(Default)]
struct Seen {
    next: u64,
    part: Vec<u8>,
}

impl Seen {
    /// The next bytes; panics unless each event is the one that is due.
    fn take(&mut self, bytes: &[u8], shared: &Shared) {
        self.part.extend_from_slice(bytes);
        while let Some(end) = self.part.windows(2).position(|pair| pair == b"\n\n") {
            let rest = self.part.split_off(end + 2);
            let seen = std::mem::replace(&mut self.part, rest);
            assert_eq!(String::from_utf8_lossy(&seen), event(self.next), "lost, repeated or out of order");
            self.next += 1;
            shared.got.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The end, after which nothing may be missing. How many there were.
    fn whole(self) -> u64 {
        assert!(self.part.is_empty(), "half an event at the end");
        self.next
    }
}

/// A connection with `path` asked for, and the head of its answer read.
async fn asked(address: SocketAddr, path: &str) -> BufReader<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    // Little is on its way, so that a slow client is felt by the endpoint.
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut client = Raw(socket.connect(address).await.unwrap());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    BufReader::with_capacity(2048, client.0)
}

/// An event stream over HTTP/1.1, chunk by chunk.
async fn stream_of_events(mut client: BufReader<TcpStream>, shared: Arc<Shared>) -> u64 {
    let (mut seen, mut line, mut chunk) = (Seen::default(), String::new(), Vec::new());
    loop {
        line.clear();
        assert!(client.read_line(&mut line).await.unwrap() > 0, "cut after {} events", seen.next);
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        chunk.resize(size + 2, 0);
        client.read_exact(&mut chunk).await.unwrap();
        if size == 0 {
            return seen.whole();
        }
        seen.take(&chunk[..size], &shared);
    }
}

/// Buffers that fit many WebSockets.
fn small() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(1024)
}

/// A WebSocket on which each message comes back before the next goes.
async fn web_socket(address: SocketAddr, shared: Arc<Shared>) -> JoinHandle<u64> {
    let stream = TcpStream::connect(address).await.unwrap();
    let opened = tokio_tungstenite::client_async_with_config("ws://a/ws", stream, Some(small()));
    let (mut socket, _) = within(opened).await.unwrap();
    tokio::spawn(async move {
        let mut number = 0;
        while !shared.is_over() {
            let message = Message::text(format!("message {number}"));
            socket.send(message.clone()).await.unwrap();
            assert_eq!(within(socket.next()).await.unwrap().unwrap(), message);
            number += 1;
            tokio::time::sleep(PACE).await;
        }
        socket.close(None).await.unwrap();
        while let Some(message) = within(socket.next()).await {
            assert!(message.unwrap().is_close());
        }
        number
    })
}

/// Half of the streams on this HTTP/2 connection are events, half are calls of both directions.
async fn http2_streams(address: SocketAddr, shared: &Arc<Shared>, each: usize) -> Vec<JoinHandle<u64>> {
    let mut client = http2(address).await;
    let mut running = Vec::new();
    for _ in 0..each {
        let mut body = ask(&client, get("/events")).await.into_body();
        let shared = Arc::clone(shared);
        running.push(tokio::spawn(async move {
            let mut seen = Seen::default();
            while let Some(bytes) = piece(&mut body).await {
                seen.take(&bytes.unwrap(), &shared);
            }
            seen.whole()
        }));
    }
    for _ in 0..each {
        let mut request = post("/call");
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        client = within(client.ready()).await.unwrap();
        let (answer, mut sending) = client.send_request(request, false).unwrap();
        let mut answer = within(answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        let shared = Arc::clone(shared);
        running.push(tokio::spawn(async move {
            let mut number = 0;
            while !shared.is_over() {
                let text = format!("call {number}");
                let message = [&[0, 0, 0, 0, text.len() as u8], text.as_bytes()].concat();
                sending.send_data(Bytes::from(message.clone()), false).unwrap();
                assert_eq!(piece(answer.body_mut()).await.unwrap().unwrap(), message);
                number += 1;
                tokio::time::sleep(PACE).await;
            }
            sending.send_data(Bytes::new(), true).unwrap();
            let (rest, trailers) = content(answer.body_mut()).await.unwrap();
            assert!(rest.is_empty());
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
            number
        }));
    }
    running
}

/// Downloads by a client that takes its time, one after another, until time is over.
async fn downloads(mut client: BufReader<TcpStream>, address: SocketAddr, shared: Arc<Shared>) -> u64 {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let mut start = 0;
        while start < DOWNLOAD {
            let size = if shared.is_over() { piece.len() } else { 8 * 1024 };
            let piece = &mut piece[..size.min(DOWNLOAD - start)];
            within(client.read_exact(piece)).await.unwrap();
            assert!(*piece == CONTENT[start..start + piece.len()], "other bytes after {start}");
            start += piece.len();
            if !shared.is_over() {
                tokio::time::sleep(PACE).await;
            }
        }
        if shared.is_over() {
            return u64::MAX;
        }
        client = asked(address, "/download").await;
    }
}

/// Asks again and again, on one connection or on a new one each time. No request may fail.
async fn asking(address: SocketAddr, shared: Arc<Shared>, answered: Arc<AtomicUsize>, keeps: bool) {
    let mut client = Raw(TcpStream::connect(address).await.unwrap());
    while !shared.is_over() {
        if !keeps {
            client = Raw(TcpStream::connect(address).await.unwrap());
        }
        client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        client.until("ok").await;
        answered.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
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
