//! New connections to endpoints, up to where requests can be sent: TCP, whom they are for, and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Host, Upstream};
use crate::proxy::error::Error;
use crate::proxy::io::Io;
use crate::proxy::listener;
use crate::proxy_protocol;
use crate::snapshot::{Protocol, UpstreamTls, why_no_tls};

/// Intervals between probes after which an endpoint that answers none is dead.
const UNANSWERED: u32 = 4;

/// Connects, introduces the client if that is wanted, and says what is spoken.
pub(super) async fn open(
    host: &Host,
    client: Option<SocketAddr>,
    upstream: &Upstream,
) -> Result<(Io, Protocol), Error> {
    let stream = dial(host, client, upstream).await?;
    let cluster = upstream.cluster();
    match &cluster.connections.tls {
        None => Ok((Io::new(stream, upstream.room), cluster.protocol)),
        // In a box: a handshake takes much more room than a connection.
        Some(tls) => Box::pin(secure(stream, tls, host, upstream)).await,
    }
}

/// Connects, and introduces the client if that is wanted.
pub(super) async fn dial(host: &Host, client: Option<SocketAddr>, upstream: &Upstream) -> Result<TcpStream, Error> {
    let address = host.endpoint.address;
    let (settings, room) = (&upstream.cluster().connections, upstream.room);
    let mut stream = TcpStream::connect(address).await.map_err(|error| {
        tracing::debug!(%address, %error, "connect");
        Error::ConnectFailed
    })?;
    // Without this a small event waits for the acknowledgement of the one before (Nagle).
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    if let Some(interval) = settings.tcp_keep_alive
        && let Err(error) = find_dead(&stream, interval)
    {
        tracing::debug!(%error, "cannot set TCP keep-alive");
    }
    if let Err(error) = listener::bound_unsent(&stream, room) {
        tracing::debug!(%error, "cannot set TCP_NOTSENT_LOWAT");
    }
    if let Some(version) = settings.proxy_protocol {
        let header = proxy_protocol::write(version, client, address);
        stream.write_all(&header).await.map_err(|error| {
            tracing::debug!(%address, %error, "introduce a client");
            Error::ConnectFailed
        })?;
    }
    Ok(stream)
}

/// Shakes hands, as its cluster asks.
async fn secure(
    stream: TcpStream,
    tls: &UpstreamTls,
    host: &Host,
    upstream: &Upstream,
) -> Result<(Io, Protocol), Error> {
    let address = host.endpoint.address;
    let failed = |why: &'static str| {
        if host.pool.may_tell() {
            tracing::warn!(upstream = %upstream.cluster().name, endpoint = %address, "no TLS with an endpoint: {why}");
        }
        Error::UpstreamTls
    };
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let stream =
        connector.connect(tls.server_name(address), stream).await.map_err(|error| failed(why_no_tls(&error)))?;
    let spoken = upstream.cluster().protocol.agreed(stream.get_ref().1.alpn_protocol());
    let spoken = spoken.ok_or_else(|| failed("it does not speak HTTP/2, which `protocol` asks for"))?;
    if spoken == Protocol::Http2 {
        host.pool.now_shares();
    }
    Ok((Io::tls(stream, None, upstream.room), spoken))
}

/// Has the kernel break the connection to an endpoint that vanished without a word: probes after `interval` of silence, and
/// as much patience with what was sent, which probes do not see.
fn find_dead(stream: &TcpStream, interval: Duration) -> std::io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    let probes = socket2::TcpKeepalive::new().with_time(interval).with_interval(interval).with_retries(UNANSWERED);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(interval * UNANSWERED))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn dead_endpoints_are_found_by_the_kernel() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let interval = Duration::from_secs(7);
        find_dead(&stream, interval).unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap()),
            (interval, interval)
        );
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(4 * interval));
    }
}
