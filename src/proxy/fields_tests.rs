//! Sections of fields: what is found, what is changed, and what is written.

use super::*;

#[test]
fn lines_keep_their_order_and_names_lose_their_case() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nX-B: 2\r\nx-a:\r\nX-B: 3\r\n\r\n";
    let mut parsed = [httparse::EMPTY_HEADER; 8];
    let mut request = httparse::Request::new(&mut parsed);
    assert!(request.parse(head).is_ok());
    let mut fields = Fields::of_head(head, request.headers);
    let text =
        |fields: &Fields| fields.to_lines().iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ");
    assert_eq!(text(&fields), "host=a x-b=2 x-a= x-b=3");
    assert_eq!(fields.get(Known::Host), Some(&b"a"[..]));
    fields.set("x-b", b"4");
    fields.set("host", b"b");
    assert_eq!(text(&fields), "x-a= x-b=4 host=b");
    fields.remove(Known::Host);
    assert!(!fields.contains(Known::Host) && fields.get(Known::Host).is_none());
}

#[test]
fn every_known_name_is_found_again() {
    for name in [
        "te",
        "via",
        "x-request-id",
        "x-forwarded-for",
        "proxy-authorization",
        "connection",
        "x-forwarded-x",
        "ssl-client-x",
    ] {
        let mut fields = Fields::of(&[("a", "1"), (name, "2"), ("a_b", "3")]);
        let known = fields.known().nth(1).map(|(known, _, _)| known);
        assert!(known.is_some_and(|known| known != Known::Other && fields.contains(known)), "{name}");
        fields.set(name, b"4");
        assert_eq!(fields.len(), 3, "{name}");
    }
    assert!((Known::Via as u8) < 64, "one bit each");
}

/// Whatever was spelled, kept, added and left out: what is written is the lines one by one.
#[test]
fn lines_are_written_as_they_are() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nX-A:  1 \r\nX-B: 2\r\nX-C: 3\r\nTe: x\r\nX-D:4\r\nX-E:\r\nX-F: 5\r\n\r\n";
    let mut parsed = [httparse::EMPTY_HEADER; 8];
    let mut request = httparse::Request::new(&mut parsed);
    assert!(request.parse(head).is_ok());
    let mut fields = Fields::of_head(head, request.headers);
    let written = |fields: &Fields| {
        let mut out = Vec::new();
        fields.write(&mut out, |name| name == Known::Te);
        String::from_utf8_lossy(&out).into_owned()
    };
    assert_eq!(written(&fields), "host: a\r\nx-a: 1\r\nx-b: 2\r\nx-c: 3\r\nx-d: 4\r\nx-e: \r\nx-f: 5\r\n");
    fields.set("host", b"b");
    fields.remove_named(b"X-B");
    fields.add("via", b"c");
    assert_eq!(written(&fields), "x-a: 1\r\nx-c: 3\r\nx-d: 4\r\nx-e: \r\nx-f: 5\r\nhost: b\r\nvia: c\r\n");
}
