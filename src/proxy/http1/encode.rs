//! Heads and chunks as bytes. What goes out is framed here and nowhere else; the framing fields that came in are
//! not copied.

use http::{HeaderMap, Method, StatusCode, Version};
use http_body::Body as _;

use crate::proxy::body::Body;
use crate::proxy::fields::Known;
use crate::proxy::message::{RequestHead, ResponseHead};

/// How content is delimited (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outbound {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Until the connection closes: an answer of unknown length to HTTP/1.0.
    UntilClose,
}

impl Outbound {
    /// The framing of an answer to a request with this method and version.
    pub(super) fn of(method: &Method, version: Version, status: StatusCode, body: &Body) -> Self {
        // RFC 9112 6.3, 1: "Any response to a HEAD request and any response with a 1xx (Informational), 204 (No Content), or
        // 304 (Not Modified) status code is always terminated by the first empty line after the header fields".
        if method == Method::HEAD || has_no_content(status) {
            return Outbound::None;
        }
        match body.size_hint().exact() {
            Some(length) => Outbound::Length(length),
            None if version == Version::HTTP_11 => Outbound::Chunked,
            None => Outbound::UntilClose,
        }
    }
}

fn has_no_content(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// What a head says about the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Persistence {
    /// Whether it stays open.
    pub(super) keep: bool,
    /// Whether the client must be told so, as HTTP/1.0 clients must.
    pub(super) tell: bool,
}

/// Writes a head.
pub(super) fn head(out: &mut Vec<u8>, parts: &ResponseHead, framing: Outbound, persistence: Persistence, date: &str) {
    status_line(out, parts.status);
    let upgrade = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    // RFC 9110 8.6: "A server MAY send a Content-Length header field in a response to a HEAD request" and in a 304; it
    // "MUST NOT send a Content-Length header field in any response with a status code of 1xx (Informational) or 204".
    let keeps_length =
        framing == Outbound::None && !parts.status.is_informational() && parts.status != StatusCode::NO_CONTENT;
    parts.fields.write(out, |name| match name {
        Known::Connection | Known::TransferEncoding => true,
        Known::Upgrade => !upgrade,
        Known::ContentLength => !keeps_length,
        _ => false,
    });
    match framing {
        Outbound::Length(length) => field(out, b"content-length", itoa::Buffer::new().format(length).as_bytes()),
        Outbound::Chunked => field(out, b"transfer-encoding", b"chunked"),
        Outbound::None | Outbound::UntilClose => {}
    }
    // RFC 9110 6.6.1: "A recipient with a clock that receives a response message without a Date header field MUST record the
    // time it was received and append a corresponding Date header field […] if it is cached or forwarded downstream."
    if !upgrade && !parts.fields.contains(Known::Date) {
        field(out, b"date", date.as_bytes());
    }
    if upgrade {
        field(out, b"connection", b"upgrade");
    } else if !persistence.keep {
        field(out, b"connection", b"close");
    } else if persistence.tell {
        field(out, b"connection", b"keep-alive");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim response, which has fields and nothing else.
pub(super) fn interim(out: &mut Vec<u8>, head: &ResponseHead) {
    status_line(out, head.status);
    // RFC 9110 8.6 and RFC 9112 6.1: no 1xx response has Content-Length or Transfer-Encoding.
    let ours = [Known::Connection, Known::TransferEncoding, Known::Upgrade, Known::ContentLength];
    head.fields.write(out, |name| ours.contains(&name));
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    // RFC 9112 2.3 / RFC 9110 2.5: the version is ours, whatever the client's minor version is.
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a request head, and tells how its content follows.
pub(super) fn request_head(out: &mut Vec<u8>, head: &RequestHead, body: &Body) -> Outbound {
    let framing = match body.size_hint().exact() {
        Some(0) => Outbound::None,
        Some(length) => Outbound::Length(length),
        None => Outbound::Chunked,
    };
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.path_and_query.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // RFC 9110 7.2: "A user agent that sends Host SHOULD send it as the first field in the header section".
    if let Some(host) = head.fields.get(Known::Host) {
        field(out, b"host", host);
    }
    let said_length = head.fields.contains(Known::ContentLength);
    head.fields.write(out, |name| matches!(name, Known::Host | Known::TransferEncoding | Known::ContentLength));
    match framing {
        Outbound::Length(length) => field(out, b"content-length", itoa::Buffer::new().format(length).as_bytes()),
        Outbound::Chunked => field(out, b"transfer-encoding", b"chunked"),
        // RFC 9110 8.6: a sender "SHOULD send a Content-Length field in a request when the method defines a meaning for enclosed
        // content and it is not sending Transfer-Encoding".
        Outbound::None if said_length || matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => {
            field(out, b"content-length", b"0");
        }
        Outbound::None | Outbound::UntilClose => {}
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// Writes the line before a chunk's content.
pub(super) fn chunk_size(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(format_hex(length, &mut [0; 16]));
    out.extend_from_slice(b"\r\n");
}

fn format_hex(mut number: usize, digits: &mut [u8; 16]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[number & 15];
        number >>= 4;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// Writes the last chunk and the trailer section.
pub(super) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if crate::proxy::headers::allowed_in_trailers(name) {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;
    use crate::proxy::fields::Fields;

    #[test]
    fn framing_follows_method_status_and_version() {
        let known = || Body::full(Bytes::from_static(b"abc"));
        for (method, version, status, expected) in [
            (Method::GET, Version::HTTP_11, 200, Outbound::Length(3)),
            (Method::HEAD, Version::HTTP_11, 200, Outbound::None),
            (Method::GET, Version::HTTP_11, 204, Outbound::None),
            (Method::GET, Version::HTTP_11, 304, Outbound::None),
            (Method::GET, Version::HTTP_10, 200, Outbound::Length(3)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Outbound::of(&method, version, status, &known()), expected, "{method} {status}");
        }
    }

    #[test]
    fn framing_fields_that_came_in_are_not_copied() {
        let fields = Fields::of(&[
            ("content-length", "99"),
            ("transfer-encoding", "gzip"),
            ("connection", "x"),
            ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ]);
        let parts = ResponseHead { status: StatusCode::OK, fields };
        let mut out = Vec::new();
        head(&mut out, &parts, Outbound::Chunked, Persistence { keep: false, tell: false }, "now");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
    }

    #[test]
    fn sizes_are_hexadecimal() {
        for (number, text) in [(0, "0"), (9, "9"), (16, "10"), (255, "ff"), (65_536, "10000")] {
            assert_eq!(format_hex(number, &mut [0; 16]), text.as_bytes());
        }
    }
}
