//! One check of one endpoint, on a connection of its own. Whatever the endpoint does, a check holds a bounded number of bytes;
//! its time is bounded by whoever makes it.

mod grpc;
mod http;
mod websocket;

use std::net::SocketAddr;
use std::pin::pin;

use ::http::header::{HOST, HeaderValue, USER_AGENT};
use ::http::{HeaderMap, Method, Request, Uri};
use bytes::Bytes;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Join, ReadHalf, Take, WriteHalf, join, split,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Settings;
use super::checker::Ask;
use super::failure::Failure;
use crate::proxy_protocol;
use crate::snapshot::{Probe, ProbeHeaders, Protocol, ProxyProtocol, UpstreamTls, why_no_tls};

/// The longest head that is read.
const MOST_HEAD: usize = 16 * 1024;
/// The most content that is read.
const MOST_CONTENT: usize = 64 * 1024;
/// The most bytes that are read at all: room for content in small pieces, and no more for who never comes to the point.
const MOST_BYTES: u64 = 512 * 1024;
/// Who asks.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("floodway-health/", env!("CARGO_PKG_VERSION")));
/// Translation lets no such request through.
const UNWRITABLE: Failure = Failure::Broken("the request cannot be written");

/// Asks over the network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sockets;

impl Ask for Sockets {
    async fn ask(&self, endpoint: SocketAddr, settings: &Settings) -> Result<(), Failure> {
        let Settings { check, protocol, proxy_protocol, tls } = settings;
        let address = SocketAddr::new(endpoint.ip(), check.port.unwrap_or(endpoint.port()));
        // Another port than that of requests may be somebody else's.
        let own = address == endpoint;
        let speaks = match &check.probe {
            Probe::Tcp => *protocol,
            Probe::Http(probe) => probe.protocol.unwrap_or(*protocol),
            Probe::Grpc { .. } => Protocol::Http2,
            Probe::WebSocket { .. } => Protocol::Http1,
        };
        let tls = tls.as_deref().filter(|_| own);
        let (io, speaks) = connect(address, proxy_protocol.filter(|_| own), tls, speaks).await?;
        let secure = tls.is_some();
        // In boxes, because a check rests most of the time.
        match &check.probe {
            Probe::Tcp => Ok(()),
            Probe::Http(probe) => match speaks {
                Protocol::Http1 | Protocol::Agreed => Box::pin(http::ask_http1(io, address, probe)).await,
                Protocol::Http2 => Box::pin(http::ask_http2(io, address, secure, probe)).await,
            },
            Probe::Grpc { service, host } => {
                Box::pin(grpc::ask(io, address, secure, service, host.as_deref(), check.timeout)).await
            }
            Probe::WebSocket { path, host, headers } => {
                Box::pin(websocket::ask(io, address, path, host.as_deref(), headers)).await
            }
        }
    }
}

/// What a check reads from and writes to.
type Io = Join<Take<ReadHalf<Box<dyn Socket>>>, WriteHalf<Box<dyn Socket>>>;

/// A connection, whatever is spoken on it.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl Socket for TcpStream {}
impl Socket for TlsStream<TcpStream> {}

/// The one place where checks get their connections: what is above reads and writes. Returns what is spoken, too, if there is a
/// choice.
async fn connect(
    address: SocketAddr,
    introduced: Option<ProxyProtocol>,
    tls: Option<&UpstreamTls>,
    speaks: Protocol,
) -> Result<(Io, Protocol), Failure> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| Failure::connect(&error))?;
    if let Some(version) = introduced {
        let header = proxy_protocol::write(version, None, address);
        stream.write_all(&header).await.map_err(|_| Failure::Broken("the connection broke"))?;
    }
    let (socket, spoken): (Box<dyn Socket>, _) = match tls {
        None => (Box::new(stream), speaks),
        Some(tls) => {
            let connecting = TlsConnector::from(tls.config_for(speaks)).connect(tls.server_name(address), stream);
            let stream = Box::pin(connecting).await.map_err(|error| Failure::Tls(why_no_tls(&error)))?;
            let spoken = speaks.agreed(stream.get_ref().1.alpn_protocol());
            (Box::new(stream), spoken.ok_or(Failure::Broken("not HTTP/2, which was asked for"))?)
        }
    };
    let (reader, writer) = split(socket);
    Ok((join(reader.take(MOST_BYTES), writer), spoken))
}

/// A request with these fields, beside which Floodway has its own.
fn request<B>(method: Method, uri: Uri, headers: Option<&ProbeHeaders>, content: B) -> Request<B> {
    let mut request = Request::new(content);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let fields = request.headers_mut();
    fields.insert(USER_AGENT, AGENT);
    for (name, value) in headers.iter().flat_map(|headers| headers.0.iter()) {
        fields.insert(name, value.clone());
    }
    request
}

/// Path and query alone, as HTTP/1 has it (RFC 9112 3.2.1); the authority is in `Host`.
fn origin(path: &str, authority: &str, fields: &mut HeaderMap) -> Result<Uri, Failure> {
    let value = HeaderValue::from_str(authority).map_err(|_| UNWRITABLE)?;
    fields.insert(HOST, value);
    path.parse().map_err(|_| UNWRITABLE)
}

/// The whole address, as HTTP/2 needs it.
fn absolute(path: &str, authority: &str, secure: bool) -> Result<Uri, Failure> {
    let uri = Uri::builder().scheme(if secure { "https" } else { "http" }).authority(authority).path_and_query(path);
    uri.build().map_err(|_| UNWRITABLE)
}

/// Drives a connection until the exchange on it is over. A connection that ends may have brought all that is needed.
async fn driven<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        biased;
        done = &mut exchange => return done,
        _ = &mut connection => {}
    }
    exchange.await
}

/// An HTTP/2 connection that takes little from the other side.
async fn http2(io: Io) -> Result<(h2::client::SendRequest<Bytes>, h2::client::Connection<Io, Bytes>), Failure> {
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(MOST_HEAD as u32);
    builder.handshake(io).await.map_err(|error| broken_http2(&error))
}

fn broken_http2(error: &h2::Error) -> Failure {
    match error.is_io() {
        true => Failure::Broken("the connection broke"),
        false => Failure::Broken("not HTTP/2 as it should be"),
    }
}

#[cfg(test)]
mod tests;
