//! The matches of a rule.

use http::{HeaderName, Method};

use super::conditions::{Problem, reason};
use crate::api;
use crate::snapshot::{PathMatch, Pattern, RouteMatch, TextMatch, path};

/// The matches of the rule at `rule`, and what is wrong with them.
///
/// A match that cannot be read takes more requests than it would if it could: the rule will answer 500 to them, which is
/// better than letting another rule have what this one may have meant to keep away from it.
pub(super) fn matches(matches: &[api::RouteMatch], rule: &str) -> (Vec<RouteMatch>, Vec<Problem>) {
    let mut problems = Vec::new();
    if matches.is_empty() {
        return (vec![RouteMatch::any()], problems);
    }
    let all = matches.iter().enumerate();
    let all = all.map(|(at, one)| route_match(one, &format!("{rule}.matches[{at}]"), &mut problems)).collect();
    (all, problems)
}

fn route_match(
    api::RouteMatch { path, method, headers, query_params }: &api::RouteMatch,
    at: &str,
    problems: &mut Vec<Problem>,
) -> RouteMatch {
    let mut all_headers = Vec::with_capacity(headers.len());
    for (position, api::HeaderMatch { name, type_, value }) in headers.iter().enumerate() {
        let at = format!("{at}.headers[{position}]");
        let name = name.parse::<HeaderName>().map_err(|_| Problem::invalid(format!("{at}.name"), not_a_header(name)));
        match name.and_then(|name| Ok((name, text_match(*type_, value.as_deref(), &at)?))) {
            Ok(header) => all_headers.push(header),
            Err(problem) => problems.push(problem),
        }
    }
    let mut query = Vec::with_capacity(query_params.len());
    for (position, api::QueryMatch { name, type_, value }) in query_params.iter().enumerate() {
        match text_match(*type_, value.as_deref(), &format!("{at}.queryParams[{position}]")) {
            Ok(text) => query.push((name.as_str().into(), text)),
            Err(problem) => problems.push(problem),
        }
    }
    // In one order, so that equal matches are found equal.
    all_headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    query.sort_by(|(a, _): &(std::sync::Arc<str>, _), (b, _)| a.cmp(b));
    let path = path.as_ref().map_or_else(|| PathMatch::prefix("/"), |one| path_match(one, at, problems));
    RouteMatch { path, method: method.map(http_method), headers: all_headers, query }
}

fn path_match(api::PathMatch { type_, value }: &api::PathMatch, at: &str, problems: &mut Vec<Problem>) -> PathMatch {
    if *type_ == api::PathMatchType::Regex {
        return match Pattern::new(value) {
            Ok(pattern) => PathMatch::Regex(pattern),
            Err(error) => {
                problems.push(pattern_problem(format!("{at}.path.value"), &error));
                PathMatch::prefix(literal_folder(value))
            }
        };
    }
    // Requests come in this form, too. What has none no request can have.
    let value = path::normalize(value).filter(|value| value.starts_with('/')).unwrap_or_else(|| {
        problems.push(Problem::invalid(
            format!("{at}.path.value"),
            format_args!("{value:?} is not a path; it begins with '/' and stays below it"),
        ));
        value.into()
    });
    match type_ {
        api::PathMatchType::Exact => PathMatch::Exact(value.into()),
        _ => PathMatch::prefix(&value),
    }
}

/// The folder that all paths a pattern could have meant are in.
fn literal_folder(pattern: &str) -> &str {
    if pattern.contains('|') || !pattern.starts_with('/') {
        return "/";
    }
    let end = pattern.find(|letter: char| !letter.is_ascii_alphanumeric() && !"/-_".contains(letter));
    let mut literal = &pattern[..end.unwrap_or(pattern.len())];
    // What is repeated may be there not at all.
    if end.is_some_and(|end| pattern[end..].starts_with(['?', '*', '{'])) {
        literal = &literal[..literal.len() - 1];
    }
    literal.rfind('/').map_or("/", |slash| &literal[..slash])
}

fn text_match(type_: api::MatchType, value: Option<&str>, at: &str) -> Result<TextMatch, Problem> {
    match (type_, value) {
        (api::MatchType::Present, None) => Ok(TextMatch::Present),
        (api::MatchType::Exact, Some(value)) => Ok(TextMatch::Exact(value.into())),
        (api::MatchType::Regex, Some(value)) => {
            Pattern::new(value).map(TextMatch::Regex).map_err(|error| pattern_problem(format!("{at}.value"), &error))
        }
        (api::MatchType::Present, Some(_)) => Err(Problem::invalid(at, "a match of type Present has no value")),
        (_, None) => Err(Problem::invalid(at, "a match needs a value, except one of type Present")),
    }
}

fn pattern_problem(path: String, error: &impl ToString) -> Problem {
    Problem { reason: reason::UNSUPPORTED_VALUE, path, message: error.to_string() }
}

pub(super) fn not_a_header(name: &str) -> String {
    format!("{name:?} is not the name of a header")
}

pub(super) fn http_method(method: api::Method) -> Method {
    match method {
        api::Method::Get => Method::GET,
        api::Method::Head => Method::HEAD,
        api::Method::Post => Method::POST,
        api::Method::Put => Method::PUT,
        api::Method::Delete => Method::DELETE,
        api::Method::Options => Method::OPTIONS,
        api::Method::Trace => Method::TRACE,
        api::Method::Patch => Method::PATCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pattern_keeps_its_folder() {
        for (pattern, folder) in [
            ("/admin/(", "/admin"),
            ("/admin/x/[", "/admin/x"),
            ("/admin/x.*(", "/admin"),
            ("/a/?x(", ""),
            ("/(", ""),
            ("/a|/b(", "/"),
            ("(", "/"),
            ("/?(", "/"),
        ] {
            assert_eq!(literal_folder(pattern), folder, "{pattern}");
        }
    }
}
