//! A section of fields (RFC 9110 5): names and values in the order in which they came, as places in one text. Most requests
//! are read, looked at in a few places and written again, so this neither hashes names nor keeps a value of its own for each:
//! a section costs two allocations, however many fields it has. Which fields go on is `headers`' to say.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::snapshot::FieldLines;

/// Names that the data plane knows, so that it compares numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub(super) enum Known {
    Other,
    Accept,
    Authorization,
    CacheControl,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentRange,
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
    GrpcTimeout,
    Host,
    Http2Settings,
    KeepAlive,
    Location,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    RealIp,
    RequestId,
    WebSocketAccept,
    WebSocketExtensions,
    WebSocketKey,
    SetCookie,
    Te,
    Traceparent,
    Trailer,
    TransferEncoding,
    /// A name with an underscore, which CGI and its heirs read as one with a hyphen.
    Underscored,
    Upgrade,
    Via,
}

impl Known {
    /// Finds a name, which is in lower case.
    fn of(name: &[u8]) -> Known {
        use Known::*;
        match name {
            b"accept" => Accept,
            b"authorization" => Authorization,
            b"cache-control" => CacheControl,
            b"connection" => Connection,
            b"content-encoding" => ContentEncoding,
            b"content-length" => ContentLength,
            b"content-range" => ContentRange,
            b"content-type" => ContentType,
            b"cookie" => Cookie,
            b"date" => Date,
            b"expect" => Expect,
            b"forwarded" => Forwarded,
            b"grpc-timeout" => GrpcTimeout,
            b"host" => Host,
            b"http2-settings" => Http2Settings,
            b"keep-alive" => KeepAlive,
            b"location" => Location,
            b"proxy-authenticate" => ProxyAuthenticate,
            b"proxy-authorization" => ProxyAuthorization,
            b"proxy-connection" => ProxyConnection,
            b"sec-websocket-accept" => WebSocketAccept,
            b"sec-websocket-extensions" => WebSocketExtensions,
            b"sec-websocket-key" => WebSocketKey,
            b"set-cookie" => SetCookie,
            b"te" => Te,
            b"traceparent" => Traceparent,
            b"trailer" => Trailer,
            b"transfer-encoding" => TransferEncoding,
            b"upgrade" => Upgrade,
            b"via" => Via,
            b"x-forwarded-for" => ForwardedFor,
            b"x-forwarded-host" => ForwardedHost,
            b"x-forwarded-proto" => ForwardedProto,
            b"x-real-ip" => RealIp,
            b"x-request-id" => RequestId,
            _ if name.starts_with(b"x-forwarded-") => ForwardedOther,
            _ if name.contains(&b'_') => Underscored,
            _ => Other,
        }
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
const ROOM: (usize, usize) = (160, 6);

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
            fields.add_line(name, value);
        }
        fields
    }

    fn add_line(&mut self, name: Place, value: Place) {
        let known = Known::of(self.at(name));
        self.present |= known.bit();
        self.lines.push(Line { name, value, known });
    }

    fn at(&self, place: Place) -> &[u8] {
        &self.text[place.at as usize..(place.at + place.length) as usize]
    }

    fn place_mut(&mut self, place: Place) -> &mut [u8] {
        &mut self.text[place.at as usize..(place.at + place.length) as usize]
    }

    fn store(&mut self, part: &[u8]) -> Place {
        let at = self.text.len() as u32;
        self.text.extend_from_slice(part);
        Place { at, length: part.len() as u32 }
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
        self.tokens(name).any(|token| token.eq_ignore_ascii_case(member.as_bytes()))
    }

    /// Adds a line. The name is a field name in lower case, the value a field value.
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        let (name, value) = (self.store(name.as_bytes()), self.store(value));
        self.add_line(name, value);
    }

    /// Puts a line in the place of all of this name.
    pub(super) fn set(&mut self, name: &str, value: &[u8]) {
        match Known::of(name.as_bytes()) {
            Known::Other | Known::Underscored | Known::ForwardedOther => self.remove_named(name.as_bytes()),
            known => self.remove(known),
        }
        self.add(name, value);
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
        let mut lines = self.iter().filter(|(line, _)| *line == name.as_str().as_bytes()).map(|(_, value)| value);
        let first = Cow::Borrowed(lines.next()?);
        Some(lines.fold(first, |mut joined, line| {
            joined.to_mut().extend_from_slice(b", ");
            joined.to_mut().extend_from_slice(line);
            joined
        }))
    }
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let bytes: usize = map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let mut fields = Fields {
            text: Vec::with_capacity(bytes + ROOM.0),
            lines: Vec::with_capacity(map.len() + ROOM.1),
            present: 0,
        };
        for (name, value) in map {
            fields.add(name.as_str(), value.as_bytes());
        }
        fields
    }
}

impl From<&Fields> for HeaderMap {
    /// Everything that is in a section is valid there, too.
    fn from(fields: &Fields) -> Self {
        let mut map = HeaderMap::with_capacity(fields.len());
        for (name, value) in fields.iter() {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                map.append(name, value);
            }
        }
        map
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
mod tests {
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
        for name in
            ["te", "via", "x-request-id", "x-forwarded-for", "proxy-authorization", "connection", "x-forwarded-x"]
        {
            let mut fields = Fields::of(&[("a", "1"), (name, "2"), ("a_b", "3")]);
            let known = fields.known().nth(1).map(|(known, _, _)| known);
            assert!(known.is_some_and(|known| known != Known::Other && fields.contains(known)), "{name}");
            fields.set(name, b"4");
            assert_eq!(fields.len(), 3, "{name}");
        }
        assert!((Known::Via as u8) < 64, "one bit each");
    }
}
