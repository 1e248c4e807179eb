//! Whom another service lets pass. Which cluster that service is, is looked up with what the backends of rules refer to.

use std::time::Duration;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};

use super::place::header_name;
use super::{Lead, Material};
use crate::api;
use crate::snapshot::{ClusterName, ExternalAuth, HostPattern};
use crate::translate::Key;
use crate::translate::conditions::Problem;
use crate::translate::route::target;
use crate::translate::streaming::time_within;

const TIMEOUT: Duration = Duration::from_secs(2);

/// What is asked by a section; its cluster is still to be found.
pub(super) fn external_auth(
    given: &api::ExternalAuth,
    path: &str,
    material: &mut Material<'_>,
    problems: &mut Vec<Problem>,
) -> ExternalAuth {
    let api::ExternalAuth {
        service,
        upstream,
        path: asked,
        host,
        timeout,
        on_failure,
        request_headers,
        backend_headers,
        success_headers,
        refusal_headers,
    } = given;
    let key = Key::new(material.namespace.clone(), "");
    match target(service.as_ref(), upstream.as_ref(), &key, path) {
        Ok(target) => material.leads.push((Lead::ExternalAuth, target)),
        Err(problem) => problems.push(problem),
    }
    let asked = asked.as_deref().unwrap_or("/");
    if !asked.starts_with('/') || !asked.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>`".contains(&byte)) {
        problems.push(Problem::invalid(format!("{path}.path"), "write a path, for example '/verify'"));
    }
    let is_host = |host: &str| HostPattern::parse(host).is_ok_and(|pattern| matches!(pattern, HostPattern::Exact(_)));
    if host.as_deref().is_some_and(|host| !is_host(host)) {
        problems.push(Problem::invalid(
            format!("{path}.host"),
            "write a host without a port, for example 'auth.example.com'",
        ));
    }
    let timeout = time_within(timeout, api::AUTH_TIMEOUT, || format!("{path}.timeout"));
    let timeout = timeout.unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    let mut names = |names: &[String], field: &str, usual: &[HeaderName]| -> Box<[HeaderName]> {
        if names.is_empty() {
            return usual.into();
        }
        let each = names.iter().enumerate();
        each.filter_map(|(at, name)| header_name(name, &format!("{path}.{field}[{at}]"), problems)).collect()
    };
    ExternalAuth {
        cluster: ClusterName::new(""),
        path: asked.into(),
        host: host.as_deref().map(Box::from),
        timeout: timeout.unwrap_or(TIMEOUT),
        pass_on_failure: *on_failure == Some(api::OnAuthFailure::Pass),
        request_headers: names(request_headers, "requestHeaders", &[AUTHORIZATION, COOKIE]),
        backend_headers: names(backend_headers, "backendHeaders", &[]),
        success_headers: names(success_headers, "successHeaders", &[]),
        refusal_headers: names(refusal_headers, "refusalHeaders", &[LOCATION, SET_COOKIE, WWW_AUTHENTICATE]),
    }
}
