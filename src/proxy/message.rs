//! Heads of messages as the phases see them, whichever version of HTTP carried them: plain values that are read, changed and
//! written. What a target means is `target`'s to say, which fields go on is `headers`'.

use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use super::body::Body;
use super::fields::Fields;

/// A request's head.
#[derive(Clone, Debug)]
pub(super) struct RequestHead {
    /// Method.
    pub method: Method,
    /// The version it came with.
    pub version: Version,
    /// How its target is written.
    pub form: Form,
    /// Host and port of the target, where it has them.
    pub authority: Option<Box<str>>,
    /// Path and query of the target.
    pub path_and_query: PathAndQuery,
    /// Fields.
    pub fields: Fields,
}

/// The forms of a target (RFC 9112 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`, and what HTTP/2 makes of it.
    Absolute,
    /// `*`
    Asterisk,
    /// Anything else.
    Other,
}

/// Path and query as they are sent, `/path?query` or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathAndQuery {
    text: Box<str>,
    path: usize,
}

impl PathAndQuery {
    /// From its text.
    pub(super) fn new(text: impl Into<Box<str>>) -> Self {
        let text = text.into();
        let path = memchr::memchr(b'?', text.as_bytes()).unwrap_or(text.len());
        PathAndQuery { text, path }
    }

    /// All of it.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The path.
    pub(super) fn path(&self) -> &str {
        &self.text[..self.path]
    }

    /// The query, without `?`.
    pub(super) fn query(&self) -> Option<&str> {
        self.text.get(self.path + 1..)
    }
}

impl RequestHead {
    /// The head that an HTTP/2 library has read.
    pub(super) fn of_http2(method: Method, uri: &Uri, fields: &HeaderMap) -> Self {
        let form = match uri.scheme_str() {
            Some("http" | "https") if uri.authority().is_some() => Form::Absolute,
            None if uri.authority().is_none() && uri.path() == "*" => Form::Asterisk,
            None if uri.authority().is_none() && uri.path().starts_with('/') => Form::Origin,
            _ => Form::Other,
        };
        RequestHead {
            method,
            version: Version::HTTP_2,
            form,
            authority: uri.authority().map(Authority::as_str).map(Box::from),
            path_and_query: PathAndQuery::new(uri.path_and_query().map_or("/", |text| text.as_str())),
            fields: fields.into(),
        }
    }
}

/// A response's head.
#[derive(Clone, Debug)]
pub(super) struct ResponseHead {
    /// Status.
    pub status: StatusCode,
    /// Fields.
    pub fields: Fields,
}

/// A response.
#[derive(Debug)]
pub(super) struct Response {
    /// Status and fields.
    pub head: ResponseHead,
    /// Content.
    pub body: Body,
}

impl Response {
    /// A response without fields.
    pub(super) fn new(status: StatusCode, body: Body) -> Self {
        Response { head: ResponseHead { status, fields: Fields::new() }, body }
    }
}
