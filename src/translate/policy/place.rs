//! Where in a request a token or a key is.

use http::HeaderName;

use crate::api;
use crate::snapshot::TokenPlace;
use crate::translate::conditions::Problem;

/// The places of a section.
pub(super) fn places(given: &[api::TokenSource], path: &str, problems: &mut Vec<Problem>) -> Vec<TokenPlace> {
    let each = given.iter().enumerate();
    each.filter_map(|(at, given)| place(given, &format!("{path}[{at}]"), problems)).collect()
}

fn place(given: &api::TokenSource, path: &str, problems: &mut Vec<Problem>) -> Option<TokenPlace> {
    let api::TokenSource { header, prefix, cookie, query } = given;
    match (header, cookie, query) {
        (Some(header), None, None) => {
            let header = header_name(header, &format!("{path}.header"), problems)?;
            let usual = if header == http::header::AUTHORIZATION { "Bearer" } else { "" };
            Some(TokenPlace::Header(header, prefix.as_deref().unwrap_or(usual).into()))
        }
        (None, Some(cookie), None) => Some(TokenPlace::Cookie(cookie.as_str().into())),
        (None, None, Some(query)) => Some(TokenPlace::Query(query.as_str().into())),
        _ => {
            problems.push(Problem::invalid(path, "a place needs exactly one of header, cookie and query"));
            None
        }
    }
}

/// The name of a header.
pub(super) fn header_name(name: &str, path: &str, problems: &mut Vec<Problem>) -> Option<HeaderName> {
    let read = HeaderName::from_bytes(name.as_bytes());
    read.map_err(|_| problems.push(Problem::invalid(path, format_args!("{name:?} is no name of a header")))).ok()
}
