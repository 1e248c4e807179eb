//! How large requests may be, and of which kinds.

use crate::api;
use crate::snapshot::{MediaTypes, Methods, RequestLimits};
use crate::translate::conditions::Problem;
use crate::translate::matches::http_method;

/// The limits of a section.
pub(super) fn request_limits(given: &api::RequestLimits, path: &str, problems: &mut Vec<Problem>) -> RequestLimits {
    let api::RequestLimits { body_bytes, header_bytes, methods, content_types } = given;
    if body_bytes.is_none() && header_bytes.is_none() && methods.is_empty() && content_types.is_empty() {
        problems.push(Problem::invalid(path, "requestLimits limits nothing; write for example {bodyBytes: 1048576}"));
    }
    media_types(content_types, &format!("{path}.contentTypes"), problems);
    RequestLimits {
        body_bytes: *body_bytes,
        header_bytes: header_bytes.map(|bytes| bytes as usize),
        methods: (!methods.is_empty()).then(|| Methods::new(methods.iter().map(|&method| http_method(method)))),
        content_types: (!content_types.is_empty()).then(|| MediaTypes::new(content_types.iter().map(String::as_str))),
    }
}

/// What is wrong with a list of media types.
pub(super) fn media_types(types: &[String], path: &str, problems: &mut Vec<Problem>) {
    for (at, text) in types.iter().enumerate() {
        let token = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"/;,*\"()<>@:\\[]?={}".contains(&byte))
        };
        let valid = text.split_once('/').is_some_and(|(kind, type_)| token(kind) && (type_ == "*" || token(type_)));
        if !valid {
            problems.push(Problem::invalid(
                format!("{path}[{at}]"),
                format_args!("{text:?} is no media type; write for example 'application/json' or 'image/*'"),
            ));
        }
    }
}
