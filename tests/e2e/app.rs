//! The application in the pods: a clock of Server-Sent Events, an echo of WebSockets, files, and answers that say who gave them. It goes
//! as an application should: told to end, it is not ready but still serves while others learn of it, ends its streams, then itself.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_util::task::TaskTracker;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Time between two events.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// How many missed events a client that comes back gets.
const REPLAY: u64 = 600;
/// How long it serves after it was told to end: longer than it takes until everybody knows.
const LINGER: Duration = Duration::from_secs(3);
/// How long it then waits for connections to end.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Serving,
    Unready,
    Ending,
}

/// `pause`: waits. `get ADDRESS HOST`: asks once. `last ADDRESS HOST`: asks once it is told to end, and has lingered. Anything else is the name it answers with; without one it is "app".
pub(crate) fn run(arguments: &[&str]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut told = signal(SignalKind::terminate()).unwrap();
        if arguments.first() == Some(&"pause") {
            told.recv().await;
            return;
        }
        if let ["get", address, host] = arguments {
            println!("{:?}", via(address, host).await.expect("an answer"));
            return;
        }
        if let ["last", address, host] = arguments {
            told.recv().await;
            sleep(LINGER).await;
            println!("{:?}", via(address, host).await.expect("an answer"));
            return;
        }
        let name = (*arguments.first().unwrap_or(&"app")).to_owned();
        let (phase, phases) = watch::channel(Phase::Serving);
        let connections = TaskTracker::new();
        for port in [80, 8080] {
            let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await.unwrap();
            tokio::spawn(accept(listener, name.clone(), phases.clone(), connections.clone()));
        }
        told.recv().await;
        phase.send_replace(Phase::Unready);
        sleep(LINGER).await;
        phase.send_replace(Phase::Ending);
        connections.close();
        let _ = timeout(PATIENCE, connections.wait()).await;
    });
    ExitCode::SUCCESS
}

async fn accept(listener: TcpListener, name: String, phases: watch::Receiver<Phase>, connections: TaskTracker) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (name, mut phases, inner) = (name.clone(), phases.clone(), phases.clone());
        let sockets = connections.clone();
        let service = service_fn(move |request| {
            let (name, phases, sockets) = (name.clone(), inner.clone(), sockets.clone());
            async move { Ok::<_, Infallible>(answer(&name, request, phases, &sockets).await) }
        });
        connections.spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            tokio::pin!(connection);
            tokio::select! {
                _ = &mut connection => return,
                _ = phases.wait_for(|phase| *phase == Phase::Ending) => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        });
    }
}

async fn answer(
    name: &str,
    mut request: Request<Incoming>,
    phases: watch::Receiver<Phase>,
    sockets: &TaskTracker,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["clock"] => {
            let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
            let mut response = Response::new(StreamBody::new(events(last, phases)).boxed_unsync());
            response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
            response
        }
        ["socket"] => {
            let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).cloned() else {
                return whole(StatusCode::UPGRADE_REQUIRED, "a WebSocket");
            };
            let upgrade = hyper::upgrade::on(&mut request);
            sockets.spawn(async move {
                if let Ok(upgraded) = upgrade.await {
                    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                    echo(socket, phases).await;
                }
            });
            let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            let response = response.header(UPGRADE, "websocket").header(CONNECTION, "upgrade");
            let response = response.header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
            response.body(Full::default().boxed_unsync()).unwrap()
        }
        ["files", length] => whole(StatusCode::OK, vec![b'x'; length.parse().unwrap_or_default()]),
        ["slow", milliseconds] => {
            sleep(Duration::from_millis(milliseconds.parse().unwrap_or_default())).await;
            whole(StatusCode::OK, name.to_owned())
        }
        // What it gets itself from a server: `/via/ADDRESS/HOST`.
        ["via", address, host] => match via(address, host).await {
            Ok((status, said)) => whole(StatusCode::OK, json!({"status": status, "said": said}).to_string()),
            Err(error) => whole(StatusCode::BAD_GATEWAY, format!("{error:#}")),
        },
        ["ready"] => match *phases.borrow() {
            Phase::Serving => whole(StatusCode::OK, "ready"),
            _ => whole(StatusCode::SERVICE_UNAVAILABLE, "ending"),
        },
        _ => {
            let headers: Map<String, Value> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes()))))
                .collect();
            let pod = std::env::var("HOSTNAME").unwrap_or_default();
            let said = json!({"name": name, "pod": pod, "path": path, "headers": headers});
            whole(StatusCode::OK, said.to_string())
        }
    }
}

async fn via(address: &str, host: &str) -> anyhow::Result<(u16, Value)> {
    let found = tokio::net::lookup_host(address).await?.next();
    let address = found.ok_or_else(|| anyhow::anyhow!("no address of {address}"))?;
    let (status, body) = crate::http1::get(address, host, "/").await?;
    Ok((status.as_u16(), serde_json::from_str(&body).unwrap_or(Value::String(body))))
}

fn whole(status: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(content.into()).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// The number of the present tick. The same in all pods, so that streams go on where others ended.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis() / TICK.as_millis()).unwrap_or_default()
}

/// An event for each tick, from the one after `last` on, until the application ends.
fn events(
    last: Option<u64>,
    phases: watch::Receiver<Phase>,
) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let first = last.map_or_else(now, |last| (last + 1).max(now().saturating_sub(REPLAY)));
    stream::unfold((first, phases), |(id, mut phases)| async move {
        while id > now() {
            let ends = phases.wait_for(|phase| *phase == Phase::Ending);
            if timeout(TICK / 4, ends).await.is_ok() {
                return None;
            }
        }
        let event = format!("id: {id}\ndata: tick\n\n");
        Some((Ok(Frame::data(Bytes::from(event))), (id + 1, phases)))
    })
}

async fn echo(mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>, mut phases: watch::Receiver<Phase>) {
    loop {
        let ends = phases.wait_for(|phase| *phase == Phase::Ending);
        let message = tokio::select! {
            message = socket.next() => Some(message),
            _ = ends => None,
        };
        let Some(message) = message else {
            let frame = CloseFrame { code: CloseCode::Away, reason: "ending".into() };
            let _ = socket.send(Message::Close(Some(frame))).await;
            // Until the other side has said its goodbye.
            while let Ok(Some(Ok(_))) = timeout(Duration::from_secs(5), socket.next()).await {}
            return;
        };
        let Some(Ok(message)) = message else { return };
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}
