//! Request heads: where one ends, what it says, and how its content is framed. Everything that two servers could read
//! differently is refused here. `httparse` splits the text; the rules are ours, each beside the sentence it obeys.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::proxy::error::Error;
use crate::proxy::headers::tokens;
use crate::settings::Limits;

/// The longest request target. RFC 9112 3: "it is RECOMMENDED that all HTTP senders and recipients support, at a
/// minimum, request-line lengths of 8000 octets".
const MAX_TARGET: usize = 16 * 1024;

/// How the content of a message is delimited (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Until the connection ends; in responses only.
    UntilClose,
}

/// A request head that is beyond doubt.
#[derive(Debug)]
pub(super) struct Head {
    /// Method, target, version and fields, framing fields included.
    pub(super) request: Request<()>,
    /// Framing of the content.
    pub(super) framing: Framing,
    /// Whether the client waits for 100 (Continue).
    pub(super) expects_continue: bool,
    /// Whether the client lets the connection be used again.
    pub(super) keep_alive: bool,
}

/// Finds the end of a head in a buffer that grows, looking at each byte once.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    seen: usize,
    line_start: usize,
    request_line: usize,
    skipped: bool,
}

impl HeadScan {
    /// The length of the head once it is complete, with its empty line.
    ///
    /// # Errors
    /// A line that ends without CR, or a CR or NUL anywhere else.
    pub(super) fn find(&mut self, buffer: &mut BytesMut) -> Result<Option<usize>, Error> {
        // RFC 9112 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty
        // line (CRLF) received prior to the request-line". One, and no more.
        if !self.skipped && self.seen == 0 && buffer.starts_with(b"\r\n") {
            let _ = buffer.split_to(2);
            self.skipped = true;
        }
        while let Some(offset) = memchr::memchr3(b'\r', b'\n', 0, &buffer[self.seen..]) {
            let at = self.seen + offset;
            match (buffer[at], buffer.get(at + 1)) {
                (b'\r', None) => {
                    self.seen = at;
                    return Ok(None);
                }
                (b'\r', Some(b'\n')) => {
                    if at == self.line_start {
                        return if at == 0 {
                            Err(Error::BadRequest("empty lines before the request"))
                        } else {
                            Ok(Some(at + 2))
                        };
                    }
                    if self.line_start == 0 {
                        self.request_line = at;
                    }
                    self.line_start = at + 2;
                    self.seen = at + 2;
                }
                // RFC 9112 2.2: "A recipient of such a bare CR MUST consider that element to be invalid".
                (b'\r', Some(_)) => return Err(Error::BadRequest("CR without LF")),
                // RFC 9112 2.2 lets a recipient take a bare LF for a line's end. Others may not, so that two servers
                // would read two different messages; and NUL ends texts elsewhere.
                (b'\n', _) => return Err(Error::BadRequest("LF without CR")),
                _ => return Err(Error::BadRequest("NUL in the head")),
            }
        }
        self.seen = buffer.len();
        Ok(None)
    }

    /// What is too large about a head that is longer than `limit`.
    pub(super) fn too_large(&self, limit: usize) -> Error {
        if self.request_line == 0 || self.request_line > limit { Error::TargetTooLong } else { Error::HeadersTooLarge }
    }
}

/// Reads a complete head.
///
/// # Errors
/// Whatever a strict server refuses.
pub(super) fn parse(head: Bytes, limits: &Limits) -> Result<Head, Error> {
    let mut fields = [const { MaybeUninit::uninit() }; 256];
    let room = fields.len().min(limits.header_count.max(1));
    let mut parsed = httparse::Request::new(&mut []);
    match httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, &head, &mut fields[..room]) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Error::BadRequest("the head ends where no head ends")),
        Err(error) => return Err(refusal(error, &head)),
    }
    let version = match parsed.version {
        Some(0) => Version::HTTP_10,
        Some(1) => Version::HTTP_11,
        _ => return Err(Error::Version),
    };
    let method =
        Method::from_bytes(parsed.method.unwrap_or_default().as_bytes()).map_err(|_| Error::BadRequest("method"))?;
    let target = parsed.path.unwrap_or_default();
    if target.len() > MAX_TARGET {
        return Err(Error::TargetTooLong);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::BadRequest("characters in the request target that are not allowed there"));
    }
    if target.contains('#') {
        return Err(Error::BadRequest("a fragment in the request target"));
    }
    let uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).map_err(|_| Error::BadRequest("target"))?;

    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Error::BadRequest("field name"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value))
            .map_err(|_| Error::BadRequest("field value"))?;
        headers.try_append(name, value).map_err(|_| Error::HeadersTooLarge)?;
    }

    let framing = framing(version, &headers)?;
    let expects_continue = expects_continue(version, &headers)?;
    let keep_alive = keep_alive(version, &headers);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    Ok(Head { request, framing, expects_continue, keep_alive })
}

fn refusal(error: httparse::Error, head: &[u8]) -> Error {
    match error {
        httparse::Error::HeaderName => Error::BadRequest("field name"),
        httparse::Error::HeaderValue => Error::BadRequest("field value"),
        httparse::Error::NewLine => Error::BadRequest("line ending"),
        httparse::Error::Token => Error::BadRequest("request line"),
        httparse::Error::TooManyHeaders => Error::HeadersTooLarge,
        httparse::Error::Version if names_a_version(head) => Error::Version,
        httparse::Error::Version => Error::BadRequest("request line"),
        _ => Error::BadRequest("request head"),
    }
}

/// Whether the request line ends as `SP HTTP-version` does, `HTTP-version = "HTTP/" DIGIT "." DIGIT` (RFC 9112 2.3).
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    matches!(&words[..], [_, _, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// RFC 9112 6.3, with every choice it leaves decided for refusal.
fn framing(version: Version, headers: &HeaderMap) -> Result<Framing, Error> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::None),
        // RFC 9112 6.3: "If a message is received with both a Transfer-Encoding and a Content-Length header field […] Such
        // a message might indicate an attempt to perform request smuggling […] and ought to be handled as an error."
        (Some(_), Some(_)) => Err(Error::BadRequest("both Content-Length and Transfer-Encoding")),
        (Some(coding), None) => {
            // RFC 9112 6.1: "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header
            // field MUST treat the message as if the framing is faulty".
            if version == Version::HTTP_10 {
                return Err(Error::BadRequest("Transfer-Encoding in HTTP/1.0"));
            }
            // Codings other than chunked are deprecated in practice, and a list is where servers disagree.
            if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(Error::BadRequest("a Transfer-Encoding other than chunked"));
            }
            Ok(Framing::Chunked)
        }
        (None, Some(length)) => {
            if lengths.next().is_some() {
                return Err(Error::BadRequest("more than one Content-Length"));
            }
            content_length(length).map(Framing::Length).ok_or(Error::BadRequest("Content-Length"))
        }
    }
}

/// RFC 9110 8.6: `Content-Length = 1*DIGIT`; no sign, no list, no space, and no more than fits.
pub(super) fn content_length(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn expects_continue(version: Version, headers: &HeaderMap) -> Result<bool, Error> {
    let Some(value) = headers.get(EXPECT) else { return Ok(false) };
    // RFC 9110 10.1.1: "A server that receives an Expect field value containing a member other than 100-continue MAY
    // respond with a 417", and one "that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore" it.
    if headers.get_all(EXPECT).iter().count() > 1 || !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
        return Err(Error::Expectation);
    }
    Ok(version == Version::HTTP_11)
}

/// RFC 9112 9.3.
pub(super) fn keep_alive(version: Version, headers: &HeaderMap) -> bool {
    let mut close = false;
    let mut keep = false;
    for token in tokens(headers, CONNECTION) {
        close |= token.eq_ignore_ascii_case("close");
        keep |= token.eq_ignore_ascii_case("keep-alive");
    }
    !close && (version == Version::HTTP_11 || keep)
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
