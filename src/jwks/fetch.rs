//! One fetch: a GET of its own connection, whose time, head and content are bounded, and that follows no redirects. Its time is bounded by
//! whoever makes it.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AGE, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::discovery;
use super::failure::Failure;
use crate::snapshot::{KeySource, KeyUrl, Keys, why_no_tls};
use crate::source::dns::{self, Resolve};

/// The longest head that is read.
const MOST_HEAD: usize = 16 * 1024;
/// The most content that is read.
pub(super) const MOST_CONTENT: usize = 256 * 1024;
/// How many addresses of a host are tried, and how long each has to accept a connection.
const MOST_ADDRESSES: usize = 4;
const CONNECT: Duration = Duration::from_secs(2);

/// What was fetched.
#[derive(Debug)]
pub(super) struct Answer {
    /// The keys.
    pub keys: Keys,
    /// For how long they are good, if that was said.
    pub valid: Option<Duration>,
}

/// Fetches the keys of a source.
///
/// # Errors
/// Why that failed.
pub(super) async fn fetch(source: &KeySource, resolver: &impl Resolve) -> Result<Answer, Failure> {
    let (mut text, mut valid) = get(source, &source.url, resolver).await?;
    if let Some(issuer) = &source.issuer {
        (text, valid) = get(source, &discovery::keys_of(source, issuer, &text)?, resolver).await?;
    }
    Ok(Answer { keys: Keys::fetched(&text)?, valid })
}

async fn get(
    source: &KeySource,
    url: &KeyUrl,
    resolver: &impl Resolve,
) -> Result<(Vec<u8>, Option<Duration>), Failure> {
    let stream = connect(url, resolver).await?;
    // In a box, because a fetch waits most of the time, and for nothing else.
    if !url.secure {
        return Box::pin(ask(stream, url)).await;
    }
    let tls =
        source.tls.as_ref().ok_or(Failure::Document("the document of an issuer without TLS leads to keys with TLS"))?;
    let name = ServerName::try_from(url.host.to_string()).map_err(|_| Failure::Name)?;
    let connecting = TlsConnector::from(std::sync::Arc::clone(&tls.config)).connect(name, stream);
    let stream = Box::pin(connecting).await.map_err(|error| Failure::Tls(why_no_tls(&error)))?;
    Box::pin(ask(stream, url)).await
}

/// A connection to the first address of the host that takes one.
async fn connect(url: &KeyUrl, resolver: &impl Resolve) -> Result<TcpStream, Failure> {
    let addresses = match url.host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => {
            let dns::Answer { addresses, .. } = resolver.resolve(&url.host).await.map_err(|why| {
                tracing::debug!(name = &*url.host, why, "the host of keys cannot be resolved");
                Failure::Name
            })?;
            addresses
        }
    };
    let mut failure = Failure::Name;
    for address in addresses.into_iter().take(MOST_ADDRESSES) {
        match timeout(CONNECT, TcpStream::connect(SocketAddr::new(address, url.port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = Failure::Connect(error.kind()),
            Err(_) => failure = Failure::Connect(std::io::ErrorKind::TimedOut),
        }
    }
    Err(failure)
}

/// Asks, and reads the content.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &KeyUrl,
) -> Result<(Vec<u8>, Option<Duration>), Failure> {
    let opened = http1::Builder::new().max_buf_size(MOST_HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|error| broken(&error))?;
    let request = request(url)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (head, mut body) = response.into_parts();
        match head.status {
            StatusCode::OK => {}
            status if status.is_redirection() => return Err(Failure::Redirect(status.as_u16())),
            status => return Err(Failure::Status(status.as_u16())),
        }
        if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(Failure::Coded);
        }
        let mut content = Vec::new();
        if body.size_hint().lower() > MOST_CONTENT as u64 {
            return Err(Failure::TooLong);
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let data = frame.data_ref().map_or(&[][..], |data| &data[..]);
            if content.len() + data.len() > MOST_CONTENT {
                return Err(Failure::TooLong);
            }
            content.extend_from_slice(data);
        }
        Ok((content, good_for(&head.headers)))
    };
    // A connection that ends may have brought all that is needed.
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        biased;
        done = &mut exchange => return done,
        _ = &mut connection => {}
    }
    exchange.await
}

fn request(url: &KeyUrl) -> Result<Request<Empty<Bytes>>, Failure> {
    let unwritable = |()| Failure::Broken("the request cannot be written");
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = url.path.parse().map_err(|_| unwritable(()))?;
    let host = HeaderValue::try_from(url.authority()).map_err(|_| unwritable(()))?;
    let agent = HeaderValue::from_static(concat!("floodway-jwks/", env!("CARGO_PKG_VERSION")));
    let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
    let close = HeaderValue::from_static("close");
    request.headers_mut().extend([(HOST, host), (USER_AGENT, agent), (ACCEPT, accept), (CONNECTION, close)]);
    Ok(request)
}

fn broken(error: &hyper::Error) -> Failure {
    Failure::Broken(match () {
        () if error.is_parse_too_large() => "its head is too long",
        () if error.is_parse() => "not HTTP/1 as it should be",
        () => "the connection broke",
    })
}

/// How long an answer is good (RFC 9111 4.2.1): `max-age`, less the time for which others have kept it.
fn good_for(fields: &HeaderMap) -> Option<Duration> {
    let lines = fields.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut valid = None;
    for directive in lines.flat_map(|line| line.split(',')).map(|one| one.trim().to_ascii_lowercase()) {
        if directive == "no-store" || directive == "no-cache" {
            return Some(Duration::ZERO);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            // What is no number is as good as no time at all.
            valid = Some(Duration::from_secs(seconds.trim_matches('"').parse().unwrap_or(0)));
        }
    }
    let age =
        fields.get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
    valid.map(|valid| valid.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn issuers_say_how_long_keys_are_good() {
        for (lines, expected) in [
            (&[][..], None),
            (&[("cache-control", "public, max-age=21600, must-revalidate")], Some(21_600)),
            (&[("cache-control", "public"), ("cache-control", "Max-Age=\"60\"")], Some(60)),
            (&[("cache-control", "max-age=600"), ("age", "200")], Some(400)),
            (&[("cache-control", "max-age=100"), ("age", "200")], Some(0)),
            (&[("cache-control", "max-age=600, no-store")], Some(0)),
            (&[("cache-control", "max-age=soon")], Some(0)),
            (&[("cache-control", "max-age=99999999999999999999999")], Some(0)),
            (&[("cache-control", "s-maxage=5")], None),
        ] {
            let fields = lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            assert_eq!(good_for(&HeaderMap::from_iter(fields)), expected.map(Duration::from_secs), "{lines:?}");
        }
    }
}
