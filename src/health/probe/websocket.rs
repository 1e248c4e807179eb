//! The opening handshake of a WebSocket, and its close.

use std::future::poll_fn;
use std::net::SocketAddr;

use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::Empty;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::http::{authority, broken, open};
use super::{Io, UNWRITABLE, driven, origin, request};
use crate::health::failure::Failure;
use crate::snapshot::ProbeHeaders;

/// Opens a WebSocket and closes it.
pub(super) async fn ask(
    io: Io,
    address: SocketAddr,
    path: &str,
    host: Option<&str>,
    headers: &ProbeHeaders,
) -> Result<(), Failure> {
    let mut request = request(Method::GET, Uri::default(), Some(headers), Empty::new());
    let key = generate_key();
    *request.uri_mut() = origin(path, &authority(host, address), request.headers_mut())?;
    let fields = request.headers_mut();
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    fields.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).map_err(|_| UNWRITABLE)?);

    let (mut sender, mut connection) = open(io).await?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        opened(response.status(), response.headers(), &key)
    };
    driven(poll_fn(|cx| connection.poll_without_shutdown(cx)), exchange).await?;
    // That it can be opened is what was asked; how it closes is a courtesy.
    let mut io = connection.into_parts().io.into_inner();
    let _ = io.write_all(&close(fastrand::u32(..).to_be_bytes())).await;
    Ok(())
}

/// Whether the server took the handshake: what RFC 6455 4.1 has the client validate.
fn opened(status: StatusCode, fields: &HeaderMap, key: &str) -> Result<(), Failure> {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::Status(status.as_u16()));
    }
    let has = |name: HeaderName, wanted: &str| {
        let values = fields.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    if !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
        return Err(Failure::Broken("its 101 does not switch to a WebSocket"));
    }
    match fields.get(SEC_WEBSOCKET_ACCEPT) {
        Some(accept) if accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes() => Ok(()),
        _ => Err(Failure::Broken("its Sec-WebSocket-Accept is not the answer to the key")),
    }
}

/// A close frame with status 1000. RFC 6455 5.1: "a client MUST mask all frames that it sends to the server".
fn close(mask: [u8; 4]) -> [u8; 8] {
    let [high, low] = 1000_u16.to_be_bytes();
    [0x88, 0x82, mask[0], mask[1], mask[2], mask[3], high ^ mask[0], low ^ mask[1]]
}
