//! The port that the API server asks at: TLS, HTTP/1.1, one question a request. Whoever else reaches it can take neither memory nor time
//! without bounds, and learns nothing: what a pod would become is no secret.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::review::{self, Outcome};
use super::template::Template;
use crate::drain::DrainWatcher;
use crate::telemetry::Injections;

/// Where questions are put.
const PATH: &str = "/inject";
/// Bytes of a question. A pod has some ten thousand, and etcd takes no more than a million and a half.
const LONGEST: usize = 1 << 20;
/// Connections at once, and of one peer: an API server has one for each question that it puts at the same time.
const CONNECTIONS: usize = 128;
const OF_A_PEER: usize = 64;
/// Time for a handshake, and for the body of a question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for a head, and without any: longer than clients of Go keep a connection that they do not use (90 s), so that no question is put
/// to one that is just being closed.
const IDLE: Duration = Duration::from_secs(120);
/// After so long a connection is closed behind its next answer, so that all replicas are asked.
const AGE: Duration = Duration::from_secs(600);
/// Pause after a failed accept (file descriptors used up, for example).
const PAUSE: Duration = Duration::from_millis(100);
/// How long a peer may leave what is sent to it unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// The certificate that is served, which changes while connections are open.
#[derive(Clone, Default)]
pub struct Serving(Arc<ArcSwapOption<CertifiedKey>>);

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

impl Serving {
    /// New connections get this one from now on.
    pub fn serve(&self, certificate: Arc<CertifiedKey>) {
        self.0.store(Some(certificate));
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// Answers questions. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    acceptor: TlsAcceptor,
    template: Arc<Template>,
    injections: Injections,
    places: Arc<Semaphore>,
    peers: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("template", &self.template).finish_non_exhaustive()
    }
}

impl Door {
    /// With the certificate that `serving` has at the time.
    ///
    /// # Errors
    /// If TLS cannot be had.
    pub fn new(serving: Serving, template: Template, injections: Injections) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config =
            config.context("no version of TLS")?.with_no_client_auth().with_cert_resolver(Arc::new(serving));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Door {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            template: Arc::new(template),
            injections,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            peers: Arc::default(),
        })
    }

    /// Answers until the drain begins, and then what has been asked.
    pub async fn serve(&self, listener: TcpListener, drain: DrainWatcher) {
        let mut ending = drain.clone();
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = ending.begun() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(guest) = Guest::enter(&self.peers, peer.ip()) else {
                        tracing::warn!(%peer, "too many connections of one peer");
                        continue;
                    };
                    let (door, drain) = (self.clone(), drain.clone());
                    tokio::spawn(async move {
                        door.connection(stream, drain).await;
                        drop((guest, place));
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the webhook's port cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(listener);
        // All places are free again when everybody has left.
        let everybody = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let _ = timeout(PATIENCE, self.places.acquire_many(everybody)).await;
    }

    async fn connection(&self, stream: TcpStream, mut drain: DrainWatcher) {
        let socket = socket2::SockRef::from(&stream);
        let _ = (socket.set_tcp_nodelay(true), socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)));
        let accepting = self.acceptor.accept(stream);
        let stream = match timeout(PATIENCE, accepting).await {
            Ok(Ok(stream)) => stream,
            // Probes of the port, and whoever does not believe the certificate: an API server that does not know it yet, above all.
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake with the webhook"),
            Err(_) => return,
        };
        let old = Instant::now() + AGE;
        let service = service_fn(|request| async move {
            let mut answer = self.answer(request).await;
            if Instant::now() > old {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        // One who leaves or sends nonsense is no news on this port.
        tokio::select! {
            _ = &mut connection => return,
            () = drain.begun() => connection.as_mut().graceful_shutdown(),
        }
        let _ = timeout(PATIENCE, connection).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return text(StatusCode::NOT_FOUND, "not found; questions are put to /inject\n");
        }
        if request.method() != Method::POST {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return answer;
        }
        let (outcome, answer) = match question(request).await {
            Ok(body) => match review::answer(&body, &self.template) {
                Ok((outcome, body)) => (outcome, typed(StatusCode::OK, "application/json", body)),
                Err(wrong) => (Outcome::Failed, text(StatusCode::BAD_REQUEST, wrong)),
            },
            Err(answer) => (Outcome::Failed, answer),
        };
        if outcome == Outcome::Failed {
            tracing::warn!(status = answer.status().as_u16(), "a question to the webhook could not be answered");
        }
        self.injections.count(outcome.word());
        answer
    }
}

/// The body of a question, or what is answered to something else.
async fn question(request: Request<Incoming>) -> Result<Bytes, Response<Full<Bytes>>> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return Err(text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only application/json is read\n"));
    }
    let too_long = || text(StatusCode::PAYLOAD_TOO_LARGE, "the question is too long\n");
    if request.body().size_hint().lower() > LONGEST as u64 {
        return Err(too_long());
    }
    match timeout(PATIENCE, Limited::new(request.into_body(), LONGEST).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(text(StatusCode::BAD_REQUEST, "the question broke off\n")),
        Err(_) => Err(text(StatusCode::REQUEST_TIMEOUT, "the question did not come in time\n")),
    }
}

/// One connection of a peer, until dropped.
struct Guest {
    peers: Arc<Mutex<HashMap<IpAddr, usize>>>,
    peer: IpAddr,
}

impl Guest {
    /// `None` if the peer has too many.
    fn enter(peers: &Arc<Mutex<HashMap<IpAddr, usize>>>, peer: IpAddr) -> Option<Self> {
        let mut open = peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(peer).or_default();
        if *count >= OF_A_PEER {
            return None;
        }
        *count += 1;
        Some(Guest { peers: Arc::clone(peers), peer })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
