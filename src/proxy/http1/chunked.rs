//! Chunked content (RFC 9112 7.1), decoded strictly. Extensions are read and dropped; what is forwarded is framed anew.

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::headers;

/// The longest line of a chunk head, size and extensions.
const MAX_LINE: usize = 1024;
/// The longest trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// Why chunks cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What some bytes are.
#[derive(Debug, PartialEq)]
pub(super) struct Decoded {
    /// Where the content is: that of all chunks, side by side.
    pub(super) content: Range<usize>,
    /// How many bytes were gone over, content and framing. The rest is not understood yet.
    pub(super) used: usize,
    /// What follows the content.
    pub(super) then: Then,
}

/// What follows some content.
#[derive(Debug, PartialEq)]
pub(super) enum Then {
    /// More of it, or something that it must not be told together with. If there was no content, more bytes are needed.
    More,
    /// The trailer section, which ends the content.
    Trailers(HeaderMap),
    /// The end, without trailers. Most messages arrive with their end, and who knows it early sends it along.
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

/// One step of the decoder, and how many bytes it takes.
enum Step {
    Framing(usize),
    Content(usize),
    Trailers(HeaderMap, usize),
    /// More bytes are needed.
    Missing,
}

impl Chunked {
    /// Goes over as much of `bytes` as it can, and moves the content of several chunks together. Content is told before what is
    /// wrong behind it.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, Malformed> {
        let (mut content, mut used) = (0..0, 0);
        let then = loop {
            match self.step(&bytes[used..]) {
                Ok(Step::Framing(length)) => used += length,
                Ok(Step::Content(length)) => {
                    if content.is_empty() {
                        content = used..used;
                    } else {
                        bytes.copy_within(used..used + length, content.end);
                    }
                    content.end += length;
                    used += length;
                }
                Ok(Step::Trailers(fields, length)) => {
                    if fields.is_empty() {
                        used += length;
                        *self = Chunked::Done;
                        break Then::End;
                    }
                    if !content.is_empty() {
                        break Then::More;
                    }
                    used += length;
                    *self = Chunked::Done;
                    break Then::Trailers(fields);
                }
                Err(malformed) if content.is_empty() => return Err(malformed),
                Ok(Step::Missing) | Err(_) => break Then::More,
            }
        };
        Ok(Decoded { content, used, then })
    }

    /// What is wrong is found again, and so are trailers: both leave the decoder where it stands.
    fn step(&mut self, rest: &[u8]) -> Result<Step, Malformed> {
        match self {
            Chunked::Size => {
                let Some(line) = line(rest, MAX_LINE)? else { return Ok(Step::Missing) };
                *self = match size(line)? {
                    0 => Chunked::Trailers,
                    size => Chunked::Data(size),
                };
                Ok(Step::Framing(line.len() + 2))
            }
            Chunked::Data(_) if rest.is_empty() => Ok(Step::Missing),
            Chunked::Data(missing) => {
                let length = usize::try_from(*missing).unwrap_or(usize::MAX).min(rest.len());
                *missing -= length as u64;
                if *missing == 0 {
                    *self = Chunked::DataEnd;
                }
                Ok(Step::Content(length))
            }
            Chunked::DataEnd => match rest {
                [b'\r', b'\n', ..] => {
                    *self = Chunked::Size;
                    Ok(Step::Framing(2))
                }
                [] | [b'\r'] => Ok(Step::Missing),
                _ => Err(Malformed),
            },
            Chunked::Trailers => Ok(match trailers(rest)? {
                Some((fields, length)) => Step::Trailers(fields, length),
                None => Step::Missing,
            }),
            Chunked::Done => Ok(Step::Trailers(HeaderMap::new(), 0)),
        }
    }
}

/// A line that ends with CRLF, without it.
fn line(bytes: &[u8], limit: usize) -> Result<Option<&[u8]>, Malformed> {
    let near = &bytes[..bytes.len().min(limit + 1)];
    match memchr::memchr(b'\n', near) {
        Some(at) if at > 0 && bytes[at - 1] == b'\r' => {
            let line = &bytes[..at - 1];
            if line.contains(&b'\r') { Err(Malformed) } else { Ok(Some(line)) }
        }
        Some(_) => Err(Malformed),
        None if bytes.len() > limit => Err(Malformed),
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

/// The trailer section once it is complete, and its length. Fields that must not be trailers are dropped.
fn trailers(bytes: &[u8]) -> Result<Option<(HeaderMap, usize)>, Malformed> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Some((HeaderMap::new(), 2)));
    }
    let near = &bytes[..bytes.len().min(MAX_TRAILERS + 4)];
    let Some(end) = memchr::memmem::find(near, b"\r\n\r\n") else {
        let lone = memchr::memchr_iter(b'\n', near).any(|at| at == 0 || near[at - 1] != b'\r');
        return if lone || bytes.len() > MAX_TRAILERS { Err(Malformed) } else { Ok(None) };
    };
    let mut fields = HeaderMap::new();
    let mut rest = &bytes[..end];
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
            None => return Ok(Some((fields, end + 4))),
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
        let mut buffer = raw[..split].to_vec();
        let mut content = Vec::new();
        let mut parts = [&raw[split..]].into_iter();
        loop {
            let Decoded { content: piece, used, then } = decoder.decode(&mut buffer)?;
            assert!(piece.end <= used);
            content.extend_from_slice(&buffer[piece.clone()]);
            buffer.drain(..used);
            match then {
                Then::Trailers(fields) => return Ok(Some((content, fields))),
                Then::End => return Ok(Some((content, HeaderMap::new()))),
                Then::More if !piece.is_empty() => {}
                Then::More => match parts.next() {
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
    fn what_came_at_once_is_told_at_once() {
        use Then::*;
        for (raw, content, then, rest) in [
            ("1\r\nx\r\n0\r\n\r\n", "x", End, ""),
            ("1\r\nx\r\n2\r\nyz\r\n3;a\r\n012\r\n0\r\n\r\nGET", "xyz012", End, "GET"),
            ("1\r\nx\r\n2\r\ny", "xy", More, ""),
            ("1\r\nx\r\n0\r\nA: b\r\n\r\n", "x", More, "A: b\r\n\r\n"),
            ("1\r\nx\r\n0\r\nHost: b\r\n\r\n", "x", End, ""),
            ("1\r\nx\r\n0\r\n", "x", More, ""),
            ("1\r\nx\r\n1", "x", More, "1"),
            ("1\r\nx\r\ng\r\n", "x", More, "g\r\n"),
            ("2\r\nx", "x", More, ""),
        ] {
            let (mut decoder, mut bytes) = (Chunked::default(), raw.as_bytes().to_vec());
            let decoded = decoder.decode(&mut bytes).unwrap();
            assert_eq!((&bytes[decoded.content], decoded.then), (content.as_bytes(), then), "{raw:?}");
            assert_eq!(&bytes[decoded.used..], rest.as_bytes(), "{raw:?}");
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
