//! Request heads: where one ends, what it says, and how its content is framed. Everything that two servers could read
//! differently is refused here. `httparse` splits the text; the rules are ours, each beside the sentence it obeys.

use std::mem::MaybeUninit;

use std::ops::Range;

use http::{Method, Version};

use crate::proxy::error::Error;
use crate::proxy::fields::{Fields, Known};
use crate::proxy::message::RequestHead;
use crate::proxy::target;
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
    pub(super) request: RequestHead,
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
    start: usize,
    seen: usize,
    line_start: usize,
    request_line: usize,
}

impl HeadScan {
    /// Where the head is, with its empty line, once it is complete.
    ///
    /// # Errors
    /// A line that ends without CR, or a CR or NUL anywhere else.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Result<Option<Range<usize>>, Error> {
        // RFC 9112 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty
        // line (CRLF) received prior to the request-line". One, and no more.
        if self.seen == 0 && bytes.starts_with(b"\r\n") {
            (self.start, self.seen, self.line_start) = (2, 2, 2);
        }
        while let Some(offset) = memchr::memchr3(b'\r', b'\n', 0, &bytes[self.seen..]) {
            let at = self.seen + offset;
            match (bytes[at], bytes.get(at + 1)) {
                (b'\r', None) => {
                    self.seen = at;
                    return Ok(None);
                }
                (b'\r', Some(b'\n')) => {
                    if at == self.line_start {
                        return if at == self.start {
                            Err(Error::BadRequest("empty lines before the request"))
                        } else {
                            Ok(Some(self.start..at + 2))
                        };
                    }
                    if self.line_start == self.start {
                        self.request_line = at - self.start;
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
        self.seen = bytes.len();
        Ok(None)
    }

    /// Bytes before the head: an empty line is no beginning.
    pub(super) fn skipped(&self) -> usize {
        self.start
    }

    /// Where a head of at most `limit` bytes is, once it is complete.
    ///
    /// # Errors
    /// As [`HeadScan::find`], and a head that is larger.
    pub(super) fn find_within(&mut self, bytes: &[u8], limit: usize) -> Result<Option<Range<usize>>, Error> {
        match self.find(bytes)? {
            Some(head) if head.len() <= limit => Ok(Some(head)),
            None if bytes.len() <= limit => Ok(None),
            _ => Err(self.too_large(limit)),
        }
    }

    /// What is too large about a head that is longer than `limit`.
    fn too_large(&self, limit: usize) -> Error {
        if self.request_line == 0 || self.request_line > limit { Error::TargetTooLong } else { Error::HeadersTooLarge }
    }
}

/// Reads a complete head.
///
/// # Errors
/// Whatever a strict server refuses.
pub(super) fn parse(head: &[u8], limits: &Limits) -> Result<Head, Error> {
    let mut fields = [const { MaybeUninit::uninit() }; 256];
    let room = fields.len().min(limits.header_count.max(1));
    let mut parsed = httparse::Request::new(&mut []);
    match httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, head, &mut fields[..room]) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Error::BadRequest("the head ends where no head ends")),
        Err(error) => return Err(refusal(error, head)),
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
    let (form, authority, path_and_query) = target::parse(target)?;
    let fields = Fields::of_head(head, parsed.headers);
    let framing = framing(version, &fields)?;
    let expects_continue = expects_continue(version, &fields)?;
    let keep_alive = keep_alive(version, &fields);
    let request = RequestHead { method, version, form, authority, path_and_query, fields };
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
fn framing(version: Version, fields: &Fields) -> Result<Framing, Error> {
    let mut codings = fields.all(Known::TransferEncoding);
    let mut lengths = fields.all(Known::ContentLength);
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
            if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
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
pub(super) fn content_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn expects_continue(version: Version, fields: &Fields) -> Result<bool, Error> {
    let Some(value) = fields.get(Known::Expect) else { return Ok(false) };
    // RFC 9110 10.1.1: "A server that receives an Expect field value containing a member other than 100-continue MAY
    // respond with a 417", and one "that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore" it.
    if fields.all(Known::Expect).count() > 1 || !value.eq_ignore_ascii_case(b"100-continue") {
        return Err(Error::Expectation);
    }
    Ok(version == Version::HTTP_11)
}

/// RFC 9112 9.3.
pub(super) fn keep_alive(version: Version, fields: &Fields) -> bool {
    !fields.lists(Known::Connection, "close")
        && (version == Version::HTTP_11 || fields.lists(Known::Connection, "keep-alive"))
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
