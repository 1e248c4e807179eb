//! Where in a request a token or a key is, and how it is taken out: header fields, cookies, the query.

use std::borrow::Cow;

use percent_encoding::{percent_decode, percent_decode_str};

use crate::proxy::fields::{Fields, Known};
use crate::proxy::message::{PathAndQuery, RequestHead};
use crate::snapshot::TokenPlace;

/// A place has several, and nobody could say which one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Several;

/// What was found in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    text: &'a [u8],
    /// Whether it may be percent-encoded, as queries have it.
    encoded: bool,
}

impl<'a> Found<'a> {
    /// To the letter: tokens have no characters that need encoding, and are signed as they are.
    pub(super) fn as_written(self) -> &'a [u8] {
        self.text
    }

    /// As it is meant.
    pub(super) fn decoded(self) -> Cow<'a, [u8]> {
        if self.encoded { percent_decode(self.text).into() } else { Cow::Borrowed(self.text) }
    }
}

/// What the first place has that has something.
///
/// # Errors
/// That place has several.
pub(super) fn find<'a>(places: &[TokenPlace], head: &'a RequestHead) -> Result<Option<Found<'a>>, Several> {
    for place in places {
        let found = match place {
            TokenPlace::Header(name, prefix) => {
                let lines = head.fields.iter().filter(|(line, _)| *line == name.as_str().as_bytes());
                only(lines.filter_map(|(_, value)| behind(prefix, value)))
            }
            TokenPlace::Cookie(name) => only(cookies(&head.fields).filter_map(|pair| cookie(pair, name))),
            TokenPlace::Query(name) => {
                let query = head.path_and_query.query().unwrap_or_default();
                only(query.split('&').filter_map(|pair| parameter(pair, name)).map(str::as_bytes))
            }
        }?;
        if let Some(text) = found {
            return Ok(Some(Found { text, encoded: matches!(place, TokenPlace::Query(_)) }));
        }
    }
    Ok(None)
}

/// Takes out what is in any of the places, whether it counted or not.
pub(super) fn strip(places: &[TokenPlace], head: &mut RequestHead) {
    for place in places {
        match place {
            TokenPlace::Header(name, prefix) => {
                let is =
                    |line: &[u8], value: &[u8]| line == name.as_str().as_bytes() && behind(prefix, value).is_some();
                head.fields.retain(|_, line, value| !is(line, value));
            }
            TokenPlace::Cookie(name) => strip_cookie(&mut head.fields, name),
            TokenPlace::Query(name) => {
                if let Some(stripped) = without(&head.path_and_query, name) {
                    head.path_and_query = stripped;
                }
            }
        }
    }
}

fn only<'a>(found: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Several> {
    let mut found = found.filter(|one| !one.is_empty());
    let first = found.next();
    if found.next().is_some() { Err(Several) } else { Ok(first) }
}

/// What is behind a word: RFC 9110 11.4 has its case not count, and one space or more behind it.
fn behind<'a>(prefix: &str, value: &'a [u8]) -> Option<&'a [u8]> {
    let value = value.trim_ascii();
    if prefix.is_empty() {
        return Some(value);
    }
    let (word, rest) = value.split_at_checked(prefix.len())?;
    (word.eq_ignore_ascii_case(prefix.as_bytes()) && rest.first() == Some(&b' ')).then(|| rest.trim_ascii())
}

fn cookies(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    let pairs = fields.all(Known::Cookie).flat_map(|value| value.split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

/// The value of a cookie of this name.
fn cookie<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// The value of a parameter of this name, as it is encoded.
fn parameter<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    (key == name || key.contains('%') && Cow::from(percent_decode_str(key)) == name.as_bytes()).then_some(value)
}

fn strip_cookie(fields: &mut Fields, name: &str) {
    if !cookies(fields).any(|pair| cookie(pair, name).is_some()) {
        return;
    }
    let kept: Vec<&[u8]> = cookies(fields).filter(|pair| cookie(pair, name).is_none()).collect();
    let kept = kept.join(&b"; "[..]);
    fields.remove(Known::Cookie);
    if !kept.is_empty() {
        fields.add("cookie", &kept);
    }
}

/// A target without a parameter of its query; `None` if it has none of this name.
fn without(target: &PathAndQuery, name: &str) -> Option<PathAndQuery> {
    let query = target.query()?;
    if !query.split('&').any(|pair| parameter(pair, name).is_some()) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| parameter(pair, name).is_none()).collect();
    let path = target.path();
    Some(PathAndQuery::new(if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::{HeaderName, Method, Version};

    use super::*;
    use crate::proxy::message::Form;

    fn head(target: &str, lines: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            method: Method::GET,
            version: Version::HTTP_11,
            form: Form::Origin,
            authority: None,
            path_and_query: PathAndQuery::new(target),
            fields: Fields::of(lines),
        }
    }

    fn places() -> [TokenPlace; 4] {
        [
            TokenPlace::Header(HeaderName::from_static("authorization"), "Bearer".into()),
            TokenPlace::Header(HeaderName::from_static("x-token"), "".into()),
            TokenPlace::Query("key".into()),
            TokenPlace::Cookie("id".into()),
        ]
    }

    #[test]
    fn the_first_place_that_has_something_counts() {
        for (target, lines, found) in [
            ("/a?key=q", &[("authorization", "bearer  h "), ("cookie", "id=c")][..], Ok(Some("h"))),
            ("/a?x&key=q", &[("authorization", "Basic h"), ("cookie", "id=c")], Ok(Some("q"))),
            ("/a?key=q", &[("authorization", "Basic x"), ("x-token", " t ")], Ok(Some("t"))),
            ("/a?k%65y=q", &[], Ok(Some("q"))),
            ("/a?key=&keys=x", &[("cookie", "xid=1; id=c;id2=2")], Ok(Some("c"))),
            ("/a?key", &[("cookie", "a=id=t; Id=u; xid=v; id")], Ok(None)),
            ("/a", &[("authorization", "Bearer"), ("authorization", "Bearerx y"), ("authorization", "")], Ok(None)),
            ("/a?key=1&key=2", &[], Err(Several)),
            ("/a", &[("authorization", "Bearer a"), ("authorization", "Bearer b")], Err(Several)),
            ("/a", &[("cookie", "id=1"), ("cookie", "id=1")], Err(Several)),
        ] {
            let head = head(target, lines);
            let seen =
                find(&places(), &head).map(|found| found.map(|it| std::str::from_utf8(it.as_written()).unwrap()));
            assert_eq!(seen, found, "{target} {lines:?}");
        }
    }

    #[test]
    fn only_queries_are_encoded() {
        for (target, lines, written, decoded) in [
            ("/?key=a%2Bb", &[][..], "a%2Bb", "a+b"),
            ("/", &[("x-token", "a%2Bb")], "a%2Bb", "a%2Bb"),
            ("/", &[("cookie", "id=a%2Bb")], "a%2Bb", "a%2Bb"),
        ] {
            let head = head(target, lines);
            let found = find(&places(), &head).unwrap().unwrap();
            assert_eq!((found.as_written(), &*found.decoded()), (written.as_bytes(), decoded.as_bytes()), "{target}");
        }
    }

    #[test]
    fn all_places_are_emptied_and_nothing_else() {
        let lines = [("authorization", "Basic b"), ("authorization", "Bearer h"), ("cookie", "a=1; id=c; b=2")];
        let mut given = head("/a?x=1&key=q&k%65y&y=%26key%3D", &lines);
        strip(&places(), &mut given);
        assert_eq!(given.path_and_query.as_str(), "/a?x=1&y=%26key%3D");
        let left = [("authorization", "Basic b"), ("cookie", "a=1; b=2")];
        assert_eq!(given.fields.to_lines(), left.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut bare = head("/a?key=q", &[("cookie", "id=c"), ("x-token", "t")]);
        strip(&places(), &mut bare);
        assert_eq!((bare.path_and_query.as_str(), bare.fields.len()), ("/a", 0));
        // What nobody asked for stays to the letter.
        let lines = [("cookie", "a=1;b=2"), ("cookie", "xid=t")];
        let mut other = head("/a?x=key", &lines);
        strip(&places(), &mut other);
        assert_eq!(other.fields.to_lines(), lines.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
