//! What the first bytes of a connection say that it is. Few are looked at, for a bounded time, and whoever carries the connection gets
//! them first.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// As much as is looked at.
const MOST: usize = 64;
/// The longest method of a request that is one here.
const LONGEST_METHOD: usize = 20;
/// RFC 9113 3.4, as far as no request of HTTP/1 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// The content type of a record of TLS that begins a handshake (RFC 8446 5.1).
const HANDSHAKE: u8 = 22;

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// TLS; nothing of it was taken.
    Tls,
    /// HTTP/1.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Something else.
    Other,
    /// Nothing, for as long as was waited, or for ever.
    Nothing,
}

impl Said {
    /// Whether it is something that can be served.
    pub(super) fn is_request(self) -> bool {
        matches!(self, Said::Http | Said::Http2)
    }

    /// As metrics tell why it was passed on.
    pub(super) fn word(self) -> &'static str {
        match self {
            Said::Tls => "tls",
            Said::Http => "http",
            Said::Http2 => "http2",
            Said::Other => "not_http",
            Said::Nothing => "silent",
        }
    }
}

/// Waits until it is clear what a connection is. Returns what was read of it, too.
pub(super) async fn hear(stream: &mut TcpStream, patience: Duration) -> (Said, Bytes) {
    let mut taken = Vec::new();
    let said = match timeout(patience, listen(stream, &mut taken)).await {
        Ok(Ok(said)) => said,
        // Reading tells it again.
        Ok(Err(_)) => Said::Other,
        Err(_) if taken.is_empty() => Said::Nothing,
        Err(_) => Said::Other,
    };
    (said, taken.into())
}

async fn listen(stream: &mut TcpStream, taken: &mut Vec<u8>) -> io::Result<Said> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => return Ok(Said::Nothing),
        _ if first[0] == HANDSHAKE => return Ok(Said::Tls),
        _ => {}
    }
    let mut buffer = [0; MOST];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut buffer[..MOST - taken.len()]) {
            Ok(0) => return Ok(Said::Other),
            Ok(read) => taken.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if let Some(said) = judge(taken) {
            return Ok(said);
        }
    }
}

/// What bytes are; `None` if that takes more of them.
fn judge(bytes: &[u8]) -> Option<Said> {
    if bytes.starts_with(PREFACE) {
        return Some(Said::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    // RFC 9112 3: a request line is a method, a space and the target. Methods are in upper case wherever they are registered.
    let space = bytes.iter().take(LONGEST_METHOD + 1).position(|byte| *byte == b' ');
    let method = &bytes[..space.unwrap_or(bytes.len().min(LONGEST_METHOD + 1))];
    let plain = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    if method.len() > LONGEST_METHOD || !method.iter().all(plain) {
        return Some(Said::Other);
    }
    let target = match space {
        None => return None,
        // CONNECT is for a proxy that is not this one.
        Some(_) if method.is_empty() || method == b"CONNECT" => return Some(Said::Other),
        Some(space) => &bytes[space + 1..],
    };
    let begins = |with: &[u8]| {
        let length = target.len().min(with.len());
        target[..length].eq_ignore_ascii_case(&with[..length]).then_some(target.len() >= with.len())
    };
    // RFC 9112 3.2: origin-form, absolute-form and asterisk-form.
    let forms = [&b"/"[..], b"http://", b"https://", b"* HTTP/"].map(begins);
    if forms.contains(&Some(true)) {
        Some(Said::Http)
    } else if forms.contains(&Some(false)) {
        None
    } else {
        Some(Said::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_everything_else() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Said::Http)),
            (b"GET /", Some(Said::Http)),
            (b"M-SEARCH * HTTP/1.1", Some(Said::Http)),
            (b"POST http://a.example/", Some(Said::Http)),
            (b"GET HTTPS://a.example/", Some(Said::Http)),
            (b"GET ", None),
            (b"GET http:", None),
            (b"GE", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM", Some(Said::Http2)),
            (b"PRI * HTT", None),
            (b"P", None),
            (b"GET foo\r\n", Some(Said::Other)),
            (b"get /", Some(Said::Other)),
            (b"CONNECT a.example:443 HTTP/1.1", Some(Said::Other)),
            (b"CONNECT {\"verbose\"", Some(Said::Other)),
            (b"EHLO mail.example", Some(Said::Other)),
            (b"*1\r\n$4\r\nPING", Some(Said::Other)),
            (b" /", Some(Said::Other)),
            (b"\r\nGET / HTTP/1.1", Some(Said::Other)),
            (b"SSH-", None),
            (b"SSH-2.0-x", Some(Said::Other)),
            (b"AAAAAAAAAAAAAAAAAAAAA /", Some(Said::Other)),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Some(Said::Other)),
        ] {
            assert_eq!(judge(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest::proptest! {
        /// It is always known what so many bytes are, and more of them change nothing.
        #[test]
        fn few_bytes_are_enough(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), MOST), length in 0..MOST) {
            proptest::prop_assert!(judge(&bytes).is_some());
            if let Some(said) = judge(&bytes[..length]) {
                proptest::prop_assert_eq!(judge(&bytes), Some(said));
            }
        }
    }
}
