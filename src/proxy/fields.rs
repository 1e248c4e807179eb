//! A section of fields (RFC 9110 5): names and values in the order in which they came, as places in one text. Most requests
//! are read, looked at in a few places and written again, so this neither hashes names nor keeps a value of its own for each:
//! a section costs two allocations, however many fields it has. Which fields go on is `headers`' to say.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use crate::snapshot::{FieldLines, joined};

/// Names that the data plane knows, so that it compares numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub(super) enum Known {
    Other,
    Accept,
    Attempts,
    Authorization,
    /// What tells of a client's certificate: `client-cert`, `client-cert-chain`, `x-forwarded-client-cert`, `ssl-client-*`.
    ClientCertificate,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    Expect,
    Forwarded,
    ForwardedFor,
    ForwardedHost,
    ForwardedProto,
    /// Any other of `x-forwarded-*`.
    ForwardedOther,
    GrpcStatus,
    GrpcTimeout,
    Host,
    Http2Settings,
    KeepAlive,
    Mirror,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    RealIp,
    RequestId,
    RetryAfter,
    WebSocketAccept,
    WebSocketExtensions,
    WebSocketKey,
    Te,
    Traceparent,
    Tracestate,
    TransferEncoding,
    /// A name with an underscore, which CGI and its heirs read as one with a hyphen.
    Underscored,
    Upgrade,
    Via,
}

impl Known {
    /// Finds a name, which is in lower case. Inlined, because for most callers it is a constant; see [`Known::find`].
    #[inline(always)]
    fn of(name: &[u8]) -> Known {
        use Known::*;
        match name {
            b"accept" => Accept,
            b"authorization" => Authorization,
            b"client-cert" | b"client-cert-chain" | b"x-forwarded-client-cert" => ClientCertificate,
            b"connection" => Connection,
            b"content-encoding" => ContentEncoding,
            b"content-length" => ContentLength,
            b"content-type" => ContentType,
            b"cookie" => Cookie,
            b"date" => Date,
            b"expect" => Expect,
            b"forwarded" => Forwarded,
            b"grpc-status" => GrpcStatus,
            b"grpc-timeout" => GrpcTimeout,
            b"host" => Host,
            b"http2-settings" => Http2Settings,
            b"keep-alive" => KeepAlive,
            b"proxy-authenticate" => ProxyAuthenticate,
            b"proxy-authorization" => ProxyAuthorization,
            b"proxy-connection" => ProxyConnection,
            b"retry-after" => RetryAfter,
            b"sec-websocket-accept" => WebSocketAccept,
            b"sec-websocket-extensions" => WebSocketExtensions,
            b"sec-websocket-key" => WebSocketKey,
            b"te" => Te,
            b"traceparent" => Traceparent,
            b"tracestate" => Tracestate,
            b"transfer-encoding" => TransferEncoding,
            b"upgrade" => Upgrade,
            b"via" => Via,
            b"x-floodway-attempts" => Attempts,
            b"x-floodway-mirror" => Mirror,
            b"x-forwarded-for" => ForwardedFor,
            b"x-forwarded-host" => ForwardedHost,
            b"x-forwarded-proto" => ForwardedProto,
            b"x-real-ip" => RealIp,
            b"x-request-id" => RequestId,
            _ if name.starts_with(b"x-forwarded-") => ForwardedOther,
            _ if name.starts_with(b"ssl-client-") => ClientCertificate,
            _ if name.contains(&b'_') => Underscored,
            _ => Other,
        }
    }

    /// Finds a name that comes from a message or the configuration.
    #[inline(never)]
    fn find(name: &[u8]) -> Known {
        Known::of(name)
    }

    fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// A place in the text.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u32,
    length: u32,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: Place,
    value: Place,
    known: Known,
    /// Whether the text has it as HTTP/1 writes it: `name: value` and the end of a line.
    written: bool,
}

/// A section of fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// Which known names may be there.
    present: u64,
}

/// What is added to a section on its way, so that it does not grow twice: text and lines.
const ROOM: (usize, usize) = (240, 7);

impl Fields {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Fields::default()
    }

    /// Fields whose names and values are parts of `head`, which is valid. Names are put into lower case.
    pub(super) fn of_head(head: &[u8], parsed: &[httparse::Header<'_>]) -> Self {
        let mut text = Vec::with_capacity(head.len() + ROOM.0);
        text.extend_from_slice(head);
        let mut fields = Fields { text, lines: Vec::with_capacity(parsed.len() + ROOM.1), present: 0 };
        let place = |part: &[u8]| {
            let at = (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
            debug_assert!(part.is_empty() || at + part.len() <= head.len(), "part of the head");
            Place { at: at as u32, length: part.len() as u32 }
        };
        for field in parsed {
            let (name, value) = (place(field.name.as_bytes()), place(field.value));
            // An empty value may lie anywhere.
            let value = if value.length == 0 { Place { at: 0, length: 0 } } else { value };
            fields.place_mut(name).make_ascii_lowercase();
            let known = Known::find(fields.at(name));
            let (colon, end) = ((name.at + name.length) as usize, (value.at + value.length) as usize);
            let written =
                colon + 2 == value.at as usize && head[colon..].starts_with(b": ") && head[end..].starts_with(b"\r\n");
            fields.present |= known.bit();
            fields.lines.push(Line { name, value, known, written });
        }
        fields
    }

    fn at(&self, place: Place) -> &[u8] {
        &self.text[place.at as usize..(place.at + place.length) as usize]
    }

    fn place_mut(&mut self, place: Place) -> &mut [u8] {
        &mut self.text[place.at as usize..(place.at + place.length) as usize]
    }

    /// Number of lines.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Bytes of the lines as HTTP/1 would write them.
    pub(super) fn bytes(&self) -> usize {
        self.lines.iter().map(|line| (line.name.length + line.value.length) as usize + 4).sum()
    }

    /// Names and values in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.at(line.name), self.at(line.value)))
    }

    /// Names as known, names and values in order.
    pub(super) fn known(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.lines.iter().map(|line| (line.known, self.at(line.name), self.at(line.value)))
    }

    /// Whether there is a field of this name.
    pub(super) fn contains(&self, name: Known) -> bool {
        self.present & name.bit() != 0
    }

    /// The values of all lines of this name.
    pub(super) fn all(&self, name: Known) -> impl Iterator<Item = &[u8]> {
        let lines = if self.contains(name) { &self.lines[..] } else { &[] };
        lines.iter().filter(move |line| line.known == name).map(|line| self.at(line.value))
    }

    /// The value of the first line of this name.
    pub(super) fn get(&self, name: Known) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The first value as text; `None` if there is none, or it is not ASCII.
    pub(super) fn text(&self, name: Known) -> Option<&str> {
        self.get(name).filter(|value| value.is_ascii()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The members of a list field, without empty ones (RFC 9110 5.6.1).
    pub(super) fn tokens(&self, name: Known) -> impl Iterator<Item = &[u8]> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|token| !token.is_empty())
    }

    /// Whether a list field has this member, in any case.
    pub(super) fn lists(&self, name: Known, member: &str) -> bool {
        // Nearly all lists are of one member.
        self.all(name).any(|value| value.eq_ignore_ascii_case(member.as_bytes()))
            || self.tokens(name).any(|token| token.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// Adds a line. The name is a field name in lower case, the value a field value.
    #[inline(always)]
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        self.add_known(Known::of(name.as_bytes()), name, value);
    }

    fn add_known(&mut self, known: Known, name: &str, value: &[u8]) {
        let at = self.text.len();
        self.text.reserve(name.len() + value.len() + 4);
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.text.extend_from_slice(part);
        }
        let name = Place { at: at as u32, length: name.len() as u32 };
        let value = Place { at: name.at + name.length + 2, length: value.len() as u32 };
        self.present |= known.bit();
        self.lines.push(Line { name, value, known, written: true });
    }

    /// Puts a line in the place of all of this name.
    #[inline(always)]
    pub(super) fn set(&mut self, name: &str, value: &[u8]) {
        self.set_known(Known::of(name.as_bytes()), name, value);
    }

    fn set_known(&mut self, known: Known, name: &str, value: &[u8]) {
        match known {
            Known::Other | Known::Underscored | Known::ForwardedOther | Known::ClientCertificate => {
                self.remove_named(name.as_bytes())
            }
            known => self.remove(known),
        }
        self.add_known(known, name, value);
    }

    /// Writes the lines as HTTP/1 has them, but for those that `leaves_out`. Neighbours are copied together.
    pub(super) fn write(&self, out: &mut Vec<u8>, leaves_out: impl Fn(Known) -> bool) {
        let mut run = 0..0;
        for line in self.lines.iter().filter(|line| !leaves_out(line.known)) {
            let (start, end) = (line.name.at as usize, (line.value.at + line.value.length) as usize + 2);
            if line.written && start == run.end {
                run.end = end;
                continue;
            }
            out.extend_from_slice(&self.text[run]);
            run = start..end;
            if !line.written {
                run = 0..0;
                for part in [self.at(line.name), b": ", self.at(line.value), b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
        out.extend_from_slice(&self.text[run]);
    }

    /// Removes all lines of this name.
    pub(super) fn remove(&mut self, name: Known) {
        self.remove_all(name.bit());
    }

    /// Removes all lines of these names.
    pub(super) fn remove_each(&mut self, names: &[Known]) {
        self.remove_all(names.iter().fold(0, |bits, name| bits | name.bit()));
    }

    fn remove_all(&mut self, bits: u64) {
        if self.present & bits != 0 {
            self.lines.retain(|line| line.known.bit() & bits == 0);
            self.present &= !bits;
        }
    }

    /// Removes all lines of this name, which is in any case.
    pub(super) fn remove_named(&mut self, name: &[u8]) {
        self.retain(|_, line, _| !line.eq_ignore_ascii_case(name));
    }

    /// Keeps the lines that `keep` says.
    pub(super) fn retain(&mut self, keep: impl Fn(Known, &[u8], &[u8]) -> bool) {
        let text = &self.text;
        let at = |place: Place| &text[place.at as usize..(place.at + place.length) as usize];
        self.lines.retain(|line| keep(line.known, at(line.name), at(line.value)));
        self.present = self.lines.iter().fold(0, |bits, line| bits | line.known.bit());
    }
}

impl FieldLines for Fields {
    fn value(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        joined(self.iter().filter(|(line, _)| *line == name.as_str().as_bytes()).map(|(_, value)| value))
    }
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let bytes: usize = map.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let mut fields = Fields {
            text: Vec::with_capacity(bytes + ROOM.0),
            lines: Vec::with_capacity(map.len() + ROOM.1),
            present: 0,
        };
        for (name, value) in map {
            fields.add_known(Known::find(name.as_str().as_bytes()), name.as_str(), value.as_bytes());
        }
        fields
    }
}

#[cfg(test)]
impl Fields {
    /// Fields with these lines.
    pub(super) fn of(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.add(name, value.as_bytes());
        }
        fields
    }

    /// The lines as text.
    pub(super) fn to_lines(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.iter().map(|(name, value)| (text(name), text(value))).collect()
    }
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
