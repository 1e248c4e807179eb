//! TLS with clients, from the first byte of a connection to the end of its handshake: a phase of its own, with a deadline and a
//! bound on how many there are, so that those who do not finish keep nobody else out. Which certificates there are, and whose TLS
//! is passed on instead of ended, the snapshot says; what carries the bytes afterwards is `transport`, or `passage`.
//! Certificates of clients are `client_auth`'s.

mod client_auth;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ConfigBuilder, Error, HandshakeKind, InvalidMessage, ProtocolVersion, ServerConfig, SupportedProtocolVersion,
    WantsVerifier, version,
};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use self::client_auth::{Judge, NO_TERMS, Tickets, Until};
use super::hello::Heard;
use super::io::Io;
use super::passage::Passed;
use super::transport::Agreed;
use super::worker::Worker;
use crate::settings::ListenersTls;
use crate::snapshot::{HostTls, TlsVersion};

/// RFC 7301 3.1, in the order of our preference.
const PROTOCOLS: [&str; 2] = [HTTP2, "http/1.1"];
/// RFC 9113 3.1
pub(super) const HTTP2: &str = "h2";
/// A fatal alert, unrecognized_name (RFC 6066 3), in a record of its own.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// RFC 8446 6.2, internal_error: "An internal error unrelated to the peer or the correctness of the protocol".
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// What the handshakes of all workers share.
#[derive(Debug)]
pub(super) struct Handshakes {
    settings: ListenersTls,
    provider: Arc<CryptoProvider>,
    /// The keys of tickets are the process's, so that any worker resumes what another began; they change by themselves.
    keys: Arc<dyn ProducesTickets>,
    /// For those who may speak either version, and for those who must speak the newer one. Clients show nothing.
    either: ServerConfig,
    newest: ServerConfig,
    running: AtomicUsize,
}

impl Handshakes {
    /// Nobody shakes hands yet.
    ///
    /// # Errors
    /// If there is no randomness for the keys of tickets.
    pub(super) fn new(settings: &ListenersTls) -> Result<Self, Error> {
        let keys = ring::Ticketer::new()?;
        let provider = Arc::new(ring::default_provider());
        let unasked = |versions| {
            let tickets = Tickets { keys: Arc::clone(&keys), terms: NO_TERMS, until: Until::new(None) };
            let config = builder(&provider, versions)?.with_no_client_auth();
            let config = config.with_cert_resolver(Arc::new(Offered(Arc::default())));
            Ok::<_, Error>(completed(config, tickets))
        };
        Ok(Handshakes {
            settings: settings.clone(),
            either: unasked(EITHER)?,
            newest: unasked(NEWEST)?,
            running: AtomicUsize::new(0),
            provider: Arc::clone(&provider),
            keys,
        })
    }

    /// What a handshake on these terms is made with; `None` if clients have to be judged, and nobody can.
    fn config(&self, terms: &Arc<HostTls>) -> Option<Arc<ServerConfig>> {
        let offered = Arc::new(Offered(Arc::clone(terms)));
        let newest = terms.min_version.unwrap_or(self.settings.min_version) == TlsVersion::V1_3;
        let Some(auth) = &terms.clients else {
            let mut config = if newest { self.newest.clone() } else { self.either.clone() };
            config.cert_resolver = offered;
            return Some(Arc::new(config));
        };
        let until = Until::new(auth.good_until);
        let tickets = Tickets { keys: Arc::clone(&self.keys), terms: auth.digest, until: Arc::clone(&until) };
        let judge = Judge { trusted: Arc::clone(auth.verifier.as_ref()?), until };
        let builder = builder(&self.provider, if newest { NEWEST } else { EITHER }).ok()?;
        let config = builder.with_client_cert_verifier(Arc::new(judge)).with_cert_resolver(offered);
        Some(Arc::new(completed(config, tickets)))
    }
}

/// The versions that are spoken.
type Versions = &'static [&'static SupportedProtocolVersion];
const EITHER: Versions = &[&version::TLS13, &version::TLS12];
const NEWEST: Versions = &[&version::TLS13];

fn builder(
    provider: &Arc<CryptoProvider>,
    versions: Versions,
) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, Error> {
    ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions)
}

/// What is the same for all.
fn completed(mut config: ServerConfig, tickets: Tickets) -> ServerConfig {
    config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.ticketer = Arc::new(tickets);
    // Tickets hold all there is to know of a session.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config
}

/// The certificates of one host.
#[derive(Debug)]
struct Offered(Arc<HostTls>);

impl ResolvesServerCert for Offered {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // For a client that verifies none of them, rustls finds out that nothing is in common, and says handshake_failure; without
        // any it would say access_denied, as if anybody had been asked who the client is.
        let chosen = self.0.choose(hello.signature_schemes()).or_else(|| self.0.certificates.first());
        chosen.map(|certificate| Arc::clone(&certificate.key))
    }
}

/// One handshake among those that run, until dropped.
struct Running<'a>(&'a Handshakes);

impl<'a> Running<'a> {
    /// `None` if there are too many.
    fn begin(handshakes: &'a Handshakes) -> Option<Self> {
        let running = Running(handshakes);
        let others = handshakes.running.fetch_add(1, Ordering::Relaxed);
        (others < handshakes.settings.handshakes_in_flight).then_some(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of the first words of a client.
pub(super) enum Shaken {
    /// TLS ends here.
    Ended(Io),
    /// It ends at an endpoint.
    Passed(Box<Passed>),
}

/// Shakes hands with a client, or has an endpoint do so. `None` if that came to nothing, which is counted.
pub(super) async fn accept(stream: TcpStream, worker: Rc<Worker>) -> Option<Shaken> {
    let shaken = match Running::begin(&worker.handshakes) {
        Some(_running) => {
            let limit = worker.handshakes.settings.handshake_timeout;
            tokio::time::timeout(limit, shake(stream, &worker)).await.unwrap_or(Err("tls_timeout"))
        }
        None => Err("too_many_handshakes"),
    };
    shaken.map_err(|reason| worker.recorder.connection_refused(reason)).ok()
}

/// The two halves of a handshake; or the word for why it failed.
async fn shake(stream: TcpStream, worker: &Worker) -> Result<Shaken, &'static str> {
    let handshakes = &worker.handshakes;
    let told = |error: io::Error| {
        tracing::debug!(%error, "TLS handshake");
        word(&error)
    };
    let hello = LazyConfigAcceptor::new(Acceptor::default(), Heard::new(stream)).await.map_err(told)?;
    let server_name = hello.client_hello().server_name().map(Box::<str>::from);
    let snapshot = worker.snapshot().ok_or("tls_not_ready")?;
    let named = server_name.as_deref().and_then(|name| snapshot.terms(name));
    let unnamed = || snapshot.tls.unnamed().filter(|_| !handshakes.settings.strict_sni);
    let Some(terms) = named.or_else(unnamed).cloned() else {
        // A fresh connection takes it at once, or is gone.
        let _ = hello.io.socket().try_write(&UNRECOGNIZED_NAME);
        return Err("tls_unrecognized_name");
    };
    let (socket, heard) = hello.io.into_parts();
    if let Some(route) = terms.passed.clone() {
        let server_name = server_name.unwrap_or_default();
        return Ok(Shaken::Passed(Box::new(Passed { socket, hello: heard, server_name, route, snapshot })));
    }
    drop((snapshot, heard));
    if terms.certificates.is_empty() {
        let _ = socket.try_write(&UNRECOGNIZED_NAME);
        return Err("tls_no_certificate");
    }
    let Some(config) = handshakes.config(&terms) else {
        let _ = socket.try_write(&INTERNAL_ERROR);
        return Err("tls_no_client_authority");
    };

    // Signing takes the processor for longer than anything else a worker does. Between two signatures, everyone else who is ready has
    // a turn.
    let turn = worker.signing.acquire().await;
    let room = worker.settings.limits.stream_buffer_bytes;
    let hello = StartHandshake::from_parts(hello.accepted, socket);
    let shaking = hello.into_stream_with(config, |session| session.set_buffer_limit(Some(room)));
    tokio::task::yield_now().await;
    drop(turn);
    let stream = shaking.await.map_err(told)?;

    let session = stream.get_ref().1;
    let client = client_auth::client(session, &terms)?;
    let protocol = session.alpn_protocol();
    let agreed = Agreed {
        version: if session.protocol_version() == Some(ProtocolVersion::TLSv1_3) { "1.3" } else { "1.2" },
        cipher: session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        alpn: PROTOCOLS.into_iter().find(|ours| protocol == Some(ours.as_bytes())),
        server_name,
        terms,
        client,
    };
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    worker.recorder.handshake(agreed.version, resumed);
    Ok(Shaken::Ended(Io::tls(stream, Some(Rc::new(agreed)), room)))
}

/// Why a handshake failed: a word of the closed set in docs/metrics.md.
fn word(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => "tls_not_tls",
        Some(Error::InvalidMessage(_) | Error::PeerMisbehaved(_) | Error::DecryptError) => "tls_malformed",
        Some(Error::PeerIncompatible(_)) => "tls_incompatible",
        Some(Error::NoCertificatesPresented) => "tls_no_client_certificate",
        Some(Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_)) => "tls_client_certificate",
        Some(Error::NoApplicationProtocol) => "tls_no_application_protocol",
        Some(Error::AlertReceived(_)) => "tls_rejected",
        Some(_) => "tls_malformed",
        None => "tls_closed",
    }
}
