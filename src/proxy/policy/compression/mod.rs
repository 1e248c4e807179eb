//! Compressing the content of answers where a policy wants it, the client takes it, and nobody has to wait for it. Which answers that
//! are is said here, which codings a client takes in `coding`, how content is compressed without holding it up in `content`.

mod coding;
mod content;

use std::sync::Arc;

use http::{Method, StatusCode, Version};
use http_body::Body as _;

use self::content::Compressed;
use super::Asked;
use crate::proxy::body::Body;
use crate::proxy::fields::{Fields, Known};
use crate::proxy::grpc;
use crate::proxy::message::{RequestHead, Response};
use crate::snapshot::Compression;

const EVENTS: &[u8] = b"text/event-stream";

/// Remembers that the answer may be compressed, and whether its client takes that: a rule may change later what the endpoint hears of it.
pub(super) fn admit(compression: &Arc<Compression>, asked: &Asked<'_>) {
    let head = &asked.head;
    // HTTP/1.0 has no chunks, and its clients would have to guess whether the end of the connection is that of the content.
    let takes = head.version != Version::HTTP_10
        && head.method != Method::HEAD
        && !says(&head.fields, b"cache-control", b"no-transform")
        && coding::takes_gzip(values(&head.fields, b"accept-encoding"));
    asked.exchange.compresses(compression, takes);
}

/// Compresses the content of an answer, or says at least that another client may get it compressed.
pub(super) fn finish(compression: &Compression, takes: bool, response: &mut Response, head: &RequestHead) {
    let Response { head: answer, body } = response;
    let fields = &mut answer.fields;
    // What is not modified is told as it was told when it was sent (RFC 9110 15.4.5), or caches would not know it again.
    let unmodified = answer.status == StatusCode::NOT_MODIFIED;
    if !unmodified && !is_compressible(compression, answer.status, fields, body, head) {
        return;
    }
    vary(fields);
    if !takes {
        return;
    }
    weaken_etag(fields);
    if unmodified {
        return;
    }
    // RFC 9110 8.6 and 14.3: neither a length nor ranges of what was compressed are those of what is sent.
    fields.remove(Known::ContentLength);
    fields.retain(|_, name, _| name != b"accept-ranges");
    fields.set("content-encoding", b"gzip");
    let each = is_event_stream(fields);
    *body = Body::stream(Compressed::new(std::mem::take(body), compression.level, each));
}

/// Whether an answer would be compressed for a client that takes it.
fn is_compressible(
    compression: &Compression,
    status: StatusCode,
    fields: &Fields,
    body: &Body,
    head: &RequestHead,
) -> bool {
    // What has no content, and what is a part: its place in the whole is counted in bytes that are not coded (RFC 9110 14.4).
    if status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT)
        || fields.iter().any(|(name, _)| name == b"content-range")
    {
        return false;
    }
    let Some(content_type) = fields.get(Known::ContentType) else { return false };
    if grpc::is_grpc(&head.fields) || grpc::is_grpc(fields) {
        return false;
    }
    let wanted = match is_event_stream(fields) {
        true => compression.event_streams,
        false => compression.types.contain(content_type),
    };
    // The length of an answer to HEAD is only said.
    let said = || fields.text(Known::ContentLength).and_then(|length| length.parse().ok());
    let length = if head.method == Method::HEAD { said() } else { body.size_hint().exact() };
    let coded = fields.tokens(Known::ContentEncoding).any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    // RFC 9110 7.7: "A proxy MUST NOT transform the content […] of a response message that contains a no-transform cache directive".
    let kept = says(fields, b"cache-control", b"no-transform");
    let digested =
        fields.iter().any(|(name, _)| matches!(name, b"content-digest" | b"repr-digest" | b"digest" | b"content-md5"));
    let least = compression.min_bytes.max(1);
    wanted && length.is_none_or(|length| length >= least) && !coded && !kept && !digested
}

fn is_event_stream(fields: &Fields) -> bool {
    fields.get(Known::ContentType).is_some_and(|value| {
        let end = value.iter().position(|&byte| byte == b';').unwrap_or(value.len());
        value[..end].trim_ascii().eq_ignore_ascii_case(EVENTS)
    })
}

/// RFC 9110 12.5.5: caches are told what the choice depends on.
fn vary(fields: &mut Fields) {
    if !says(fields, b"vary", b"accept-encoding") && !says(fields, b"vary", b"*") {
        fields.add("vary", b"accept-encoding");
    }
}

/// RFC 9110 8.8.3.3: two codings of one thing are different to the byte, and only a weak tag may stand for both.
fn weaken_etag(fields: &mut Fields) {
    let Some(tag) = values(fields, b"etag").next().filter(|tag| !tag.starts_with(b"W/")) else { return };
    let weak = [&b"W/"[..], tag].concat();
    fields.set("etag", &weak);
}

/// The values of the lines of a name.
fn values<'a>(fields: &'a Fields, name: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(line, _)| *line == name).map(|(_, value)| value)
}

/// Whether a list field has a member.
fn says(fields: &Fields, name: &'static [u8], member: &[u8]) -> bool {
    values(fields, name)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(member))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;

    use super::*;
    use crate::proxy::message::{Form, PathAndQuery};
    use crate::snapshot::MediaTypes;

    fn compression(event_streams: bool) -> Compression {
        Compression { types: MediaTypes::new(["text/*", "application/json"]), min_bytes: 10, event_streams, level: 5 }
    }

    fn asked(method: Method) -> RequestHead {
        RequestHead {
            method,
            version: Version::HTTP_11,
            form: Form::Origin,
            authority: None,
            path_and_query: PathAndQuery::new("/"),
            fields: Fields::new(),
        }
    }

    /// What becomes of the fields of an answer with ten bytes of content.
    fn finished(status: u16, lines: &[(&str, &str)], takes: bool, events: bool) -> Vec<(String, String)> {
        let mut response =
            Response::new(StatusCode::from_u16(status).unwrap(), Body::full(Bytes::from_static(b"0123456789")));
        response.head.fields = Fields::of(lines);
        finish(&compression(events), takes, &mut response, &asked(Method::GET));
        let compressed = response.body.size_hint().exact().is_none();
        let said = response.head.fields.contains(Known::ContentEncoding);
        assert!(!compressed || said, "it is said what was done");
        response.head.fields.to_lines()
    }

    fn owned(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");
    const VARY: (&str, &str) = ("vary", "accept-encoding");
    const GZIP: (&str, &str) = ("content-encoding", "gzip");

    #[test]
    fn fields_say_what_was_done() {
        let given = [TEXT, ("content-length", "10"), ("etag", "\"a\""), ("accept-ranges", "bytes"), ("x", "y")];
        assert_eq!(finished(200, &given, true, false), owned(&[TEXT, ("x", "y"), VARY, ("etag", "W/\"a\""), GZIP]));
        // For a client that does not take it, nothing changes but that another one might.
        assert_eq!(finished(200, &given, false, false), owned(&[&given[..], &[VARY]].concat()));
        for kept in ["Accept-Encoding", "a, accept-encoding", "*"] {
            assert_eq!(finished(200, &[TEXT, ("vary", kept)], true, false), owned(&[TEXT, ("vary", kept), GZIP]));
        }
        assert_eq!(finished(404, &[TEXT, ("vary", "a")], true, false), owned(&[TEXT, ("vary", "a"), VARY, GZIP]));
        // A tag that is weak stays, and one of what is not modified is the one that was sent.
        assert_eq!(
            finished(200, &[TEXT, ("etag", "W/\"a\"")], true, false),
            owned(&[TEXT, ("etag", "W/\"a\""), VARY, GZIP])
        );
        assert_eq!(finished(304, &[("etag", "\"a\"")], true, false), owned(&[VARY, ("etag", "W/\"a\"")]));
    }

    #[test]
    fn what_cannot_or_must_not_be_compressed_is_left_alone() {
        for lines in [
            &[("content-type", "image/png")][..],
            &[("x", "y")],
            &[TEXT, ("content-encoding", "br")],
            &[TEXT, ("cache-control", "max-age=5, No-Transform")],
            &[TEXT, ("content-range", "bytes 0-9/20")],
            &[TEXT, ("content-digest", "sha-256=:a:")],
            &[("content-type", "text/event-stream")],
            &[("content-type", "Text/Event-Stream ; charset=utf-8")],
            &[("content-type", "application/grpc+proto")],
        ] {
            assert_eq!(finished(200, lines, true, false), owned(lines), "{lines:?}");
        }
        for status in [204, 205, 206] {
            assert_eq!(finished(status, &[TEXT], true, false), owned(&[TEXT]), "{status}");
        }
        let events = ("content-type", "text/event-stream");
        assert_eq!(finished(200, &[events], true, true), owned(&[events, VARY, GZIP]));
        assert_eq!(
            finished(200, &[TEXT, ("content-encoding", "identity")], true, false),
            owned(&[TEXT, VARY, GZIP]),
            "that is none"
        );
        let mut small = Response::new(StatusCode::OK, Body::full(Bytes::from_static(b"012345678")));
        small.head.fields = Fields::of(&[TEXT]);
        finish(&compression(false), true, &mut small, &asked(Method::GET));
        assert_eq!(small.head.fields.to_lines(), owned(&[TEXT]));
        let mut call = asked(Method::POST);
        call.fields = Fields::of(&[("content-type", "application/grpc")]);
        let mut answer = Response::new(StatusCode::OK, Body::full(Bytes::from_static(b"0123456789")));
        answer.head.fields = Fields::of(&[TEXT]);
        finish(&compression(false), true, &mut answer, &call);
        assert_eq!(answer.head.fields.to_lines(), owned(&[TEXT]));
    }

    #[test]
    fn the_head_alone_tells_of_other_answers() {
        for (length, expected) in
            [("10", &[TEXT, ("content-length", "10"), VARY][..]), ("9", &[TEXT, ("content-length", "9")][..])]
        {
            let mut response = Response::new(StatusCode::OK, Body::empty());
            response.head.fields = Fields::of(&[TEXT, ("content-length", length)]);
            finish(&compression(false), false, &mut response, &asked(Method::HEAD));
            assert_eq!(response.head.fields.to_lines(), owned(expected));
        }
    }
}
