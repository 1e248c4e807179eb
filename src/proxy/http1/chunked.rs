//! Chunked content (RFC 9112 7.1), decoded strictly. Extensions are read and dropped; what is forwarded is framed anew.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::headers;

/// The longest line of a chunk head, size and extensions.
const MAX_LINE: usize = 1024;
/// The longest trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// Why chunks cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What came next.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    /// Content.
    Data(Bytes),
    /// The trailer section, which ends the content.
    Trailers(HeaderMap),
    /// The end, without trailers.
    End,
}

/// Where the decoder stands.
#[derive(Debug, Default)]
pub(super) enum Chunked {
    /// Before a chunk's size.
    #[default]
    Size,
    /// Inside a chunk of which so much is missing.
    Data(u64),
    /// Before the line end that follows a chunk.
    DataEnd,
    /// Inside the trailer section.
    Trailers,
    /// Behind everything.
    Done,
}

/// What follows the last content if there are no trailers.
const LAST: &[u8] = b"\r\n0\r\n\r\n";

impl Chunked {
    /// Whether nothing follows the content that was just taken; takes the end from `buffer`. Most messages arrive with their
    /// end, and who knows it early sends it along.
    pub(super) fn ends(&mut self, buffer: &mut BytesMut) -> bool {
        let ends = matches!(self, Chunked::DataEnd) && buffer.starts_with(LAST);
        if ends {
            buffer.advance(LAST.len());
            *self = Chunked::Done;
        }
        ends
    }

    /// Takes what it can from `buffer`; `None` if more bytes are needed. After [`Item::Trailers`] or [`Item::End`] it must
    /// not be called again.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Item>, Malformed> {
        loop {
            match self {
                Chunked::Size => {
                    let Some(line) = line(buffer, MAX_LINE)? else { return Ok(None) };
                    *self = match size(&line)? {
                        0 => Chunked::Trailers,
                        size => Chunked::Data(size),
                    };
                }
                Chunked::Data(missing) => {
                    if buffer.is_empty() {
                        return Ok(None);
                    }
                    let length = usize::try_from(*missing).unwrap_or(usize::MAX).min(buffer.len());
                    *missing -= length as u64;
                    if *missing == 0 {
                        *self = Chunked::DataEnd;
                    }
                    return Ok(Some(Item::Data(buffer.split_to(length).freeze())));
                }
                Chunked::DataEnd => {
                    if buffer.len() < 2 {
                        return if buffer.is_empty() || buffer[0] == b'\r' { Ok(None) } else { Err(Malformed) };
                    }
                    if &buffer[..2] != b"\r\n" {
                        return Err(Malformed);
                    }
                    buffer.advance(2);
                    *self = Chunked::Size;
                }
                Chunked::Trailers => {
                    let Some(section) = trailers(buffer)? else { return Ok(None) };
                    *self = Chunked::Done;
                    return Ok(Some(if section.is_empty() { Item::End } else { Item::Trailers(section) }));
                }
                Chunked::Done => return Ok(Some(Item::End)),
            }
        }
    }
}

/// A line that ends with CRLF, without it.
fn line(buffer: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, Malformed> {
    match memchr::memchr(b'\n', buffer) {
        Some(at) if at > 0 && at <= limit && buffer[at - 1] == b'\r' => {
            let mut line = buffer.split_to(at + 1);
            line.truncate(at - 1);
            if line.contains(&b'\r') { Err(Malformed) } else { Ok(Some(line)) }
        }
        Some(_) => Err(Malformed),
        None if buffer.len() > limit => Err(Malformed),
        None => Ok(None),
    }
}

/// RFC 9112 7.1: `chunk = chunk-size [ chunk-ext ] CRLF`, `chunk-size = 1*HEXDIG`. "recipients MUST anticipate potentially
/// large hexadecimal numerals and prevent parsing errors due to integer conversion overflows": 15 digits and no more.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 15 {
        return Err(Malformed);
    }
    // `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`. Space before the semicolon is "bad"
    // and refused, as is anything that is not printable.
    match &line[digits..] {
        [] => {}
        [b';', rest @ ..] if rest.iter().all(|&byte| byte == b'\t' || (0x20..0x7f).contains(&byte)) => {}
        _ => return Err(Malformed),
    }
    Ok(line[..digits]
        .iter()
        .fold(0, |sum, digit| sum << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or_default())))
}

/// The trailer section once it is complete. Fields that must not be trailers are dropped.
fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
        let lone = memchr::memchr_iter(b'\n', buffer).any(|at| at == 0 || buffer[at - 1] != b'\r');
        return if lone || buffer.len() > MAX_TRAILERS { Err(Malformed) } else { Ok(None) };
    };
    if end > MAX_TRAILERS {
        return Err(Malformed);
    }
    let section = buffer.split_to(end + 4).freeze();
    let mut fields = HeaderMap::new();
    let mut rest = &section[..end];
    loop {
        let (line, after) = match memchr::memchr(b'\r', rest) {
            Some(at) if rest.get(at + 1) == Some(&b'\n') => (&rest[..at], Some(&rest[at + 2..])),
            Some(_) => return Err(Malformed),
            None => (rest, None),
        };
        let colon = memchr::memchr(b':', line).ok_or(Malformed)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Malformed)?;
        let value = HeaderValue::from_bytes(without_space(&line[colon + 1..])).map_err(|_| Malformed)?;
        if headers::allowed_in_trailers(&name) {
            fields.try_append(name, value).map_err(|_| Malformed)?;
        }
        match after {
            Some(after) => rest = after,
            None => return Ok(Some(fields)),
        }
    }
}

/// RFC 9110 5.6.3: `OWS = *( SP / HTAB )`. No other space: a line feed that is taken for it would end a line elsewhere.
fn without_space(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Feeds `raw` in two parts and returns the content and trailers, or `None` if it is incomplete.
    fn decode(raw: &[u8], split: usize) -> Result<Option<(Vec<u8>, HeaderMap)>, Malformed> {
        let mut decoder = Chunked::default();
        let mut buffer = BytesMut::from(&raw[..split]);
        let mut content = Vec::new();
        let mut parts = [&raw[split..]].into_iter();
        loop {
            match decoder.next(&mut buffer)? {
                Some(Item::Data(data)) => content.extend_from_slice(&data),
                Some(Item::Trailers(fields)) => return Ok(Some((content, fields))),
                Some(Item::End) => return Ok(Some((content, HeaderMap::new()))),
                None => match parts.next() {
                    Some(part) => buffer.extend_from_slice(part),
                    None => return Ok(None),
                },
            }
        }
    }

    #[test]
    fn any_split_gives_the_same_content() {
        let raw =
            b"4;name=\"value\"\r\nWiki\r\n000b\r\npedia in \r\n\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\nHost: a\r\n\r\n";
        for split in 0..=raw.len() {
            let (content, trailers) = decode(raw, split).unwrap().unwrap();
            assert_eq!(content, b"Wikipedia in \r\n0123456789", "split at {split}");
            assert_eq!(trailers.len(), 1, "only x-sum may stay");
            assert_eq!(trailers["x-sum"], "1");
        }
        assert_eq!(decode(b"0\r\n\r\n", 2).unwrap().unwrap().0, b"");
    }

    #[test]
    fn an_end_that_is_there_is_known_with_the_last_content() {
        for (raw, ends) in [("1\r\nx\r\n0\r\n\r\n", true), ("1\r\nx\r\n0\r\nA: b\r\n\r\n", false), ("2\r\nx", false)] {
            let (mut decoder, mut buffer) = (Chunked::default(), BytesMut::from(raw));
            assert_eq!(decoder.next(&mut buffer), Ok(Some(Item::Data(Bytes::from_static(b"x")))));
            assert_eq!(decoder.ends(&mut buffer), ends, "{raw:?}");
            assert_eq!(buffer.is_empty(), ends || raw.starts_with('2'));
        }
    }

    #[test]
    fn whatever_is_not_exactly_a_chunk_is_refused() {
        for raw in [
            "\r\n",
            " 1\r\nx\r\n",
            "1 \r\nx\r\n",
            "1 ;a\r\nx\r\n",
            "0x1\r\nx\r\n",
            "+1\r\nx\r\n",
            "-1\r\nx\r\n",
            "g\r\n",
            "1\nx\r\n",
            "1\r\nxx\r\n",
            "1\r\nx\n",
            "1\r\nx0\r\n",
            "1;a\rb\r\nx\r\n",
            "1;\0\r\nx\r\n",
            "ffffffffffffffff\r\n",
            "00000000000000001\r\nx\r\n",
            "0\r\n\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\nX: a\rb\r\n\r\n",
            "0\r\nX: a\nY: b\r\n\r\n",
            "0\r\nX: a\n\r\n\r\n",
            "0\r\nX:\n\na\r\n\r\n",
            "0\r\nX: a\x0c\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
        ] {
            for split in 0..=raw.len() {
                assert_eq!(decode(raw.as_bytes(), split), Err(Malformed), "{raw:?} split at {split}");
            }
        }
        assert_eq!(decode(format!("1;{}", "a".repeat(MAX_LINE + 1)).as_bytes(), 0), Err(Malformed));
        assert_eq!(decode(format!("0\r\nX: {}", "a".repeat(MAX_TRAILERS)).as_bytes(), 0), Err(Malformed));
    }

    proptest::proptest! {
        /// Chunks mean the same however they arrive.
        #[test]
        fn any_two_splits_give_the_same_verdict(
            pieces in proptest::collection::vec(proptest::sample::select(&[
                "5\r\nhello\r\n", "1;a=b\r\nx\r\n", "0\r\n", "\r\n", "X: y\r\n", "A\r\n0123456789\r\n", "5 \r\n", "\n", "\r", "g",
            ][..]), 1..8),
            one in 0usize..80,
            other in 0usize..80,
        ) {
            let raw = pieces.concat();
            let (one, other) = (one.min(raw.len()), other.min(raw.len()));
            proptest::prop_assert_eq!(decode(raw.as_bytes(), one), decode(raw.as_bytes(), other), "{:?}", raw);
        }
    }
}
