//! Laws of the codec, for properties and fuzzing: bytes mean the same however they are cut, and what is taken is written so
//! that it is read as the same again. A law that is broken panics. How bytes come from the network is `conn`'s.

use std::fmt::Debug;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use http_body::Frame;

use super::chunked::{Chunked, Decoded, Then};
use super::encode::{self, Outbound, Persistence};
use super::head::{self, Framing, Head, HeadScan};
use super::response::{self, ResponseHead};
use crate::proxy::body::{Body, Content};
use crate::proxy::error::Error;
use crate::proxy::fields::Fields;
use crate::settings::Limits;

/// Bytes of a head.
const MAX_HEAD: usize = 64 * 1024;
/// Fields that an answer may have so that those that are added fit, too.
const FIELDS: usize = 120;

/// What became of the first message in some bytes.
#[derive(Debug)]
pub(super) struct Message<H> {
    pub(super) head: Option<H>,
    pub(super) content: Vec<u8>,
    pub(super) trailers: HeaderMap,
    pub(super) end: End,
    /// Bytes behind it.
    rest: Vec<u8>,
}

/// How far it went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    Unfinished,
    Refused(String),
}

/// Reads a request, `size` bytes at a time.
pub(super) fn read_request(raw: &[u8], size: usize, limits: &Limits) -> Message<Head> {
    decode(raw, size, |bytes| {
        let head = head::parse(bytes, limits).map_err(|error| error.to_string())?;
        let framing = head.framing;
        Ok((head, framing))
    })
}

/// Reads an answer to a request with `method`, `size` bytes at a time.
pub(super) fn read_response(raw: &[u8], size: usize, method: &Method) -> Message<ResponseHead> {
    decode(raw, size, |bytes| {
        let head = response::parse(bytes, method).map_err(|error| format!("{error:?}"))?;
        let framing = head.framing;
        Ok((head, framing))
    })
}

/// Holds the laws for a request.
pub(in crate::proxy) fn request(raw: &[u8]) {
    let mut limits = Limits::default();
    let message = read_request(raw, raw.len(), &limits);
    splits_change_nothing(raw, &message, |size| read_request(raw, size, &limits));

    let Message { head: Some(Head { request: head, framing, .. }), content, trailers, end: End::Whole, .. } = message
    else {
        return;
    };
    // Who names two hosts is refused later.
    if fields(&head.fields).get_all(HOST).iter().count() > 1 {
        return;
    }
    let mut out = Vec::new();
    let written = encode::request_head(&mut out, &head, &body(framing, &content));
    frame(&mut out, written == Outbound::Chunked, &content, &trailers);

    // A length that was not there may have come in beside as many fields as are allowed.
    limits.header_count += 1;
    let again = read_request(&out, out.len(), &limits);
    assert_eq!(again.end, End::Whole, "{:?}", String::from_utf8_lossy(&out));
    let Some(Head { request: same, .. }) = again.head else { return };
    assert_eq!((&same.method, &same.path_and_query), (&head.method, &head.path_and_query));
    assert_eq!(without_framing(fields(&same.fields)), without_framing(fields(&head.fields)));
    assert_eq!((again.content, again.trailers), (content, trailers));
    assert!(again.rest.is_empty());
}

/// Holds the laws for an answer to GET, and to HEAD.
pub(in crate::proxy) fn response(raw: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        let message = read_response(raw, raw.len(), &method);
        splits_change_nothing(raw, &message, |size| read_response(raw, size, &method));

        let Message { head: Some(head), content, trailers, end: End::Whole, .. } = message else { continue };
        let ResponseHead { response, framing, .. } = head;
        if response.fields.len() > FIELDS {
            continue;
        }
        let framing = Outbound::of(&method, Version::HTTP_11, response.status, &body(framing, &content));
        let mut out = Vec::new();
        let persistence = Persistence { keep: true, tell: false };
        encode::head(&mut out, &response, framing, persistence, "Thu, 01 Jan 1970 00:00:00 GMT");
        frame(&mut out, framing == Outbound::Chunked, &content, &trailers);

        let again = read_response(&out, out.len(), &method);
        assert_eq!(again.end, End::Whole, "{:?}", String::from_utf8_lossy(&out));
        let Some(ResponseHead { response: same, .. }) = again.head else { continue };
        assert_eq!(same.status, response.status);
        assert_eq!(without_framing(fields(&same.fields)), without_framing(fields(&response.fields)));
        assert_eq!((again.content, again.trailers), (content, trailers));
        assert!(again.rest.is_empty());
    }
}

/// Reads the first message of `raw`, `size` bytes at a time, as connections do.
fn decode<H>(raw: &[u8], size: usize, parse: impl Fn(&[u8]) -> Result<(H, Framing), String>) -> Message<H> {
    let mut pieces = raw.chunks(size.max(1));
    let (mut buffer, mut scan) = (BytesMut::new(), HeadScan::default());
    let mut message =
        Message { head: None, content: Vec::new(), trailers: HeaderMap::new(), end: End::Unfinished, rest: Vec::new() };
    let head = loop {
        match scan.find(&buffer) {
            Ok(Some(head)) if head.len() <= MAX_HEAD => break head,
            Ok(None) if buffer.len() <= MAX_HEAD => {}
            Ok(_) => return Message { end: End::Refused("too large".into()), ..message },
            Err(error) => return Message { end: End::Refused(error.to_string()), ..message },
        }
        let Some(piece) = pieces.next() else { return message };
        buffer.extend_from_slice(piece);
    };
    let parsed = parse(&buffer[head.clone()]);
    buffer.advance(head.end);
    let framing = match parsed {
        Ok((head, framing)) => {
            message.head = Some(head);
            framing
        }
        Err(why) => return Message { end: End::Refused(why), ..message },
    };
    let mut chunks = Chunked::default();
    loop {
        let before = buffer.len();
        message.end = match framing {
            Framing::None => End::Whole,
            Framing::Length(length) => {
                let missing = usize::try_from(length).unwrap_or(usize::MAX) - message.content.len();
                message.content.extend_from_slice(&buffer.split_to(missing.min(before)));
                if missing <= before { End::Whole } else { End::Unfinished }
            }
            Framing::UntilClose => {
                message.content.extend_from_slice(&buffer.split());
                if pieces.len() == 0 { End::Whole } else { End::Unfinished }
            }
            Framing::Chunked => match chunks.decode(&mut buffer) {
                Ok(Decoded { content, used, then }) => {
                    let told = !content.is_empty();
                    message.content.extend_from_slice(&buffer[content]);
                    buffer.advance(used);
                    match then {
                        Then::More if told => continue,
                        Then::More => End::Unfinished,
                        Then::End => End::Whole,
                        Then::Trailers(trailers) => {
                            message.trailers = trailers;
                            End::Whole
                        }
                    }
                }
                Err(_) => return Message { end: End::Refused("chunk".into()), ..message },
            },
        };
        let next = if message.end == End::Whole { None } else { pieces.next() };
        match next {
            Some(piece) => buffer.extend_from_slice(piece),
            None => {
                message.rest = [&buffer[..], &pieces.collect::<Vec<_>>().concat()].concat();
                return message;
            }
        }
    }
}

fn splits_change_nothing<H: Debug>(raw: &[u8], whole: &Message<H>, read: impl Fn(usize) -> Message<H>) {
    // What is too large may be found to be so before something else is found wrong with it.
    if raw.len() > MAX_HEAD {
        return;
    }
    let whole = said(whole);
    for size in [1, 2, 3, 7, raw.len() / 2, raw.len().saturating_sub(1)] {
        assert_eq!(said(&read(size)), whole, "in pieces of {size}");
    }
}

/// What a reader would know of a message. Of one that is refused it may have got more or less.
fn said<H: Debug>(message: &Message<H>) -> String {
    match &message.end {
        End::Refused(why) => format!("refused: {why}"),
        _ => format!("{message:?}"),
    }
}

/// Content whose length is known only if the framing tells it.
fn body(framing: Framing, content: &[u8]) -> Body {
    match framing {
        Framing::None | Framing::Length(_) => Body::full(Bytes::copy_from_slice(content)),
        Framing::Chunked | Framing::UntilClose => Body::stream(Endless),
    }
}

fn frame(out: &mut Vec<u8>, chunked: bool, content: &[u8], trailers: &HeaderMap) {
    if !chunked {
        out.extend_from_slice(content);
        return;
    }
    // In two chunks, so that there is a border between them.
    for part in content.chunks(content.len().div_ceil(2).max(1)) {
        encode::chunk_size(out, part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    encode::last_chunk(out, Some(trailers));
}

/// Fields as the `http` crate holds them, so that the order of those with different names does not matter.
pub(super) fn fields(fields: &Fields) -> HeaderMap {
    let parts = fields.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name).unwrap_or_else(|_| panic!("{name:?} is no name"));
        (name, HeaderValue::from_bytes(value).unwrap_or_else(|_| panic!("{value:?} is no value")))
    });
    parts.fold(HeaderMap::new(), |mut fields, (name, value)| {
        fields.append(name, value);
        fields
    })
}

/// The fields that are not written anew.
fn without_framing(mut headers: HeaderMap) -> HeaderMap {
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE, DATE] {
        headers.remove(name);
    }
    headers
}

/// Content of a length that nobody knows.
struct Endless;

impl Content for Endless {}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Error>>> {
        std::task::Poll::Pending
    }
}

#[cfg(test)]
#[path = "laws_tests.rs"]
pub(super) mod tests;
