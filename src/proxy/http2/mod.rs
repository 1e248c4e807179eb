//! HTTP/2, on both sides: frames, windows and streams are the `h2` crate's, heads, content, clocks and bounds ours. There is no
//! more of hyper here: it ends content without an error when a peer resets the stream with CANCEL, keeps to itself what an
//! endpoint says it has not processed, and has no way to break off a tunnel or to pass a 1xx on.

mod answer;
mod client;
pub(super) mod connect;
mod duplex;
mod room;
mod server;
mod stream;

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};

pub(super) use answer::Http2Body;
pub(super) use client::{Answered, Http2, Stream};
pub(super) use server::serve;

use super::fields::{Fields, Known};
use super::message::RequestHead;

/// The flow-control windows of a stream, which holds `room` bytes that nobody reads, and of a connection of so many: none of
/// them keeps the others waiting.
fn windows(room: usize, streams: usize) -> (u32, u32) {
    const LARGEST: usize = (1 << 31) - 1;
    const SMALLEST: usize = (1 << 16) - 1;
    let all = room.saturating_mul(streams).clamp(SMALLEST, LARGEST);
    (room.min(LARGEST) as u32, all as u32)
}

/// A request to an endpoint, as the `h2` crate writes it.
fn request(head: &RequestHead, scheme: &Scheme) -> Request<()> {
    let mut request = Request::new(());
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = head.path_and_query.as_str().try_into().ok();
    uri.authority = head.fields.get(Known::Host).and_then(|host| Authority::try_from(host).ok());
    uri.scheme = uri.authority.is_some().then(|| scheme.clone());
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    *request.headers_mut() = header_map(&head.fields);
    request
}

/// The fields of a message of HTTP/2. RFC 9113 8.2.2: "An endpoint MUST NOT generate an HTTP/2 message containing
/// connection-specific header fields"; and 8.3.1: clients that make HTTP/2 requests from other versions "MUST … use
/// :authority instead of Host".
fn header_map(fields: &Fields) -> HeaderMap {
    use Known::*;
    let mut map = HeaderMap::with_capacity(fields.len());
    for (known, name, value) in fields.known() {
        if !matches!(
            known,
            Connection | KeepAlive | ProxyConnection | TransferEncoding | Upgrade | Http2Settings | Host
        ) && let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}
