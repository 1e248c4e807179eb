//! The head of a request that goes on: whether it asks for a WebSocket, and its fields. Whether and where it goes, `request`
//! decides; which fields stay, `headers` says.

use http::{Method, Version};
use http_body::Body as _;

use super::body::Body;
use super::certified;
use super::error::Error;
use super::exchange::Exchange;
use super::fields::Known;
use super::headers::{self, Client};
use super::message::RequestHead;
use super::worker::Peer;
use crate::snapshot::Route;

/// Whether the client asks for a WebSocket (RFC 6455 4.1). Any other upgrade, h2c among them, is not offered: a server
/// "MAY ignore a received Upgrade header field" (RFC 9110 7.8), and the field ends here.
///
/// # Errors
/// It has content, too.
pub(super) fn wants_websocket(head: &RequestHead, body: &Body) -> Result<bool, Error> {
    let fields = &head.fields;
    // Over HTTP/2 the handshake was made of an extended CONNECT; a client's own would be malformed (RFC 9113 8.2.2).
    if !fields.contains(Known::Upgrade) || head.version == Version::HTTP_10 || head.method != Method::GET {
        return Ok(false);
    }
    let asks = fields.lists(Known::Connection, "upgrade")
        && fields.all(Known::Upgrade).count() == 1
        && fields.get(Known::Upgrade).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    if asks && !body.is_end_stream() {
        // Content before a tunnel is where two servers would disagree on where the tunnel begins.
        return Err(Error::BadRequest("content in a request for a WebSocket"));
    }
    Ok(asks)
}

/// Makes the fields those that go on.
#[allow(clippy::too_many_arguments, reason = "each is a fact of the request, used once")]
pub(super) fn go_on(
    head: &mut RequestHead,
    body: &Body,
    peer: &Peer,
    client: Client,
    authority: &str,
    host: &[u8],
    route: &Route,
    exchange: &Exchange,
    upgrade: bool,
) {
    let length = if head.fields.contains(Known::ContentLength) { body.size_hint().exact() } else { None };
    let fields = &mut head.fields;
    headers::clean_request(fields);
    headers::join_cookies(fields, head.version);
    headers::set_forwarded(fields, peer, client, authority);
    certified::tell(fields, client, exchange);
    fields.set(headers::REQUEST_ID, exchange.request_id().as_bytes());
    exchange.pass_trace_on(fields);
    fields.set("host", host);
    exchange.vouch(fields);
    if let Some(edits) = &route.request_headers {
        headers::edit(fields, edits);
    }
    // Framing is made anew: a length only if there is content of that length.
    fields.remove(Known::ContentLength);
    if let Some(length) = length {
        fields.add("content-length", itoa::Buffer::new().format(length).as_bytes());
    }
    if upgrade {
        fields.add("connection", b"upgrade");
        fields.add("upgrade", b"websocket");
    }
}
