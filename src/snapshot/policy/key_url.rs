//! Addresses from which keys are fetched, and whom they may name.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::snapshot::HostPattern;

/// An address from which something is fetched.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyUrl {
    text: Box<str>,
    /// Whether TLS is spoken there.
    pub secure: bool,
    /// A name, or an address without brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: Box<str>,
}

/// Why a text is not such an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a URL without user, password or fragment, for example 'https://id.example.com/keys'")]
pub struct InvalidUrl;

/// The longest one.
const LONGEST: usize = 2048;

impl KeyUrl {
    /// Reads it.
    ///
    /// # Errors
    /// [`InvalidUrl`]
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        Self::read(text).ok_or(InvalidUrl)
    }

    fn read(text: &str) -> Option<Self> {
        let (secure, rest) = match text.split_once("://")? {
            ("https", rest) => (true, rest),
            ("http", rest) => (false, rest),
            _ => return None,
        };
        // Nothing that two readers could take differently, or that could end a line.
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte);
        if text.len() > LONGEST || !rest.bytes().all(plain) {
            return None;
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (address, port) = inner.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                (address, port)
            }
            None => {
                let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
                // A name, or four numbers: other ways to write an address are taken for neither.
                ServerName::try_from(host).ok().filter(|_| !host.contains(':'))?;
                (host, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                number.parse().ok().filter(|&it| it > 0)?
            }
            None if port.is_empty() => {
                if secure {
                    443
                } else {
                    80
                }
            }
            _ => return None,
        };
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
        Some(KeyUrl { text: text.into(), secure, host: host.to_ascii_lowercase().into(), port, path })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What a request for it has as `Host`.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Debug for KeyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Display for KeyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// From which hosts keys may be fetched; from all if nobody says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyHosts(Option<Arc<[HostPattern]>>);

impl KeyHosts {
    /// From these alone.
    pub fn only(hosts: impl IntoIterator<Item = HostPattern>) -> Self {
        KeyHosts(Some(hosts.into_iter().collect()))
    }

    /// Whether keys may come from there.
    pub fn allow(&self, url: &KeyUrl) -> bool {
        let Some(hosts) = &self.0 else { return true };
        let host = url.host.trim_end_matches('.');
        hosts.iter().any(|pattern| match pattern {
            HostPattern::Exact(name) => **name == *host,
            HostPattern::Wildcard(name) => {
                host.strip_suffix(&**name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            HostPattern::Any => true,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_are_read() {
        for (text, secure, host, port, path, authority) in [
            ("https://id.example.com", true, "id.example.com", 443, "/", "id.example.com"),
            ("https://ID.example.com:443/keys?v=1", true, "id.example.com", 443, "/keys?v=1", "id.example.com"),
            ("https://id.example.com?v=1", true, "id.example.com", 443, "/?v=1", "id.example.com"),
            ("http://127.0.0.1:8080/a/b%20c", false, "127.0.0.1", 8080, "/a/b%20c", "127.0.0.1:8080"),
            ("http://[::1]/k", false, "::1", 80, "/k", "[::1]"),
            ("https://[2001:db8::1]:8443/k", true, "2001:db8::1", 8443, "/k", "[2001:db8::1]:8443"),
        ] {
            let url = KeyUrl::parse(text).unwrap();
            assert_eq!((url.secure, &*url.host, url.port, &*url.path), (secure, host, port, path), "{text}");
            assert_eq!((url.authority(), url.to_string()), (authority.to_owned(), text.to_owned()));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_url() {
        for text in [
            "",
            "https://",
            "https:///keys",
            "id.example.com/keys",
            "ftp://a/b",
            "HTTPS://a/b",
            "//a/b",
            "https://user@a/b",
            "https://a:b@c/d",
            "https://a/b#c",
            "https://a b/c",
            "https://a/b\r\nx: y",
            "https://a/\u{e9}",
            "https://\u{e9}/",
            "https://a\\@b/",
            "https://a:/b",
            "https://a:0/b",
            "https://a:65536/b",
            "https://a:+1/b",
            "https://[::1/b",
            "https://[a]/b",
            "https://::1/b",
            "https://a..b/c",
            "https://-/c",
            "https://a:1:2/b",
            "https://[::1]x/b",
        ] {
            assert_eq!(KeyUrl::parse(text), Err(InvalidUrl), "{text}");
        }
        assert!(KeyUrl::parse(&format!("https://a/{}", "x".repeat(LONGEST))).is_err());
    }

    #[test]
    fn only_hosts_that_are_named_may_be_asked() {
        let hosts = ["id.example.com", "*.id.test"].map(|host| HostPattern::parse(host).unwrap());
        let hosts = KeyHosts::only(hosts);
        for (host, allowed) in [
            ("id.example.com", true),
            ("id.example.com.", true),
            ("id.example.com:8443", true),
            ("a.id.test", true),
            ("a.b.id.test", true),
            ("id.test", false),
            ("xid.test", false),
            ("example.com", false),
            ("id.example.com.evil.test", false),
            ("127.0.0.1", false),
        ] {
            let url = KeyUrl::parse(&format!("https://{host}/keys")).unwrap();
            assert_eq!((hosts.allow(&url), KeyHosts::default().allow(&url)), (allowed, true), "{host}");
        }
    }
}
