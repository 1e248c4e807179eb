//! What the demo's backends answer with.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::Value;

/// A body that is whole or a stream.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A whole body.
pub(super) fn whole(content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// JSON for programs and people: indented, with a line end.
pub(super) fn json(value: &Value) -> Response<Body> {
    whole("application/json", format!("{value:#}\n"))
}

/// A refusal with one sentence.
pub(super) fn refusal(status: StatusCode, sentence: &str) -> Response<Body> {
    let mut response = whole("text/plain; charset=utf-8", format!("{sentence}\n"));
    *response.status_mut() = status;
    response
}

/// 405.
pub(super) fn only(methods: &'static str) -> Response<Body> {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("This takes {methods}."));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}
