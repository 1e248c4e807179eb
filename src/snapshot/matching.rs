//! One way for a rule to apply, and whether a request fits it. Which of several fitting rules wins is `router`'s to say.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode;
use regex::bytes::{Regex, RegexBuilder};
use serde::{Serialize, Serializer};

use super::{RequestView, secret};

/// One way for a rule to apply: all that it names must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The method; `None` takes any.
    #[serde(serialize_with = "method", skip_serializing_if = "Option::is_none")]
    pub method: Option<http::Method>,
    /// Fields that must be there.
    #[serde(serialize_with = "headers", skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(HeaderName, TextMatch)>,
    /// Query parameters that must be there.
    #[serde(serialize_with = "query", skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<(Arc<str>, TextMatch)>,
}

impl RouteMatch {
    /// The match of a rule that names none: every request.
    pub fn any() -> Self {
        RouteMatch { path: PathMatch::Prefix("".into()), method: None, headers: Vec::new(), query: Vec::new() }
    }

    /// Whether the request fits.
    pub fn accepts(&self, request: &RequestView<'_>) -> bool {
        self.path.accepts(request.path) && self.accepts_rest(request)
    }

    /// Whether the request fits, once its path is known to.
    pub(super) fn accepts_rest(&self, request: &RequestView<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == request.method)
            && self.headers.iter().all(|(name, value)| value.accepts(request.headers.value(name).as_deref()))
            && self.query.iter().all(|(name, value)| value.accepts(parameter(request.query, name).as_deref()))
    }
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// Whole leading segments; without trailing slash, `/` is empty.
    Prefix(Arc<str>),
    /// A regular expression on the whole path.
    Regex(Pattern),
}

impl PathMatch {
    /// A prefix as objects write it: `/v1` and `/v1/` are the same, and `/` takes every path.
    pub fn prefix(value: &str) -> Self {
        PathMatch::Prefix(value.trim_end_matches('/').into())
    }

    /// Whether the path fits. Bytes are compared as they are: what [`super::path::normalize`] leaves encoded differs
    /// from its decoded form, and `//` is not `/`.
    pub fn accepts(&self, path: &str) -> bool {
        match self {
            PathMatch::Exact(value) => **value == *path,
            PathMatch::Regex(pattern) => pattern.accepts(path.as_bytes()),
            PathMatch::Prefix(prefix) if prefix.is_empty() => true,
            // "/v1" takes "/v1" and "/v1/x", not "/v1x": Gateway API, "matching is … done on a path element by element
            // basis".
            PathMatch::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

/// How a field or a parameter is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum TextMatch {
    /// The whole value.
    Exact(Arc<str>),
    /// A regular expression on the whole value.
    Regex(Pattern),
    /// Any value.
    Present,
}

impl TextMatch {
    fn accepts(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (_, None) => false,
            (TextMatch::Present, Some(_)) => true,
            (TextMatch::Exact(expected), Some(value)) => expected.as_bytes() == value,
            (TextMatch::Regex(pattern), Some(value)) => pattern.accepts(value),
        }
    }
}

/// Where the fields of a request are looked up, whoever keeps them.
pub trait FieldLines: std::fmt::Debug {
    /// The value of a field; several lines of the same name are one list (RFC 9110 5.3).
    fn value(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>>;
}

impl FieldLines for HeaderMap {
    fn value(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        joined(self.get_all(name).iter().map(HeaderValue::as_bytes))
    }
}

/// The lines of one field as the list that they are; `None` if there are none.
pub fn joined<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, [u8]>> {
    let first = Cow::Borrowed(lines.next()?);
    Some(lines.fold(first, |mut joined, line| {
        joined.to_mut().extend_from_slice(b", ");
        joined.to_mut().extend_from_slice(line);
        joined
    }))
}

/// The first value of a query parameter, decoded as forms encode it. The Gateway API: "If a query param is repeated in
/// an HTTP request … implementations are … recommended to match against the first value".
pub fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, [u8]>> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*form_decode(key) == *name.as_bytes()).then(|| form_decode(value))
    })
}

fn form_decode(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        Cow::Owned(percent_decode(text.replace('+', " ").as_bytes()).collect())
    } else {
        percent_decode(text.as_bytes()).into()
    }
}

/// A compiled regular expression that matches whole texts, equal by its source. It works on bytes with ASCII classes
/// (`\d` is `[0-9]`), runs in linear time, and its compiled size is bounded.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a usable regular expression: {why}")]
pub struct InvalidPattern {
    /// The text.
    pub pattern: String,
    /// What the parser says, in one line.
    pub why: String,
}

const BEGIN: &str = r"\A(?:";
const END: &str = r")\z";
/// Bytes of a compiled pattern; a few thousand literals, or a counted repetition of a few hundred.
const SIZE_LIMIT: usize = 128 * 1024;

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`InvalidPattern`] if it is not a regular expression or is too large.
    pub fn new(pattern: &str) -> Result<Self, InvalidPattern> {
        // Alone first: inside the anchors, `a)|(b` would compile and not be anchored.
        compile(pattern)
            .and_then(|_| compile(&format!("{BEGIN}{pattern}{END}")))
            .map(Pattern)
            .map_err(|error| InvalidPattern { pattern: pattern.to_owned(), why: one_line(&error) })
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        let whole = self.0.as_str();
        &whole[BEGIN.len()..whole.len() - END.len()]
    }

    fn accepts(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).size_limit(SIZE_LIMIT).dfa_size_limit(SIZE_LIMIT).build()
}

/// The parser draws the place under the pattern; only its last line is a sentence.
fn one_line(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("compiled it is larger than {limit} bytes"),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn method<S: Serializer>(method: &Option<http::Method>, serializer: S) -> Result<S::Ok, S::Error> {
    match method {
        Some(method) => serializer.serialize_some(method.as_str()),
        None => serializer.serialize_none(),
    }
}

fn headers<S: Serializer>(headers: &[(HeaderName, TextMatch)], serializer: S) -> Result<S::Ok, S::Error> {
    secret::matches(headers, serializer)
}

fn query<S: Serializer>(query: &[(Arc<str>, TextMatch)], serializer: S) -> Result<S::Ok, S::Error> {
    secret::matches(query, serializer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prefixes_take_whole_segments() {
        for (prefix, path, fits) in [
            ("/v1", "/v1", true),
            ("/v1", "/v1/", true),
            ("/v1/", "/v1", true),
            ("/v1", "/v1/x", true),
            ("/v1", "/v1x", false),
            ("/v1", "/V1", false),
            ("/v1", "//v1", false),
            ("/v1/x", "/v1//x", false),
            ("/", "/anything", true),
            ("/", "*", true),
            ("/a%2Fb", "/a%2Fb/c", true),
            ("/a%2Fb", "/a/b/c", false),
        ] {
            assert_eq!(PathMatch::prefix(prefix).accepts(path), fits, "{prefix} on {path}");
        }
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, fits) in [
            ("/v[0-9]+/.*", "/v1/x", true),
            ("/v[0-9]+", "/v1/x", false),
            ("a|ab", "ab", true),
            ("a|b", "xb", false),
            (r"\d+", "١", false),
            ("(?i)blue", "BLUE", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().accepts(text.as_bytes()), fits, "{pattern} on {text}");
        }
        assert_eq!(Pattern::new("/a.*").unwrap().as_str(), "/a.*");
    }

    #[test]
    fn bad_patterns_are_explained_in_one_line() {
        for (pattern, why) in [
            ("(a", "unclosed group"),
            ("a)|(b", "unopened group"),
            ("[z-a]", "invalid character class range, the start must be <= the end"),
            ("(?:a{100}){100}", "compiled it is larger than 131072 bytes"),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap_err().why, why, "{pattern}");
        }
    }

    fn request<'a>(query: Option<&'a str>, headers: &'a HeaderMap) -> RequestView<'a> {
        RequestView { host: "h", path: "/", query, method: &http::Method::GET, headers }
    }

    #[test]
    fn parameters_are_decoded_and_the_first_counts() {
        let headers = HeaderMap::new();
        for (query, value, fits) in [
            (Some("a=1&b=2"), TextMatch::Exact("2".into()), true),
            (Some("b=1&b=2"), TextMatch::Exact("2".into()), false),
            (Some("%62=x+y%21"), TextMatch::Exact("x y!".into()), true),
            (Some("b"), TextMatch::Present, true),
            (Some("b"), TextMatch::Exact("".into()), true),
            (Some("B=1"), TextMatch::Present, false),
            (None, TextMatch::Present, false),
            (Some("b=17"), TextMatch::Regex(Pattern::new("[0-9]{2}").unwrap()), true),
        ] {
            let one = RouteMatch { query: vec![("b".into(), value)], ..RouteMatch::any() };
            assert_eq!(one.accepts(&request(query, &headers)), fits, "{query:?} {one:?}");
        }
    }

    #[test]
    fn repeated_fields_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", "1".parse().unwrap());
        let one = |value| RouteMatch {
            headers: vec![(HeaderName::from_static("x-a"), TextMatch::Exact(value))],
            ..RouteMatch::any()
        };
        assert!(one("1".into()).accepts(&request(None, &headers)));
        headers.append("x-a", "2".parse().unwrap());
        assert!(one("1, 2".into()).accepts(&request(None, &headers)));
        assert!(!one("1".into()).accepts(&request(None, &headers)));
    }
}
