//! Response heads from endpoints: read as strictly as requests, because what is in doubt must not be passed on. An endpoint
//! is less hostile than a client, but one that was broken into is a client's next hop all the same.

use std::mem::MaybeUninit;

use http::{Method, StatusCode, Version};

use super::head::{Framing, content_length, keep_alive};
use crate::proxy::fields::{Fields, Known};
use crate::proxy::message;

/// Fields of a response head.
const MAX_FIELDS: usize = 128;

/// A response head that is beyond doubt.
#[derive(Debug)]
pub(super) struct ResponseHead {
    /// Status and fields.
    pub(super) response: message::ResponseHead,
    /// Framing of the content.
    pub(super) framing: Framing,
    /// Whether the endpoint lets the connection be used again.
    pub(super) keep_alive: bool,
}

/// A head that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads a complete head that answers a request with `method`.
pub(super) fn parse(head: &[u8], method: &Method) -> Result<ResponseHead, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let read = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut fields);
    if !matches!(read, Ok(httparse::Status::Complete(length)) if length == head.len()) {
        return Err(Malformed);
    }
    let version = match parsed.version {
        Some(0) => Version::HTTP_10,
        Some(1) => Version::HTTP_11,
        _ => return Err(Malformed),
    };
    // RFC 9110 15: "Values outside the range 100..599 are invalid. Implementations often use three-digit integer values outside
    // of that range […] for internal communication"; clients take them for 5xx, and so they go on.
    let status = parsed.code.filter(|code| (100..1000).contains(code)).ok_or(Malformed)?;
    let status = StatusCode::from_u16(status).map_err(|_| Malformed)?;
    let fields = Fields::of_head(head, parsed.headers);
    let framing = framing(version, &fields, method, status)?;
    // A message that ends with the connection ends the connection.
    let keep_alive = keep_alive(version, &fields) && framing != Framing::UntilClose;
    Ok(ResponseHead { response: message::ResponseHead { status, fields }, framing, keep_alive })
}

/// RFC 9112 6.3, in its order, with every choice it leaves decided for refusal.
fn framing(version: Version, fields: &Fields, method: &Method, status: StatusCode) -> Result<Framing, Malformed> {
    let mut codings = fields.all(Known::TransferEncoding);
    let mut lengths = fields.all(Known::ContentLength);
    let declared = match (codings.next(), lengths.next()) {
        (None, None) => Framing::UntilClose,
        // "If a message is received with both a Transfer-Encoding and a Content-Length header field, the Transfer-Encoding
        // overrides the Content-Length. Such a message might indicate an attempt to perform […] response splitting".
        (Some(_), Some(_)) => return Err(Malformed),
        (Some(coding), None) => {
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            if version == Version::HTTP_10 || codings.next().is_some() || !chunked {
                return Err(Malformed);
            }
            Framing::Chunked
        }
        (None, Some(length)) => {
            if lengths.next().is_some() {
                return Err(Malformed);
            }
            Framing::Length(content_length(length).ok_or(Malformed)?)
        }
    };
    let empty = method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    Ok(if empty { Framing::None } else { declared })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(method: Method, raw: &str) -> Result<(u16, Framing, bool), Malformed> {
        parse(raw.as_bytes(), &method).map(|head| (head.response.status.as_u16(), head.framing, head.keep_alive))
    }

    #[test]
    fn framing_is_what_method_status_and_fields_say() {
        use Framing::*;
        for (method, raw, expected) in [
            (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", (200, Length(3), true)),
            (Method::GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", (200, Chunked, true)),
            (Method::GET, "HTTP/1.1 200\r\n\r\n", (200, UntilClose, false)),
            (Method::GET, "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", (200, Length(3), false)),
            (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", (200, None, true)),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", (304, None, true)),
            (Method::GET, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", (204, None, false)),
            (Method::GET, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", (103, None, true)),
        ] {
            assert_eq!(read(method, raw), Ok(expected), "{raw:?}");
        }
    }

    #[test]
    fn doubtful_heads_are_refused() {
        for raw in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n",
            "HTTP/1.1 099 No\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "<html>\r\n\r\n",
        ] {
            assert_eq!(read(Method::GET, raw), Err(Malformed), "{raw:?}");
        }
    }
}
