//! Origins whose pages may read answers, and what browsers are told of them.

use serde::Serialize;

/// Which pages of other origins may read answers. Texts are the values of header fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cors {
    /// The origins.
    pub origins: Origins,
    /// Methods that they may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Box<str>>,
    /// Fields that they may set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Box<str>>,
    /// Fields that they may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expose: Option<Box<str>>,
    /// Whether browsers send credentials.
    pub credentials: bool,
    /// How long the answer to a preflight may be kept, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
    /// Whether requests of other origins are refused.
    pub refuse_others: bool,
}

/// A set of origins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Origins {
    /// Every origin.
    Any,
    /// These.
    Some {
        /// As browsers write them, sorted.
        exact: Box<[Box<str>]>,
        /// All hosts below one.
        below: Box<[Below]>,
    },
}

/// The origins of all hosts below one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Below {
    /// What an origin begins with: `https://`.
    pub start: Box<str>,
    /// What it ends with: `.example.com:8443`.
    pub end: Box<str>,
}

impl Origins {
    /// The origins of these texts: `*`, `https://*.example.com` or `https://example.com`.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut exact, mut below) = (Vec::<Box<str>>::new(), Vec::new());
        for text in texts {
            match text.split_once("*") {
                Some(("", "")) => return Origins::Any,
                Some((start, end)) => below.push(Below { start: start.into(), end: end.into() }),
                None => exact.push(text.into()),
            }
        }
        exact.sort_unstable();
        Origins::Some { exact: exact.into(), below: below.into() }
    }

    /// Whether an origin is among them. Browsers write origins in one way only, so that bytes are compared.
    pub fn contain(&self, origin: &[u8]) -> bool {
        match self {
            Origins::Any => true,
            Origins::Some { exact, below } => {
                exact.binary_search_by(|one| one.as_bytes().cmp(origin)).is_ok()
                    || below.iter().any(|below| below.contains(origin))
            }
        }
    }
}

impl Below {
    fn contains(&self, origin: &[u8]) -> bool {
        let rest = origin.strip_prefix(self.start.as_bytes());
        let Some(labels) = rest.and_then(|rest| rest.strip_suffix(self.end.as_bytes())) else { return false };
        // Nothing but labels may stand there: no other host with a port, a path or a name and password behind it.
        labels.len() <= 253
            && labels.split(|&byte| byte == b'.').all(|label| {
                !label.is_empty() && label.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_one_of_those_or_it_is_not() {
        let origins =
            Origins::new(["https://shop.test", "http://localhost:3000", "https://*.example.com", "app://*.x:81"]);
        for (origin, contained) in [
            ("https://shop.test", true),
            ("http://localhost:3000", true),
            ("https://a.example.com", true),
            ("https://a.b-c.example.com", true),
            ("https://xn--bcher-kva.example.com", true),
            ("app://a.x:81", true),
            ("http://shop.test", false),
            ("https://shop.test:8443", false),
            ("https://shop.test.evil.test", false),
            ("https://Shop.test", false),
            ("https://evilshop.test", false),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://a..example.com", false),
            ("https://a.example.com:8443", false),
            ("https://a.example.com.", false),
            ("https://evilexample.com", false),
            ("https://evil.test/.example.com", false),
            ("https://evil.test:1.example.com", false),
            ("https://evil.test#.example.com", false),
            ("https://evil@a.example.com", false),
            ("https://evil.test\0.example.com", false),
            ("http://a.example.com", false),
            ("https://a.example.com, https://b.example.com", false),
            ("null", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(origins.contain(origin.as_bytes()), contained, "{origin}");
        }
        assert!(!origins.contain(format!("https://{}.example.com", "a".repeat(254)).as_bytes()));
        assert!(Origins::new(["https://a.test", "*"]).contain(b"null"));
    }
}
