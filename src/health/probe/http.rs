//! A request, and whether its answer is the expected one.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use memchr::memmem;

use super::{Io, MOST_CONTENT, MOST_HEAD, absolute, broken_http2, driven, http2, origin, request};
use crate::health::failure::Failure;
use crate::snapshot::{HttpProbe, ProbeMethod};

/// Asks over HTTP/1.1.
pub(super) async fn ask_http1(io: Io, address: SocketAddr, probe: &HttpProbe) -> Result<(), Failure> {
    let mut request = asked(probe, Uri::default(), Empty::new());
    let authority = authority(probe.host.as_deref(), address);
    *request.uri_mut() = origin(&probe.path, &authority, request.headers_mut())?;
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) = open(io).await?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (head, mut body) = response.into_parts();
        let Some(mut content) = judge(probe, head.status)? else { return Ok(()) };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            if let Some(verdict) = frame.data_ref().and_then(|data| content.read(data)) {
                return verdict;
            }
        }
        Err(Failure::Content)
    };
    driven(connection, exchange).await
}

/// Asks over HTTP/2 with prior knowledge.
pub(super) async fn ask_http2(io: Io, address: SocketAddr, secure: bool, probe: &HttpProbe) -> Result<(), Failure> {
    let uri = absolute(&probe.path, &authority(probe.host.as_deref(), address), secure)?;
    let request = asked(probe, uri, ());
    let (client, connection) = http2(io).await?;
    let exchange = async {
        let mut client = client.ready().await.map_err(|error| broken_http2(&error))?;
        let (response, _) = client.send_request(request, true).map_err(|error| broken_http2(&error))?;
        let (head, mut body) = response.await.map_err(|error| broken_http2(&error))?.into_parts();
        let Some(mut content) = judge(probe, head.status)? else { return Ok(()) };
        while let Some(data) = body.data().await {
            let data = data.map_err(|error| broken_http2(&error))?;
            if let Some(verdict) = content.read(&data) {
                return verdict;
            }
            let _ = body.flow_control().release_capacity(data.len());
        }
        Err(Failure::Content)
    };
    driven(connection, exchange).await
}

/// A connection whose heads are bounded.
pub(super) async fn open(
    io: Io,
) -> Result<(http1::SendRequest<Empty<Bytes>>, http1::Connection<TokioIo<Io>, Empty<Bytes>>), Failure> {
    let opened = http1::Builder::new().max_buf_size(MOST_HEAD).handshake(TokioIo::new(io)).await;
    opened.map_err(|error| broken(&error))
}

/// The `Host` that is asked for.
pub(super) fn authority(host: Option<&str>, address: SocketAddr) -> String {
    host.map_or_else(|| address.to_string(), str::to_owned)
}

pub(super) fn broken(error: &hyper::Error) -> Failure {
    if error.is_parse_too_large() {
        Failure::Broken("its head is too long")
    } else if error.is_parse() {
        Failure::Broken("not HTTP/1 as it should be")
    } else {
        Failure::Broken("the connection broke")
    }
}

fn asked<B>(probe: &HttpProbe, uri: Uri, content: B) -> Request<B> {
    let method = match probe.method {
        ProbeMethod::Get => Method::GET,
        ProbeMethod::Head => Method::HEAD,
    };
    request(method, uri, Some(&probe.headers), content)
}

/// Whether the status is well, and what the content is to have in it, if that matters.
fn judge(probe: &HttpProbe, status: StatusCode) -> Result<Option<Content<'_>>, Failure> {
    let status = status.as_u16();
    if !probe.statuses.iter().any(|statuses| statuses.0.contains(&status)) {
        return Err(Failure::Status(status));
    }
    Ok(probe.body.as_deref().map(|expected| Content { expected: expected.as_bytes(), read: Vec::new() }))
}

/// Content that is looked through.
struct Content<'a> {
    expected: &'a [u8],
    read: Vec<u8>,
}

impl Content<'_> {
    /// Reads on; the verdict once there is one.
    fn read(&mut self, data: &[u8]) -> Option<Result<(), Failure>> {
        let room = MOST_CONTENT - self.read.len();
        // What is expected may begin in what came before.
        let from = self.read.len().saturating_sub(self.expected.len());
        self.read.extend_from_slice(&data[..data.len().min(room)]);
        if memmem::find(&self.read[from..], self.expected).is_some() {
            return Some(Ok(()));
        }
        (self.read.len() == MOST_CONTENT).then_some(Err(Failure::Content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_text_is_found_across_pieces_and_not_behind_the_bound() {
        let content = || Content { expected: b"status: up", read: Vec::new() };
        let mut split = content();
        let verdicts = [b"xx stat".as_slice(), b"us: u", b"p!"].map(|piece| split.read(piece));
        assert_eq!(verdicts, [None, None, Some(Ok(()))]);
        let mut long = content();
        assert_eq!(long.read(&vec![b'x'; MOST_CONTENT - 3]), None);
        assert_eq!(long.read(b"status: up"), Some(Err(Failure::Content)));
        assert_eq!(long.read.len(), MOST_CONTENT);
    }
}
