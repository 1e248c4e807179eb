//! Paths of requests and routes in one form, so that a route, the data plane and the upstream agree on what a path
//! names. Which route takes the path is `router`'s to say.

use std::borrow::Cow;

/// The path in normal form (RFC 3986 6.2.2): percent-encoded unreserved characters decoded, dot segments removed.
/// A path that is in this form already, as nearly all are, costs one scan.
///
/// Kept as they are: every other percent-encoding (an encoded slash is not a slash, and its case stays), empty segments
/// (`//`: RFC 3986 gives them meaning, and object stores use it) and a trailing slash. `*` is a path, too.
///
/// `None`, which a request answers with 400, for what only attacks and broken clients send: a path that climbs above
/// the root, a NUL, a `%` without two hexadecimal digits (decoding around it could make a new escape), and dot
/// segments beside a backslash or an encoded slash, which would climb where the upstream takes them for slashes.
pub fn normalize(path: &str) -> Option<Cow<'_, str>> {
    if !path.starts_with('/') {
        return (path == "*").then_some(Cow::Borrowed(path));
    }
    if is_plain(path.as_bytes()) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path)?;
    if climbs_behind_encoding(&decoded) {
        return None;
    }
    let normal = remove_dot_segments(&decoded)?;
    Some(if normal == path { Cow::Borrowed(path) } else { Cow::Owned(normal) })
}

/// No escape, no NUL, no backslash and no segment that begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut last = 0;
    for &byte in path {
        if matches!(byte, b'%' | b'\\' | 0) || (byte == b'.' && last == b'/') {
            return false;
        }
        last = byte;
    }
    true
}

fn decode_unreserved(path: &str) -> Option<String> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\0']) {
        decoded.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3).filter(|escape| escape.starts_with('%'))?;
        let digits = &escape[1..];
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        match u8::from_str_radix(digits, 16).ok()? {
            0 => return None,
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => decoded.push(char::from(byte)),
            _ => decoded.push_str(escape),
        }
        rest = &rest[at + 3..];
    }
    decoded.push_str(rest);
    Some(decoded)
}

fn climbs_behind_encoding(path: &str) -> bool {
    path.split('/').any(|segment| {
        let folded = segment.to_ascii_lowercase().replace("%5c", "\\").replace("%2f", "\\");
        folded.contains('\\') && folded.split('\\').any(|piece| piece == "." || piece == "..")
    })
}

/// RFC 3986 5.2.4, except that climbing above the root is refused instead of ignored.
fn remove_dot_segments(path: &str) -> Option<String> {
    let mut normal = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    normal.truncate(normal.rfind('/')?);
                }
                if segments.peek().is_none() {
                    normal.push('/');
                }
            }
            _ => {
                normal.push('/');
                normal.push_str(segment);
            }
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clean_paths_are_borrowed() {
        for path in ["/", "/v1/chat", "/a//b/", "//", "*", "/a.b/c..d", "/.well-known/x", "/a%2Fb", "/%C3%A9", "/a/..."]
        {
            assert!(matches!(normalize(path), Some(Cow::Borrowed(same)) if same == path), "{path}");
        }
    }

    #[test]
    fn other_paths_get_their_normal_form() {
        for (path, normal) in [
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a//../b", "/a/b"),
            ("/%61%2D%2e%5f%7E", "/a-._~"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2fb/../c", "/c"),
            ("/%41%2f", "/A%2f"),
            ("/%2525", "/%2525"),
        ] {
            assert_eq!(normalize(path).as_deref(), Some(normal), "{path}");
        }
    }

    #[test]
    fn dangerous_paths_are_refused() {
        for path in [
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e",
            "/a\0",
            "/a%00",
            "/%",
            "/%2",
            "/%zz",
            "/%%32e",
            "/%+1",
            "/%é",
            "",
            "a",
            "http://x/",
            "/a/..%2fb",
            "/a/%2e.%2F",
            "/a%5C..",
            "/x\\..\\y",
        ] {
            assert_eq!(normalize(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_normal(path in "/([a./%25e\\\\Ff]{0,3}|%2[eEfF]|\\.\\.|\\.|/){0,8}") {
            if let Some(normal) = normalize(&path) {
                prop_assert!(!normal.split('/').any(|segment| segment == "." || segment == ".."));
                prop_assert!(normal.starts_with('/'));
                let again = normalize(&normal);
                prop_assert_eq!(again.as_deref(), Some(&*normal));
            }
        }
    }
}
