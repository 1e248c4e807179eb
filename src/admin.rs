//! The admin port: /livez, /readyz, /metrics, /config_dump, /upstreams and the log level. Runs on the control thread, never on a
//! worker. Not the place for anything a client of the proxy may reach.

mod probes;
pub mod upstreams;

pub use probes::{Asking, Probes, Refused};

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::clock;
use crate::ready::{Live, Ready};
use crate::resilience::Registry;
use crate::snapshot::Reader;
use crate::telemetry::Telemetry;
use crate::telemetry::log::{Control, Filter};
use upstreams::Upstreams;

/// What the admin port shows and changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// Whose metrics are shown.
    pub telemetry: Telemetry,
    /// What /readyz tells.
    pub ready: Ready,
    /// What /livez tells.
    pub live: Live,
    /// What /config_dump shows, and /upstreams: one, or one for each listener of a sidecar.
    pub tables: Vec<Table>,
    /// What /probe/ asks the app beside which this runs.
    pub probes: Probes,
    /// What /log shows, and changes; `None` where the program's log is not ours.
    pub log: Option<Control>,
    /// Whether anything may be changed: the port asks nobody who they are.
    pub writable: bool,
}

/// A routing table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Whose, if there are several.
    pub name: Option<&'static str>,
    /// The table in force.
    pub snapshot: Reader,
    /// What is known of its endpoints.
    pub registry: Registry,
}

/// Connections served at once; more wait in the backlog.
const CONNECTIONS: usize = 64;
/// Time for a request head; also ends kept-alive connections that ask nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a connection as a whole, so that a client that does not read cannot hold its place.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause after a failed accept (file descriptors used up, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const INDEX: &str = "\
Floodway
GET  /livez         200 while every loop of the process is alive
GET  /readyz        200 when traffic can be served; otherwise 503 and what is waited for, line by line
GET  /metrics       Prometheus text format
GET  /config_dump   the routing table in force, as JSON; secrets are left out
GET  /upstreams     what is known of every endpoint, as JSON; `floodway upstreams` shows it as a table
GET  /log           what is logged
PUT  /log?level=info,floodway::proxy=debug   where listeners.adminWritable is true
";
const READ_ONLY: &str = "this port only shows: change log.level in the settings file, which is followed, or let whoever reaches the \
                         port change it with listeners.adminWritable: true\n";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// Takes the admin port.
///
/// # Errors
/// The address cannot be had; says what to do.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let taken = || format!("cannot listen on {address} (admin port; choose another address with --admin)");
    TcpListener::bind(address).await.with_context(taken)
}

/// Serves the admin port until the future is dropped.
pub async fn serve(listener: TcpListener, state: AdminState) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = state.clone();
                tokio::spawn(async move {
                    connection(stream, state).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin port cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, state: AdminState) {
    let service = service_fn(|request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&request, state).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // A client that leaves or sends nonsense is no news on this port.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, served).await;
}

async fn answer(request: &Request<Incoming>, state: AdminState) -> Answer {
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        "/log" if request.method() == Method::PUT && !state.writable => text(StatusCode::FORBIDDEN, READ_ONLY),
        "/log" if request.method() == Method::PUT => set_log(request.uri().query(), state.log.as_ref()),
        "/" | "/livez" | "/readyz" | "/metrics" | "/config_dump" | "/upstreams" | "/log" if !reads => {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            let allowed = if path == "/log" { "GET, HEAD, PUT" } else { "GET, HEAD" };
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            answer
        }
        "/" => text(StatusCode::OK, INDEX),
        "/livez" => lines(&state.live.stuck(), "stuck: "),
        "/readyz" => lines(&state.ready.reasons(), "waiting for "),
        "/metrics" => typed(StatusCode::OK, METRICS, off_thread(move || state.telemetry.metrics().text()).await),
        "/config_dump" => typed(StatusCode::OK, JSON, off_thread(move || dump(state.tables)).await),
        "/upstreams" => typed(StatusCode::OK, JSON, off_thread(move || endpoints(state.tables)).await),
        "/log" => match &state.log {
            Some(log) => text(StatusCode::OK, log.current() + "\n"),
            None => no_log(),
        },
        path if path.starts_with(probes::PATH) && reads => state.probes.answer(path).await,
        _ => text(StatusCode::NOT_FOUND, format!("not found; there is:\n\n{INDEX}")),
    }
}

/// Runs what may take long off the control thread, which has watches to serve.
async fn off_thread(make: impl FnOnce() -> String + Send + 'static) -> String {
    tokio::task::spawn_blocking(make).await.unwrap_or_default()
}

fn dump(tables: Vec<Table>) -> String {
    let shown = |Table { mut snapshot, .. }: Table| snapshot.current().cloned();
    let dumped = match &tables[..] {
        [Table { name: None, .. }] => serde_json::to_string_pretty(&tables.into_iter().find_map(shown)),
        _ => {
            let named = tables.into_iter().map(|table| (table.name.unwrap_or_default(), shown(table)));
            serde_json::to_string_pretty(&named.collect::<BTreeMap<_, _>>())
        }
    };
    dumped.unwrap_or_else(|error| {
        tracing::error!(%error, "the routing table could not be shown");
        "null".to_owned()
    })
}

fn endpoints(tables: Vec<Table>) -> String {
    let now = clock::now();
    let mut all = Upstreams::default();
    for Table { mut snapshot, registry, .. } in tables {
        let of_table = snapshot.current().map(|snapshot| Upstreams::of(snapshot, &registry, now));
        all.upstreams.extend(of_table.unwrap_or_default().upstreams);
    }
    serde_json::to_string_pretty(&all).unwrap_or_else(|error| {
        tracing::error!(%error, "the upstreams could not be shown");
        "null".to_owned()
    }) + "\n"
}

fn set_log(query: Option<&str>, log: Option<&Control>) -> Answer {
    let Some(log) = log else { return no_log() };
    let level = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("level="));
    let Some(level) = level else {
        return text(StatusCode::BAD_REQUEST, "say which level: PUT /log?level=debug\n");
    };
    let level = percent_encoding::percent_decode_str(level).decode_utf8_lossy();
    match level.parse::<Filter>() {
        Ok(filter) => {
            log.set(filter);
            tracing::info!(level = %log.current(), "log level changed");
            text(StatusCode::OK, log.current() + "\n")
        }
        Err(invalid) => text(StatusCode::BAD_REQUEST, format!("{invalid}\n")),
    }
}

fn no_log() -> Answer {
    text(StatusCode::NOT_IMPLEMENTED, "the log of this process is not Floodway's\n")
}

/// 200 and `ok` if there is nothing to tell, otherwise 503 and each reason on its line.
fn lines(reasons: &[String], prefix: &str) -> Answer {
    if reasons.is_empty() {
        return text(StatusCode::OK, "ok\n");
    }
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        reasons.iter().map(|reason| format!("{prefix}{reason}\n")).collect::<String>(),
    )
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, TEXT, body)
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests;
