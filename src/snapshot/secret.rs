//! What is secret: bytes that are nothing else ([`SecretBytes`]), and values that are so by the name of their field. A
//! snapshot is only ever serialised to be shown to people, so it leaves secrets out by itself and nobody can forget to.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

use super::TextMatch;

/// What is shown instead of a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Bytes that nobody is shown: keys, tokens, passwords. Debug, Display and Serialize say so instead of what they are. Clones
/// share the bytes, which are overwritten with zeroes when the last one is dropped. Comparing takes a time that depends on the
/// content: it tells versions of configuration apart, and never what a client sent.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Arc<Zeroizing<Box<[u8]>>>);

impl SecretBytes {
    /// The bytes. Whoever copies them has a secret of its own to look after.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text.
    ///
    /// # Errors
    /// If they are not UTF-8; the error holds nothing of them.
    pub fn expose_text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(self.expose())
    }
}

impl From<Vec<u8>> for SecretBytes {
    /// Takes a copy of the exact length, because shrinking might leave the old one behind, and wipes what it came from.
    fn from(mut bytes: Vec<u8>) -> Self {
        let exact = Box::from(bytes.as_slice());
        bytes.zeroize();
        SecretBytes(Arc::new(Zeroizing::new(exact)))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// Whether a header field or query parameter of this name holds a secret, as far as names tell.
pub(super) fn is_secret(name: &str) -> bool {
    const WHOLE: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "set-cookie", "auth"];
    const PART: [&str; 8] = ["token", "secret", "password", "passwd", "credential", "api-key", "apikey", "access-key"];
    let name = name.to_ascii_lowercase().replace('_', "-");
    WHOLE.contains(&name.as_str())
        || PART.iter().any(|part| name.contains(part))
        || name == "key"
        || name.ends_with("-key")
}

/// Matches of fields or parameters, with the values of secret ones left out.
pub(super) fn matches<'a, N: AsRef<str> + 'a, S: Serializer>(
    matches: impl IntoIterator<Item = &'a (N, TextMatch)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Shown<'a> {
        Redacted(&'static str),
        Open(&'a TextMatch),
    }
    serializer.collect_seq(matches.into_iter().map(|(name, value)| match value {
        TextMatch::Exact(_) | TextMatch::Regex(_) if is_secret(name.as_ref()) => {
            (name.as_ref(), Shown::Redacted(REDACTED))
        }
        value => (name.as_ref(), Shown::Open(value)),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::{HeaderName, HeaderValue};

    use super::super::{HeaderEdits, PathMatch, RouteMatch};
    use super::*;

    #[test]
    fn secret_bytes_are_not_shown() {
        let secret = SecretBytes::from(b"hush".to_vec());
        let shown = format!("{secret} {secret:?} {:#?} {}", Some(&secret), serde_json::to_string(&secret).unwrap());
        assert_eq!(shown.matches(REDACTED).count(), 4);
        assert!(!shown.contains("hush") && !shown.contains("104"), "{shown}");
        assert_eq!((secret.expose(), secret.expose_text()), (&b"hush"[..], Ok("hush")));
        assert_eq!(secret, SecretBytes::from(b"hush".to_vec()));
        assert_ne!(secret, SecretBytes::from(b"hum".to_vec()));
    }

    #[test]
    fn names_tell_what_is_secret() {
        for name in [
            "Authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "X_API_KEY",
            "x-auth-token",
            "client-secret",
            "db_password",
            "key",
            "x-signing-key",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["x-user", "accept", "x-keyboard", "monkey", "keep-alive", "content-type"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_shown_snapshot_holds_no_secret() {
        let field = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let edits = HeaderEdits {
            set: vec![field("authorization", "Bearer hush"), field("x-user", "ada")],
            add: vec![field("x-api-key", "hush")],
            ..HeaderEdits::default()
        };
        let matches = RouteMatch {
            path: PathMatch::Exact("/".into()),
            method: None,
            headers: vec![
                (HeaderName::from_static("x-token"), TextMatch::Exact("hush".into())),
                (HeaderName::from_static("x-secret"), TextMatch::Present),
            ],
            query: vec![("key".into(), TextMatch::Exact("hush".into())), ("q".into(), TextMatch::Exact("open".into()))],
        };
        let shown = serde_json::to_string(&(edits, matches)).unwrap();
        assert!(!shown.contains("hush"), "{shown}");
        for part in
            ["authorization: [redacted]", "x-user: ada", r#"["x-secret","Present"]"#, r#"["q",{"Exact":"open"}]"#]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
