//! What a rule does with its requests, as far as it can be known without looking at other objects.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::conditions::Problem;
use super::matches::not_a_header;
use crate::api;
use crate::settings::RouteDefaults;
use crate::snapshot::{
    Common, HeaderEdits, HostPattern, PathRewrite, Redirect, Respond, Rewrite, Timeouts, duration, path as request_path,
};

/// The largest weight, as the definition has it.
const MAX_WEIGHT: u32 = 1_000_000;

pub(super) fn weight(weight: u32, at: &str) -> Result<u32, Problem> {
    if weight <= MAX_WEIGHT {
        Ok(weight)
    } else {
        Err(Problem::invalid(format!("{at}.weight"), format_args!("{weight} is more than {MAX_WEIGHT}")))
    }
}

pub(super) fn header_edits(edits: Option<&api::HeaderEdits>, at: &str) -> Result<Option<Box<HeaderEdits>>, Problem> {
    let Some(api::HeaderEdits { set, add, remove }) = edits else { return Ok(None) };
    let fields = |fields: &[api::Header], list: &str| header_fields(fields, &format!("{at}.{list}"));
    let remove =
        remove.iter().enumerate().map(|(position, name)| editable(name, || format!("{at}.remove[{position}]")));
    let remove = remove.collect::<Result<_, _>>()?;
    Ok(Some(Box::new(HeaderEdits { remove, set: fields(set, "set")?, add: fields(add, "add")? })))
}

/// The fields of the list at `at`.
pub(super) fn header_fields(given: &[api::Header], at: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    let fields = given.iter().enumerate().map(|(position, api::Header { name, value })| {
        let at = format!("{at}[{position}]");
        let name = editable(name, || format!("{at}.name"))?;
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| Problem::invalid(format!("{at}.value"), "a header value holds no control characters"))?;
        Ok((name, value))
    });
    fields.collect()
}

fn editable(name: &str, at: impl Fn() -> String) -> Result<HeaderName, Problem> {
    let parsed: HeaderName = name.parse().map_err(|_| Problem::invalid(at(), not_a_header(name)))?;
    if api::UNEDITABLE_HEADERS.contains(&parsed.as_str()) {
        return Err(Problem::invalid(
            at(),
            format_args!("{parsed} belongs to the connection or frames the message and cannot be edited"),
        ));
    }
    Ok(parsed)
}

pub(super) fn rewrite(
    rewrite: Option<&api::Rewrite>,
    matches: &[api::RouteMatch],
    at: &str,
) -> Result<Option<Box<Rewrite>>, Problem> {
    let Some(api::Rewrite { path, host }) = rewrite else { return Ok(None) };
    let host = host.as_ref().map(|host| {
        let name = host_name(host, &format!("{at}.host"))?;
        HeaderValue::from_str(&name).map_err(|error| Problem::invalid(format!("{at}.host"), error))
    });
    Ok(Some(Box::new(Rewrite { path: path_rewrite(path.as_ref(), matches, at)?, host: host.transpose()? })))
}

fn path_rewrite(
    rewrite: Option<&api::PathRewrite>,
    matches: &[api::RouteMatch],
    at: &str,
) -> Result<Option<PathRewrite>, Problem> {
    let Some(api::PathRewrite { type_, value }) = rewrite else { return Ok(None) };
    let path = request_path::normalize(value).filter(|path| path.starts_with('/')).ok_or_else(|| {
        Problem::invalid(format!("{at}.path.value"), format_args!("{value:?} is not a path; it begins with '/'"))
    })?;
    let other = |one: &api::RouteMatch| one.path.as_ref().is_some_and(|path| path.type_ != api::PathMatchType::Prefix);
    match type_ {
        api::PathRewriteType::ReplaceFull => Ok(Some(PathRewrite::Full(path.into()))),
        api::PathRewriteType::ReplacePrefix if matches.iter().any(other) => Err(Problem::invalid(
            format!("{at}.path.type"),
            "ReplacePrefix needs every match of the rule to have a path of type Prefix",
        )),
        api::PathRewriteType::ReplacePrefix => Ok(Some(PathRewrite::Prefix(path.into()))),
    }
}

fn host_name(host: &str, at: &str) -> Result<std::sync::Arc<str>, Problem> {
    match HostPattern::parse(host) {
        Ok(HostPattern::Exact(name)) => Ok(name),
        _ => Err(Problem::invalid(at, format_args!("{host:?} is not a host name; write \"chat.example.com\""))),
    }
}

pub(super) fn redirect(redirect: &api::Redirect, matches: &[api::RouteMatch], at: &str) -> Result<Redirect, Problem> {
    let api::Redirect { scheme, host, port, path, status } = redirect;
    if scheme.is_none() && host.is_none() && port.is_none() && path.is_none() {
        return Err(Problem::invalid(at, "a redirect needs a scheme, host, port or path, or it leads back"));
    }
    let status = match status.unwrap_or(302) {
        status @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND),
        other => {
            let message = format!("{other} is not one of 301, 302, 303, 307 and 308");
            return Err(Problem::invalid(format!("{at}.status"), message));
        }
    };
    Ok(Redirect {
        scheme: scheme.map(|scheme| match scheme {
            api::Scheme::Http => "http".into(),
            api::Scheme::Https => "https".into(),
        }),
        host: host.as_ref().map(|host| host_name(host, &format!("{at}.host"))).transpose()?,
        port: *port,
        path: path_rewrite(path.as_ref(), matches, at)?,
        status,
    })
}

pub(super) fn respond(
    api::Respond { status, content_type, body }: &api::Respond,
    at: &str,
) -> Result<Respond, Problem> {
    let code = StatusCode::from_u16(*status).ok().filter(|code| (200..600).contains(&code.as_u16()));
    let code = code.ok_or_else(|| {
        Problem::invalid(format!("{at}.status"), format_args!("{status} is not a status from 200 to 599"))
    })?;
    if body.is_some() && [204, 205, 304].contains(status) {
        return Err(Problem::invalid(format!("{at}.body"), format_args!("an answer with status {status} has no body")));
    }
    let content_type = body.as_ref().map(|_| {
        let text = content_type.as_deref().unwrap_or("text/plain; charset=utf-8");
        HeaderValue::from_str(text)
            .map_err(|_| Problem::invalid(format!("{at}.contentType"), format_args!("{text:?} is not a media type")))
    });
    let body = body.as_ref().map(|body| Bytes::copy_from_slice(body.as_bytes())).unwrap_or_default();
    Ok(Respond { status: code, content_type: content_type.transpose()?, body })
}

/// The timers of rules that say nothing of them.
pub(super) fn default_timeouts(defaults: &RouteDefaults) -> Timeouts {
    let &RouteDefaults { response_head, idle, stall, .. } = defaults;
    Timeouts { connect: None, response_head, first_byte: None, idle, stall, request: None }
}

/// The timers of a rule; what it does not say is as in `unsaid`.
pub(super) fn timeouts(
    timeouts: Option<&api::Timeouts>,
    unsaid: &Common<Timeouts>,
    at: &str,
) -> Result<Common<Timeouts>, Problem> {
    let Some(api::Timeouts { connect, response_head, first_byte, idle, stall, request }) = timeouts else {
        return Ok(unsaid.clone());
    };
    let given = Timeouts {
        connect: time(connect.as_deref(), || format!("{at}.connect"))?,
        response_head: time(response_head.as_deref(), || format!("{at}.responseHead"))?.unwrap_or(unsaid.response_head),
        first_byte: time(first_byte.as_deref(), || format!("{at}.firstByte"))?,
        idle: time(idle.as_deref(), || format!("{at}.idle"))?.unwrap_or(unsaid.idle),
        stall: time(stall.as_deref(), || format!("{at}.stall"))?.unwrap_or(unsaid.stall),
        request: time(request.as_deref(), || format!("{at}.request"))?,
    };
    Ok(given.into())
}

/// A duration above zero.
pub(super) fn time(text: Option<&str>, at: impl Fn() -> String) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    match duration::parse(text) {
        Ok(Duration::ZERO) => {
            Err(Problem::invalid(at(), "a time of zero lets nothing happen; leave it out for the default"))
        }
        Ok(time) => Ok(Some(time)),
        Err(error) => Err(Problem::invalid(at(), error)),
    }
}
