//! Which fields are forwarded, and the ones that the proxy sets: hop-by-hop fields end here, forwarding fields are
//! believed from trusted proxies only.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, HOST, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, Version};
use http_body::Frame;
use ipnet::IpNet;

use super::fields::{Fields, Known};
use super::trace;
use super::worker::Peer;
use crate::snapshot::HeaderEdits;

/// The field that carries the id of a request.
pub(super) const REQUEST_ID: &str = "x-request-id";
/// The field that tells an endpoint how often a request was sent, and a client how many endpoints were asked.
pub(super) const ATTEMPTS: &str = "x-floodway-attempts";
/// The field that tells an endpoint that what it gets is a copy, and of which route's request.
pub(super) const MIRROR: &str = "x-floodway-mirror";

/// Removes what is meant for this connection alone (RFC 9110 7.6.1): "Intermediaries MUST parse a received Connection
/// header field before a message is forwarded and, for each connection-option in this field, remove any header or trailer
/// field(s) from the message with the same name as the connection-option, and then remove the Connection header field
/// itself"; and "intermediaries SHOULD remove or replace fields that are known to require removal before forwarding,
/// whether or not they appear as a connection-option".
pub(super) fn remove_hop_by_hop(fields: &mut Fields) {
    // These name no field that is not removed anyway: RFC 9112 9.6 reserves the name "Close". And the message's own target is no
    // option of a connection; a client must not take it away from the next server.
    let known = |token: &&[u8]| {
        [&b"close"[..], b"keep-alive", b"upgrade", b"host"].iter().any(|name| token.eq_ignore_ascii_case(name))
    };
    let named: Vec<Vec<u8>> =
        fields.tokens(Known::Connection).filter(|token| !known(token)).map(<[u8]>::to_vec).collect();
    for name in named {
        fields.remove_named(&name);
    }
    use Known::*;
    fields.remove_each(&[Connection, KeepAlive, ProxyConnection, TransferEncoding, Upgrade, Http2Settings]);
}

/// The fields of a request that goes on, apart from Host and framing, which the connection sets.
pub(super) fn clean_request(fields: &mut Fields) {
    // RFC 9110 10.1.4: "te: trailers" says that the client takes trailers, and so do we on its behalf.
    let trailers = fields.lists(Known::Te, "trailers");
    remove_hop_by_hop(fields);
    fields.remove_each(&[Known::Te, Known::ProxyAuthorization, Known::Attempts]);
    if trailers {
        fields.add("te", b"trailers");
    }
}

/// RFC 9113 8.2.3: cookies that HTTP/2 splits into several fields "MUST be concatenated into a single octet string using
/// the two-octet delimiter of 0x3b, 0x20" before they go to HTTP/1.1.
pub(super) fn join_cookies(fields: &mut Fields, version: Version) {
    if version != Version::HTTP_2 || fields.all(Known::Cookie).nth(1).is_none() {
        return;
    }
    let cookie = fields.all(Known::Cookie).collect::<Vec<_>>().join(&b"; "[..]);
    fields.set("cookie", &cookie);
}

/// The fields of a response that goes back.
pub(super) fn clean_response(fields: &mut Fields) {
    remove_hop_by_hop(fields);
    // The hosts on the way are nobody's business outside (RFC 9110 7.6.3 lets a gateway leave Via out of responses).
    fields.remove_each(&[Known::ProxyAuthenticate, Known::Via, Known::Attempts]);
}

/// A field whose value Floodway vouches for: a client's own under this name, however it is spelled, does not go on. `None` if there
/// is nothing to be said.
pub(super) type Vouched = (HeaderName, Option<Box<[u8]>>);

/// Puts such a field in the place of what a client sent. CGI and its heirs read `-` and `_` as one.
pub(super) fn put_vouched(fields: &mut Fields, (name, value): &Vouched) {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let same = |one: &[u8]| one.iter().copied().map(plain).eq(name.as_str().bytes().map(plain));
    fields.retain(|_, line, _| !same(line));
    if let Some(value) = value {
        fields.add(name.as_str(), value);
    }
}

/// Makes the edits that a route asks for.
pub(super) fn edit(fields: &mut Fields, edits: &HeaderEdits) {
    for name in &edits.remove {
        fields.remove_named(name.as_str().as_bytes());
    }
    for (name, value) in &edits.set {
        fields.set(name.as_str(), value.as_bytes());
    }
    for (name, value) in &edits.add {
        fields.add(name.as_str(), value.as_bytes());
    }
}

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");
static PROXY_AUTHENTICATE: HeaderName = HeaderName::from_static("proxy-authenticate");

/// RFC 9110 6.5.1: "A sender MUST NOT generate a trailer field unless the sender knows the corresponding header field
/// name's definition permits sending that field in trailers": framing, routing, request modifiers, authentication and content
/// format are known not to.
pub(super) fn allowed_in_trailers(name: &HeaderName) -> bool {
    ![
        &TRANSFER_ENCODING,
        &CONTENT_LENGTH,
        &HOST,
        &TRAILER,
        &TE,
        &CONNECTION,
        &UPGRADE,
        &AUTHORIZATION,
        &CONTENT_TYPE,
        &CONTENT_ENCODING,
        &CONTENT_RANGE,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &PROXY_AUTHORIZATION,
        &PROXY_AUTHENTICATE,
        &http::header::SET_COOKIE,
        &COOKIE,
        &http::header::CACHE_CONTROL,
        &http::header::EXPECT,
    ]
    .contains(&name)
        // Some servers merge trailers into the fields, where these would pass for ours.
        && !is_forwarding(&name.as_str().replace('_', "-"))
}

/// Takes out of a frame of trailers what does not belong there. Data stays as it is.
pub(super) fn clean_trailers<D>(frame: &mut Frame<D>) {
    if let Some(fields) = frame.trailers_mut() {
        let strangers: Vec<HeaderName> = fields.keys().filter(|name| !allowed_in_trailers(name)).cloned().collect();
        for name in strangers {
            fields.remove(name);
        }
    }
}

/// Who the client is, and whether what it says of others is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// The client, found through trusted proxies.
    pub address: IpAddr,
    /// Whether the peer of the connection is a trusted proxy.
    pub trusted: bool,
}

/// Finds the client behind trusted proxies: from the right of X-Forwarded-For, the first address that is not one.
pub(super) fn client(fields: &Fields, peer: IpAddr, trusted: &[IpNet]) -> Client {
    let trusts = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    if !trusts(peer) {
        return Client { address: peer, trusted: false };
    }
    let mut address = peer;
    let hops: Vec<&[u8]> = fields.tokens(Known::ForwardedFor).collect();
    for hop in hops.into_iter().rev() {
        let Some(hop) = address_of(hop) else { break };
        address = hop;
        if !trusts(hop) {
            break;
        }
    }
    Client { address, trusted: true }
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn address_of(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?;
    hop.parse::<IpAddr>()
        .or_else(|_| hop.parse::<std::net::SocketAddr>().map(|address| address.ip()))
        .or_else(|_| hop.trim_matches(['[', ']']).parse())
        .ok()
        .map(|address| address.to_canonical())
}

/// Sets the forwarding fields of a request that goes on. From an untrusted peer every field of that family is
/// replaced or removed, whatever way its name is spelled.
pub(super) fn set_forwarded(fields: &mut Fields, peer: &Peer, client: Client, host: &str) {
    use Known::*;
    // CGI and its heirs read `-` and `_` as one: a field spelled with underscores would stand in for one of ours.
    if fields.contains(Underscored) {
        fields.retain(|known, name, _| {
            let name = if known == Underscored { std::str::from_utf8(name).unwrap_or_default() } else { "" };
            !is_forwarding(&name.replace('_', "-"))
        });
    }
    if !client.trusted {
        fields.remove_each(&[
            Forwarded,
            ForwardedFor,
            ForwardedHost,
            ForwardedProto,
            ForwardedOther,
            Mirror,
            RealIp,
            RequestId,
        ]);
    }
    if fields.contains(ForwardedFor) {
        let mut chain: Vec<&[u8]> = fields.tokens(ForwardedFor).collect();
        chain.push(peer.name());
        let chain = chain.join(&b", "[..]);
        fields.set("x-forwarded-for", &chain);
    } else {
        fields.add("x-forwarded-for", peer.name());
    }
    if !matches!(fields.get(ForwardedProto), Some(b"http" | b"https")) {
        fields.set("x-forwarded-proto", peer.scheme().as_bytes());
    }
    if !fields.contains(ForwardedHost) {
        fields.add("x-forwarded-host", host.as_bytes());
    }
}

/// Whether a request came by TLS: to us, or to a trusted proxy that says so.
pub(super) fn came_by_tls(fields: &Fields, peer: &Peer, client: Client) -> bool {
    peer.scheme() == "https" || client.trusted && fields.get(Known::ForwardedProto) == Some(b"https")
}

fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || name.starts_with("ssl-client-")
        || matches!(
            name,
            "forwarded" | "x-real-ip" | "x-request-id" | "client-cert" | "client-cert-chain" | ATTEMPTS | MIRROR
        )
}

/// The request id: the inbound one from a trusted proxy if it is sane, a new one otherwise.
pub(super) fn request_id(fields: &Fields, trusted: bool) -> Box<str> {
    match fields.text(Known::RequestId) {
        Some(id) if trusted && !id.is_empty() && id.len() <= 128 && id.bytes().all(is_id_byte) => id.into(),
        _ => new_request_id(),
    }
}

/// 128 random bits in hexadecimal.
pub(super) fn new_request_id() -> Box<str> {
    let mut id = [0; 32];
    // Not zero, which is the id of no trace (`trace`).
    trace::write_hex(&mut id, &fastrand::u128(1..).to_ne_bytes());
    std::str::from_utf8(&id).unwrap_or_default().into()
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=')
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
