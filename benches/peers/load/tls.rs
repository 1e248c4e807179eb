//! TLS clients: handshakes, and requests on connections that are kept after theirs. All proxies get the same offer, of one cipher suite
//! and one group, so that they differ in what they make of it alone. Certificates are believed as they come: who verifies them is
//! not measured.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, bail};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite::TLS13_AES_256_GCM_SHA384, default_provider, kx_group::X25519};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http1::Connection;
use super::http2::{self, Call};
use super::{Counts, Load};
use crate::certificate::NAME;

/// Connections that are made at once.
const CLIENTS: usize = 16;

/// Whether sessions are resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Each handshake is a full one.
    New,
    /// Each but the first of a client takes up its last session.
    Resumed,
}

fn config(protocol: &str, sessions: Sessions) -> Result<Arc<ClientConfig>> {
    let provider =
        CryptoProvider { cipher_suites: vec![TLS13_AES_256_GCM_SHA384], kx_groups: vec![X25519], ..default_provider() };
    let builder =
        ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&rustls::version::TLS13])?;
    let believing = builder.dangerous().with_custom_certificate_verifier(Arc::new(Believer));
    let mut config = believing.with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config.resumption = match sessions {
        Sessions::New => Resumption::disabled(),
        Sessions::Resumed => Resumption::in_memory_sessions(16),
    };
    Ok(Arc::new(config))
}

async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(NAME)?, stream).await?;
    Ok(stream)
}

/// One handshake after the other, each on a connection of its own, which carries nothing.
pub(crate) fn handshakes(address: SocketAddr, sessions: Sessions) -> Load {
    let counts = Arc::new(Counts::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let counts = counts.clone();
        clients.spawn(async move {
            let config = config("http/1.1", sessions)?;
            let mut first = true;
            while counts.on() {
                let mut stream = connect(address, &config).await?;
                let kind = stream.get_ref().1.handshake_kind();
                let expected = match sessions {
                    Sessions::Resumed if !first => HandshakeKind::Resumed,
                    _ => HandshakeKind::Full,
                };
                if kind != Some(expected) {
                    bail!("a handshake that is {kind:?} instead of {expected:?}");
                }
                first = false;
                stream.shutdown().await?;
                // Until the proxy has closed, too: it has read the end of the handshake by then, and tickets have come.
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
                counts.one_done();
            }
            Ok(())
        });
    }
    Load { counts, clients }
}

/// So many clients, each with a connection, that send a request again and again over HTTP/1.1.
pub(crate) fn closed_loop(address: SocketAddr, count: usize, request: Vec<u8>, buffer: usize) -> Load {
    let counts = Arc::new(Counts::default());
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let (counts, request) = (counts.clone(), request.clone());
        clients.spawn(async move {
            let stream = connect(address, &config("http/1.1", Sessions::New)?).await?;
            let mut connection = Connection::over(stream, buffer);
            while counts.on() {
                connection.ask(&request).await?;
                counts.one_done();
            }
            Ok(())
        });
    }
    Load { counts, clients }
}

/// As many clients as without TLS, over HTTP/2.
pub(crate) fn http2_loop(address: SocketAddr, call: &Call) -> Load {
    let counts = Arc::new(Counts::default());
    let mut clients = JoinSet::new();
    for _ in 0..http2::CONNECTIONS {
        let (counts, call) = (counts.clone(), call.over_tls());
        clients.spawn(async move {
            let stream = connect(address, &config("h2", Sessions::New)?).await?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                bail!("HTTP/2 was not agreed on");
            }
            http2::client(stream, call, counts).await
        });
    }
    Load { counts, clients }
}

/// Believes every certificate.
#[derive(Debug)]
struct Believer;

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
