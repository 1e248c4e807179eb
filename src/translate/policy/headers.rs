//! Fields that neither side may send, and those that every answer has.

use http::{HeaderName, HeaderValue};

use crate::api::{self, Frames, ReferrerPolicy, UNEDITABLE_HEADERS};
use crate::snapshot::{Headers, Names};
use crate::translate::conditions::Problem;

/// Fields that tell of the software behind.
const SERVER: [&str; 6] =
    ["server", "x-powered-by", "x-aspnet-version", "x-aspnetmvc-version", "x-runtime", "x-generator"];

/// What becomes of fields.
pub(super) fn headers(given: &api::Headers, path: &str, problems: &mut Vec<Problem>) -> Headers {
    let api::Headers { security, hide_server, hide, request_remove, request_remove_underscored } = given;
    let mut names = |texts: &[String], field: &str| {
        for (at, text) in texts.iter().enumerate().filter(|(_, text)| !is_removable(text)) {
            problems.push(Problem::invalid(
                format!("{path}.{field}[{at}]"),
                format_args!("{text:?} is no name of a header, or belongs to the connection and cannot be removed"),
            ));
        }
    };
    names(hide, "hide");
    names(request_remove, "requestRemove");
    let server: &[&str] = if *hide_server { &SERVER } else { &[] };
    let give = match security {
        Some(security) => given_fields(security, &format!("{path}.security"), problems),
        None => Vec::new(),
    };
    Headers {
        hide: Names::new(hide.iter().map(String::as_str).chain(server.iter().copied())),
        request_remove: Names::new(request_remove.iter().map(String::as_str)),
        request_remove_underscored: *request_remove_underscored,
        give: give.into(),
        replace: security.as_ref().is_some_and(|security| security.replace),
    }
}

/// The fields that guard pages.
fn given_fields(
    security: &api::SecurityHeaders,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Vec<(HeaderName, HeaderValue)> {
    use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
    let api::SecurityHeaders { frames, referrer_policy, content_security_policy, permissions_policy, replace: _ } =
        security;
    let mut fields = vec![(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))];
    match frames {
        Frames::SameOrigin => fields.push((X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"))),
        Frames::None => fields.push((X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))),
        Frames::Any => {}
    }
    let referrer = match referrer_policy.unwrap_or_default() {
        ReferrerPolicy::NoReferrer => "no-referrer",
        ReferrerPolicy::NoReferrerWhenDowngrade => "no-referrer-when-downgrade",
        ReferrerPolicy::Origin => "origin",
        ReferrerPolicy::OriginWhenCrossOrigin => "origin-when-cross-origin",
        ReferrerPolicy::SameOrigin => "same-origin",
        ReferrerPolicy::StrictOrigin => "strict-origin",
        ReferrerPolicy::StrictOriginWhenCrossOrigin => "strict-origin-when-cross-origin",
        ReferrerPolicy::UnsafeUrl => "unsafe-url",
    };
    fields.push((REFERRER_POLICY, HeaderValue::from_static(referrer)));
    let texts = [
        (CONTENT_SECURITY_POLICY, content_security_policy, "contentSecurityPolicy"),
        (HeaderName::from_static("permissions-policy"), permissions_policy, "permissionsPolicy"),
    ];
    for (name, text, field) in texts {
        match text.as_deref().map(HeaderValue::from_str) {
            None => {}
            Some(Ok(value)) => fields.push((name, value)),
            Some(Err(_)) => {
                problems.push(Problem::invalid(format!("{path}.{field}"), "a header value holds no control characters"))
            }
        }
    }
    fields
}

/// Whether a text names fields, none of which is the connection's.
fn is_removable(text: &str) -> bool {
    let name = text.to_ascii_lowercase();
    let taken = |one: &str| name.strip_suffix('*').map_or(one == name, |start| one.starts_with(start));
    let start = name.strip_suffix("-*").unwrap_or(&name);
    HeaderName::from_bytes(start.as_bytes()).is_ok()
        && !start.contains('*')
        && !UNEDITABLE_HEADERS.iter().any(|one| taken(one))
}
