//! One exchange as one line of JSON. Written into the buffer without allocating; texts that strangers chose are escaped
//! so that a line is always one line of valid JSON and harmless on a terminal, and cut so that it is never long.

use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::{Exchange, Tls};

/// Bytes of a path that are written; request lines can be 32 KiB.
const MAX_PATH: usize = 2048;
/// Bytes of any other text that are written.
const MAX_TEXT: usize = 256;
/// Written where a text was cut.
const CUT: &str = "…";

/// Writes lines, and remembers how the current second is spelled.
#[derive(Debug, Default)]
pub(super) struct Lines {
    second: i64,
    spelled: String,
    /// The listener of whose exchanges they are, where there are several.
    listener: Option<&'static str>,
}

impl Lines {
    /// Lines of the exchanges of a listener, or of all.
    pub(super) fn of(listener: Option<&'static str>) -> Self {
        Lines { listener, ..Lines::default() }
    }

    /// Appends the line of `exchange`, which ended at `now`.
    pub(super) fn write(&mut self, line: &mut Vec<u8>, now: SystemTime, exchange: &Exchange<'_>) {
        let Exchange {
            request_id,
            trace_id,
            span_id,
            client,
            protocol,
            method,
            host,
            path,
            tls,
            route,
            rule,
            upstream,
            endpoint,
            status,
            reason,
            kind,
            end,
            bytes_received,
            bytes_sent,
            events,
            connect,
            first_byte,
            duration,
            attempts,
        } = exchange;
        line.extend_from_slice(b"{\"time\":\"");
        self.time(line, now);
        line.push(b'"');
        if let Some(listener) = self.listener {
            word(line, "listener", listener);
        }
        text(line, "request_id", request_id, MAX_TEXT);
        optional(line, "trace_id", *trace_id);
        if let Some(span) = span_id {
            hexadecimal(line, "span_id", *span);
        }
        line.extend_from_slice(b",\"client\":\"");
        address(line, *client);
        line.extend_from_slice(b"\"");
        word(line, "protocol", protocol.as_str());
        text(line, "method", method, MAX_TEXT);
        text(line, "host", host, MAX_TEXT);
        text(line, "path", path, MAX_PATH);
        if let Some(Tls { version, cipher, server_name, alpn, client_subject, client_fingerprint }) = tls {
            word(line, "tls_version", version);
            word(line, "tls_cipher", cipher);
            optional(line, "tls_server_name", *server_name);
            optional(line, "tls_alpn", *alpn);
            optional(line, "tls_client_subject", *client_subject);
            optional(line, "tls_client_fingerprint", *client_fingerprint);
        }
        optional(line, "route", *route);
        optional(line, "rule", *rule);
        optional(line, "upstream", *upstream);
        if let Some(endpoint) = endpoint {
            line.extend_from_slice(b",\"endpoint\":\"");
            if endpoint.is_ipv4() {
                address(line, endpoint.ip());
                line.push(b':');
                digits(line, u64::from(endpoint.port()), 1);
            } else {
                plain(line, format_args!("{endpoint}"));
            }
            line.push(b'"');
        }
        number(line, "status", u64::from(*status));
        optional(line, "reason", *reason);
        word(line, "kind", kind.as_str());
        word(line, "end", end.as_str());
        number(line, "bytes_received", *bytes_received);
        number(line, "bytes_sent", *bytes_sent);
        if let Some(events) = events {
            number(line, "events", *events);
        }
        millis(line, "connect_ms", *connect);
        millis(line, "first_byte_ms", *first_byte);
        millis(line, "duration_ms", Some(*duration));
        number(line, "attempts", u64::from(*attempts));
        line.extend_from_slice(b"}\n");
    }

    /// RFC 3339 with milliseconds, in UTC.
    fn time(&mut self, line: &mut Vec<u8>, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let second = i64::try_from(since.as_secs()).unwrap_or_default();
        if second != self.second || self.spelled.is_empty() {
            let spelled = jiff::Timestamp::from_second(second).unwrap_or_default().to_string();
            self.spelled = spelled.trim_end_matches('Z').to_owned();
            self.second = second;
        }
        line.extend_from_slice(self.spelled.as_bytes());
        let millis = since.subsec_millis();
        line.push(b'.');
        digits(line, u64::from(millis), 3);
        line.push(b'Z');
    }
}

fn optional(line: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        text(line, name, value, MAX_TEXT);
    }
}

fn key(line: &mut Vec<u8>, name: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

/// A word of ours, which needs no escape.
fn word(line: &mut Vec<u8>, name: &str, value: &'static str) {
    key(line, name);
    line.push(b'"');
    line.extend_from_slice(value.as_bytes());
    line.push(b'"');
}

/// An address; without `write!` where most are.
fn address(line: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (position, octet) in address.octets().into_iter().enumerate() {
                if position > 0 {
                    line.push(b'.');
                }
                digits(line, u64::from(octet), 1);
            }
        }
        IpAddr::V6(address) => plain(line, format_args!("{address}")),
    }
}

fn text(line: &mut Vec<u8>, name: &str, value: &str, max: usize) {
    key(line, name);
    line.push(b'"');
    let end = if value.len() <= max { value.len() } else { value.floor_char_boundary(max) };
    escaped(line, &value[..end]);
    if end < value.len() {
        line.extend_from_slice(CUT.as_bytes());
    }
    line.push(b'"');
}

/// Bytes that cannot stand in a text as they are, or (0xc2) that may begin such a character.
const SUSPECT: [bool; 256] = {
    let mut suspect = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        suspect[byte] = true;
        byte += 1;
    }
    suspect[b'"' as usize] = true;
    suspect[b'\\' as usize] = true;
    suspect[0x7f] = true;
    suspect[0xc2] = true;
    suspect
};

/// RFC 8259 section 7 asks for the escape of quotes, backslashes and controls up to U+001F. U+007F to U+009F are escaped,
/// too: terminals obey them.
fn escaped(line: &mut Vec<u8>, value: &str) {
    let mut rest = value.as_bytes();
    while let Some(position) = rest.iter().position(|byte| SUSPECT[usize::from(*byte)]) {
        line.extend_from_slice(&rest[..position]);
        let second = rest.get(position + 1).copied().unwrap_or_default();
        let length = match rest[position] {
            byte @ (b'"' | b'\\') => {
                line.extend_from_slice(&[b'\\', byte]);
                1
            }
            0xc2 if second <= 0x9f => {
                plain(line, format_args!("\\u{second:04x}"));
                2
            }
            0xc2 => {
                line.extend_from_slice(&[0xc2, second]);
                2
            }
            byte => {
                plain(line, format_args!("\\u{byte:04x}"));
                1
            }
        };
        rest = &rest[position + length..];
    }
    line.extend_from_slice(rest);
}

/// Decimal, at least `width` digits. A third of the time of `write!`.
fn digits(line: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut buffer = [b'0'; 20];
    let mut start = buffer.len();
    while value > 0 {
        start -= 1;
        buffer[start] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    line.extend_from_slice(&buffer[start.min(buffer.len() - width)..]);
}

fn number(line: &mut Vec<u8>, name: &str, value: u64) {
    key(line, name);
    digits(line, value, 1);
}

/// Sixteen hexadecimal digits, without `write!` as most lines have them.
fn hexadecimal(line: &mut Vec<u8>, name: &str, value: u64) {
    key(line, name);
    line.push(b'"');
    line.extend((0..16).rev().map(|place| b"0123456789abcdef"[(value >> (4 * place)) as usize & 15]));
    line.push(b'"');
}

/// Milliseconds with microseconds behind the point.
fn millis(line: &mut Vec<u8>, name: &str, value: Option<Duration>) {
    let Some(value) = value else { return };
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    key(line, name);
    digits(line, micros / 1000, 1);
    line.push(b'.');
    digits(line, micros % 1000, 3);
}

fn plain(line: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // Writing to a vector does not fail.
    let _ = line.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::exchange::tests::sample;
    use super::*;

    fn line(exchange: &Exchange<'_>) -> String {
        let mut buffer = Vec::new();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_599_007);
        Lines::default().write(&mut buffer, now, exchange);
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn tells_every_fact() {
        assert_eq!(
            line(&sample()),
            "{\"time\":\"2025-12-31T23:59:59.007Z\",\"request_id\":\"r-1\",\
             \"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"span_id\":\"00f067aa0ba902b7\",\"client\":\"192.0.2.1\",\
             \"protocol\":\"HTTP/1.1\",\
             \"method\":\"GET\",\"host\":\"chat.example.com\",\"path\":\"/v1/events\",\"tls_version\":\"1.3\",\
             \"tls_cipher\":\"TLS13_AES_128_GCM_SHA256\",\"tls_server_name\":\"chat.example.com\",\"tls_alpn\":\"h2\",\
             \"tls_client_subject\":\"CN=cart\",\"tls_client_fingerprint\":\"00ff\",\
             \"route\":\"shop/chat\",\
             \"rule\":\"completions\",\"upstream\":\"shop/llm:8080\",\"endpoint\":\"10.0.0.5:8080\",\"status\":200,\
             \"kind\":\"sse\",\"end\":\"client_gone\",\"bytes_received\":0,\"bytes_sent\":1234,\"events\":17,\"connect_ms\":0.250,\
             \"first_byte_ms\":12.007,\"duration_ms\":90000.000,\"attempts\":2}\n"
        );
    }

    #[test]
    fn leaves_out_what_is_not_known() {
        let exchange = Exchange {
            trace_id: None,
            span_id: None,
            tls: None,
            route: None,
            rule: None,
            upstream: None,
            endpoint: None,
            connect: None,
            first_byte: None,
            reason: Some("no_route"),
            ..sample()
        };
        let line = line(&exchange);
        assert!(line.contains("\"reason\":\"no_route\""), "{line}");
        for absent in [
            "trace_id",
            "span_id",
            "tls_",
            "route\":",
            "rule",
            "upstream\":",
            "endpoint",
            "connect_ms",
            "first_byte_ms",
        ] {
            assert!(!line.contains(absent), "{absent}: {line}");
        }
    }

    #[test]
    fn hostile_texts_stay_one_line_of_json() {
        let hostile = "\"\\\n\r\t\0\x1b[31m\x7f\u{9b}2J\u{2028}é\u{fffd}{}";
        let exchange = Exchange { path: hostile, host: hostile, method: hostile, request_id: hostile, ..sample() };
        let line = line(&exchange);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.chars().all(|c| c == '\n' || !c.is_control()), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for field in ["path", "host", "method", "request_id"] {
            assert_eq!(value[field], hostile, "{field}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "/".to_owned() + &"é".repeat(20_000);
        let exchange = Exchange { path: &long, host: &long, ..sample() };
        let line = line(&exchange);
        assert!(line.len() < 8 * 1024, "{}", line.len());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let path = value["path"].as_str().unwrap();
        assert!(path.ends_with("é…") && path.len() <= MAX_PATH + CUT.len(), "{}", path.len());
    }
}
