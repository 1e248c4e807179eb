//! WebSockets over HTTP/2 (RFC 8441). Inside, a request for a WebSocket is the handshake of RFC 6455, whatever carries it;
//! here the handshake is made of an extended CONNECT and back, for clients and for endpoints.

use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, SEC_WEBSOCKET_KEY};
use http::{Method, Request, StatusCode};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::proxy::fields::{Fields, Known};
use crate::proxy::message::{RequestHead, ResponseHead};

const WEBSOCKET: &str = "websocket";
const KEY: &str = "sec-websocket-key";
const ACCEPT: &str = "sec-websocket-accept";

/// Whether a client asks for a WebSocket by extended CONNECT.
pub(super) fn is_asked_by<B>(request: &Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// Makes a handshake of an extended CONNECT.
pub(super) fn handshake(head: &mut RequestHead) {
    head.method = Method::GET;
    // RFC 8441 5: "The Sec-WebSocket-Key and Sec-WebSocket-Accept header fields are not processed"; this key is between us and
    // the endpoint.
    head.fields.set(KEY, generate_key().as_bytes());
    head.fields.set("connection", b"upgrade");
    head.fields.set("upgrade", WEBSOCKET.as_bytes());
}

/// Whether an endpoint's 101 proves that it read the handshake. RFC 6455 4.1: "If the response lacks a |Sec-WebSocket-Accept|
/// header field or the |Sec-WebSocket-Accept| contains a value other than the base64-encoded SHA-1 of the concatenation of
/// the |Sec-WebSocket-Key| (as a string, not base64-decoded) with the string […], the client MUST _Fail the WebSocket
/// Connection_."
pub(in crate::proxy) fn is_proved(request: &Fields, response: &Fields) -> bool {
    let key = request.get(Known::WebSocketKey).unwrap_or_default();
    response.get(Known::WebSocketAccept) == Some(derive_accept_key(key).as_bytes())
}

/// Makes the answer to an extended CONNECT of a 101: RFC 8441 5, "any 2xx status code indicates success".
pub(super) fn answer(head: &mut ResponseHead) {
    head.status = StatusCode::OK;
    head.fields.remove_each(&[Known::WebSocketAccept, Known::ContentLength]);
}

/// Makes an extended CONNECT of a handshake without its hop-by-hop fields. Returns what proves that the handshake was read.
pub(super) fn connect(request: &mut Request<()>) -> Option<String> {
    let key = request.headers_mut().remove(SEC_WEBSOCKET_KEY)?;
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static(WEBSOCKET));
    request.headers_mut().remove(CONTENT_LENGTH);
    Some(derive_accept_key(key.as_bytes()))
}

/// Makes a 101 of an endpoint's answer to an extended CONNECT.
pub(super) fn switch(head: &mut ResponseHead, proof: &str) {
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.fields.remove(Known::ContentLength);
    head.fields.set(ACCEPT, proof.as_bytes());
    head.fields.set("connection", b"upgrade");
    head.fields.set("upgrade", WEBSOCKET.as_bytes());
}
