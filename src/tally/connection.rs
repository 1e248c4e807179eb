//! Keeping a connection to Redis: made, proved by a question, watched, and made anew after a wait that grows. A log line says when it comes
//! and when it goes.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::script::Failed;
use super::trouble::Trouble;
use super::{Live, Shared};
use crate::resilience::around;
use crate::settings::{Redis, RedisTls};
use crate::snapshot::{Backoff, why_no_tls};

/// How long it may take until a connection is good for questions.
const SETUP: Duration = Duration::from_secs(5);
/// How often a connection is asked whether it still is, and how long it may take to say so, at least.
const PULSE: Duration = Duration::from_secs(1);
/// The longest password.
const MOST_PASSWORD: usize = 4096;
/// Waits between attempts, which chance spreads by half, so that not all replicas come back at once.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), factor_percent: 200, max: Duration::from_secs(5) };
const SPREAD_PERCENT: u32 = 50;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Keeps a connection as long as anybody may ask.
pub(super) async fn keep(shared: &Shared) {
    tokio::select! {
        () = connect_forever(shared) => {}
        () = shared.closing.notified() => {}
    }
    shared.live.store(None);
}

async fn connect_forever(shared: &Shared) {
    let address = &*shared.redis.address;
    let (mut attempts, mut told) = (0, None);
    loop {
        attempts += 1;
        match hold(shared).await {
            Ended::NotMade(trouble) => {
                if told.replace(trouble) != Some(trouble) {
                    tracing::warn!(redis = address, why = %trouble, "there is no connection to the Redis of rate limits; it is tried again");
                }
            }
            Ended::Lost(trouble, lasted) => {
                told = Some(trouble);
                tracing::warn!(redis = address, why = %trouble, "the connection to the Redis of rate limits was lost");
                if lasted > BACKOFF.max {
                    attempts = 1;
                }
            }
        }
        sleep(around(BACKOFF.bound(attempts), SPREAD_PERCENT, fastrand::f64())).await;
    }
}

/// What became of a connection.
enum Ended {
    NotMade(Trouble),
    /// After so long.
    Lost(Trouble, Duration),
}

/// What moves the bytes of a connection, until it ends.
type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// Makes a connection, and proves it by a question.
async fn made(shared: &Shared) -> Result<(MultiplexedConnection, Driver), Trouble> {
    let setup = Instant::now();
    let stream = timeout(SETUP, dial(&shared.redis)).await.map_err(|_| Trouble::Slow)??;
    // Whoever asks has a clock of its own, and nothing is said that is not asked for here.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let info = RedisConnectionInfo::default().set_skip_set_lib_name();
    let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
    let (connection, driver) = made.map_err(|error| Trouble::of(&error.into()))?;
    let mut driver: Driver = Box::pin(driver);
    let prepared = tokio::select! {
        prepared = timeout(SETUP.saturating_sub(setup.elapsed()), prepare(shared, &connection)) => prepared,
        () = &mut driver => Ok(Err(Trouble::Closed)),
    };
    prepared.map_err(|_| Trouble::Slow)??;
    Ok((connection, driver))
}

/// Makes a connection, and lets go of it.
pub(super) async fn try_once(shared: &Shared) -> Result<(), Trouble> {
    made(shared).await.map(drop)
}

/// Makes a connection, and lets everybody use it until it ends.
async fn hold(shared: &Shared) -> Ended {
    let (connection, driver) = match made(shared).await {
        Ok(made) => made,
        Err(trouble) => return Ended::NotMade(trouble),
    };
    tracing::info!(redis = &*shared.redis.address, "rate limits of scope Global are counted in Redis");
    let (began, pulse) = (Instant::now(), connection.clone());
    let live = Arc::new(Live { connection, failures: AtomicU32::new(0), given_up: Notify::new() });
    shared.live.store(Some(Arc::clone(&live)));
    let trouble = tokio::select! {
        () = driver => Trouble::Closed,
        () = live.given_up.notified() => Trouble::Slow,
        trouble = beats(pulse, PULSE.max(shared.redis.timeout)) => trouble,
    };
    shared.live.store(None);
    Ended::Lost(trouble, began.elapsed())
}

/// Asks again and again whether the connection is good, and returns when it is not.
async fn beats(mut connection: MultiplexedConnection, patience: Duration) -> Trouble {
    loop {
        sleep(PULSE).await;
        match timeout(patience, redis::cmd("PING").query_async::<()>(&mut connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Trouble::of(&error.into()),
            Err(_) => return Trouble::Slow,
        }
    }
}

/// Says who we are, and sees whether questions are answered.
async fn prepare(shared: &Shared, connection: &MultiplexedConnection) -> Result<(), Trouble> {
    let Redis { username, password_file, database, prefix, .. } = &shared.redis;
    if let Some(file) = password_file {
        // Read each time, so that a new one counts from the next connection on.
        let read = tokio::fs::read(file).await.map(Zeroizing::new);
        let read = read.ok().filter(|text| text.len() <= MOST_PASSWORD).ok_or(Trouble::File("passwordFile"))?;
        let mut auth = redis::cmd("AUTH");
        if let Some(username) = username {
            auth.arg(username);
        }
        auth.arg(read.trim_ascii_end());
        said(&auth, connection).await.map_err(|trouble| match trouble {
            Trouble::Nonsense => Trouble::Password,
            other => other,
        })?;
    }
    if *database != 0 {
        let mut select = redis::cmd("SELECT");
        select.arg(*database);
        said(&select, connection).await.map_err(|trouble| match trouble {
            Trouble::Nonsense => Trouble::Database,
            other => other,
        })?;
    }
    shared.script.probe(connection, prefix).await.map_err(|failed| Trouble::of(&failed))
}

async fn said(command: &Cmd, connection: &MultiplexedConnection) -> Result<(), Trouble> {
    let said = command.query_async::<()>(&mut connection.clone()).await;
    said.map_err(|error| Trouble::of(&Failed::from(error)))
}

async fn dial(redis: &Redis) -> Result<Box<dyn Stream>, Trouble> {
    let socket = TcpStream::connect(&redis.address).await.map_err(|error| Trouble::Connect(error.kind()))?;
    let _ = socket.set_nodelay(true);
    let Some(RedisTls { ca_file, server_name }) = &redis.tls else { return Ok(Box::new(socket)) };
    let host = redis.address.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']']));
    let name = ServerName::try_from(server_name.as_deref().unwrap_or(host).to_owned());
    let name = name.map_err(|_| Trouble::Tls("tls.serverName is no name"))?;
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            let pem = tokio::fs::read(file).await.map_err(|_| Trouble::File("tls.caFile"))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
                added.ok_or(Trouble::File("tls.caFile"))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|_| Trouble::Tls("there is no version of TLS to speak"))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    match TlsConnector::from(Arc::new(config)).connect(name, socket).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) if is_cut(&error) => Err(Trouble::Closed),
        Err(error) => Err(Trouble::Tls(why_no_tls(&error))),
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
}
