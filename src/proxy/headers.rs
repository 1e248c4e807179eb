//! Which fields are forwarded, and the ones that the proxy sets: hop-by-hop fields end here, forwarding fields are
//! believed from trusted proxies only.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, HOST, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use http_body::Frame;
use ipnet::IpNet;

/// `X-Forwarded-For`
pub(super) static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`
pub(super) static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`
pub(super) static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `X-Request-Id`
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");
static PROXY_AUTHENTICATE: HeaderName = HeaderName::from_static("proxy-authenticate");

/// The members of a list field, without empty ones.
pub(super) fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

/// Removes what is meant for this connection alone (RFC 9110 7.6.1): "Intermediaries MUST parse a received Connection
/// header field before a message is forwarded and, for each connection-option in this field, remove any header or trailer
/// field(s) from the message with the same name as the connection-option, and then remove the Connection header field
/// itself"; and "intermediaries SHOULD remove or replace fields that are known to require removal before forwarding,
/// whether or not they appear as a connection-option".
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, CONNECTION).filter_map(|token| token.parse().ok()).collect();
        for name in named {
            // The message's own target is no option of a connection; a client must not take it away from the next server.
            if name != HOST {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &TRANSFER_ENCODING, &UPGRADE, &HTTP2_SETTINGS] {
        headers.remove(name);
    }
}

/// The fields of a request that goes on, apart from Host and framing, which the connection sets.
pub(super) fn clean_request(headers: &mut HeaderMap) {
    // RFC 9110 10.1.4: "te: trailers" says that the client takes trailers, and so do we on its behalf.
    let trailers = tokens(headers, TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(headers);
    headers.remove(TE);
    headers.remove(&PROXY_AUTHORIZATION);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// RFC 9113 8.2.3: cookies that HTTP/2 splits into several fields "MUST be concatenated into a single octet string using
/// the two-octet delimiter of 0x3b, 0x20" before they go to HTTP/1.1.
pub(super) fn join_cookies(headers: &mut HeaderMap, version: Version) {
    if version != Version::HTTP_2 || headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

/// The fields of a response that goes back.
pub(super) fn clean_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    headers.remove(&PROXY_AUTHENTICATE);
    // The hosts on the way are nobody's business outside (RFC 9110 7.6.3 lets a gateway leave Via out of responses).
    headers.remove(VIA);
}

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
pub(super) fn client(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Client {
    let trusts = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    if !trusts(peer) {
        return Client { address: peer, trusted: false };
    }
    let mut address = peer;
    let hops: Vec<&str> = tokens(headers, FORWARDED_FOR.clone()).collect();
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
fn address_of(hop: &str) -> Option<IpAddr> {
    hop.parse::<IpAddr>()
        .or_else(|_| hop.parse::<std::net::SocketAddr>().map(|address| address.ip()))
        .or_else(|_| hop.trim_matches(['[', ']']).parse())
        .ok()
        .map(|address| address.to_canonical())
}

/// Sets the forwarding fields of a request that goes on. From an untrusted peer every field of that family is
/// replaced or removed, whatever way its name is spelled.
pub(super) fn set_forwarded(headers: &mut HeaderMap, peer: IpAddr, client: Client, scheme: &'static str, host: &str) {
    // CGI and its heirs read `-` and `_` as one: a field spelled with underscores would stand in for one of ours.
    let spoofed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            if name.contains('_') {
                is_forwarding(&name.replace('_', "-"))
            } else {
                !client.trusted && is_forwarding(name)
            }
        })
        .cloned()
        .collect();
    for name in spoofed {
        headers.remove(name);
    }
    let mut chain = String::new();
    for hop in tokens(headers, FORWARDED_FOR.clone()) {
        chain.push_str(hop);
        chain.push_str(", ");
    }
    chain.push_str(&peer.to_string());
    set(headers, &FORWARDED_FOR, &chain);
    let known = headers.get(&FORWARDED_PROTO).is_some_and(|value| value == "http" || value == "https");
    if !known {
        headers.insert(FORWARDED_PROTO.clone(), HeaderValue::from_static(scheme));
    }
    if !headers.contains_key(&FORWARDED_HOST) {
        set(headers, &FORWARDED_HOST, host);
    }
}

fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "x-request-id")
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name.clone(), value);
        }
        Err(_) => {
            headers.remove(name);
        }
    }
}

/// The request id: the inbound one from a trusted proxy if it is sane, a new one otherwise.
pub(super) fn request_id(headers: &HeaderMap, trusted: bool) -> Box<str> {
    let inbound = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    match inbound {
        Some(id) if trusted && !id.is_empty() && id.len() <= 128 && id.bytes().all(is_id_byte) => id.into(),
        _ => format!("{:032x}", fastrand::u128(..)).into(),
    }
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=')
}

/// The trace id of a valid W3C `traceparent`.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<Box<str>> {
    let value = headers.get(&TRACEPARENT)?.to_str().ok()?;
    let mut parts = value.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let nonzero = trace.bytes().any(|byte| byte != b'0');
    (hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && nonzero).then(|| trace.into())
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
