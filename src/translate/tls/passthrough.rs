//! Routes that pass TLS on: what they may not say, because nobody here can read what passes, what they may not be under, and which of
//! them have their way where others end TLS for the same host.

use super::{TlsTable, Words};
use crate::api;
use crate::snapshot::{HostPattern, Map, Policy};
use crate::translate::Key;
use crate::translate::conditions::{Problem, reason};
use crate::translate::hosts::Hosts;
use crate::translate::route::{Age, RouteState};

/// What is wrong with a route as one that passes TLS on. Nobody is let through until it is put right.
pub(in crate::translate) fn problems(tls: &api::RouteTls, hosts: &[String], rules: &[api::Rule]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |path: &str, why: &str| problems.push(Problem::invalid(path, why));
    let api::RouteTls {
        secret_name,
        alternate_secret_name,
        redirect: _,
        min_version,
        client_certificates,
        hsts,
        passthrough: _,
    } = tls;
    if client_certificates.is_some()
        || secret_name.is_some()
        || alternate_secret_name.is_some()
        || min_version.is_some()
        || hsts.is_some()
    {
        wrong(
            "spec.tls",
            "TLS that is passed through ends at the endpoints: secretName, alternateSecretName, minVersion, clientCertificates and hsts are theirs",
        );
    }
    if hosts.is_empty() {
        wrong("spec.hosts", "what is passed through is known by the host that a client names; name hosts");
    }
    let [rule] = rules else {
        wrong("spec.rules", "with tls.passthrough there is exactly one rule: nobody sees what is asked for");
        return problems;
    };
    for field in of_http(rule) {
        wrong(&format!("spec.rules[0].{field}"), "is for HTTP, and nobody here reads what tls.passthrough passes on");
    }
    problems
}

/// The fields of a rule that say something of HTTP.
fn of_http(rule: &api::Rule) -> impl Iterator<Item = &'static str> {
    let api::Rule {
        name: _,
        matches,
        backends: _,
        redirect,
        respond,
        request_headers,
        response_headers,
        rewrite,
        timeouts,
        retry,
        streaming,
        policies: _,
    } = rule;
    let head = timeouts.as_ref().is_some_and(|given| {
        let api::Timeouts { connect: _, response_head, first_byte: _, idle: _, stall: _, request: _ } = &**given;
        response_head.is_some()
    });
    let (hold, sse, web_socket) = streaming.as_ref().map_or((false, false, false), |given| {
        let api::Streaming { max_age: _, removal_grace: _, hold_first_byte, sse, web_socket } = &**given;
        (*hold_first_byte, sse.is_some(), web_socket.is_some())
    });
    let said = [
        ("matches", !matches.is_empty()),
        ("redirect", redirect.is_some()),
        ("respond", respond.is_some()),
        ("requestHeaders", request_headers.is_some()),
        ("responseHeaders", response_headers.is_some()),
        ("rewrite", rewrite.is_some()),
        ("timeouts.responseHead", head),
        ("retry", retry.is_some()),
        ("streaming.holdFirstByte", hold),
        ("streaming.sse", sse),
        ("streaming.webSocket", web_socket),
    ];
    said.into_iter().filter(|(_, said)| *said).map(|(field, _)| field)
}

/// What a policy asks of the connections of a rule that nobody can ask: they are refused.
pub(in crate::translate) fn unasked(policy: Option<&Policy>, rule: usize) -> Option<Problem> {
    let section = policy?.beyond_address()?;
    Some(Problem {
        reason: reason::POLICY_INVALID,
        path: format!("spec.rules[{rule}]"),
        message: format!(
            "{section} of a policy cannot be asked of TLS that is passed through; take the route out of it, or end TLS here"
        ),
    })
}

impl TlsTable {
    /// The route that decides what a host has. TLS is passed on if the oldest route of all wants that, and ended otherwise, also for a
    /// route that says nothing of it: what comes to it is not to be taken away by one that is younger.
    pub(super) fn first<'a>(
        &self,
        host: &HostPattern,
        hosts: &Hosts,
        routes: &'a Map<Key, Box<RouteState>>,
    ) -> Option<(&'a Key, &'a RouteState)> {
        let passed = hosts.oldest(host).and_then(|key| routes.get(key)).is_some_and(|route| route.tls.passed);
        let mut members = self.hosts.get(host)?.iter().filter_map(|Age(_, key)| routes.get_key_value(key));
        members.find(|(_, route)| route.tls.passed == passed).map(|(key, route)| (key, &**route))
    }

    /// What the owner of a route is told that has TLS passed on.
    pub(super) fn words_of_passed(
        &self,
        key: &Key,
        route: &RouteState,
        hosts: &Hosts,
        routes: &Map<Key, Box<RouteState>>,
    ) -> Words {
        let lost = route.hosts.iter().filter_map(|host| match self.first(host, hosts, routes) {
            Some((first, _)) if first == key => None,
            Some((first, other)) if other.tls.passed => Some(conflict(
                "spec.tls.passthrough",
                first,
                &format!("has TLS of host {host} passed through to its own backends"),
            )),
            _ => {
                let first = hosts.oldest(host).unwrap_or(key);
                Some(conflict("spec.tls.passthrough", first, &format!("has TLS of host {host} ended here")))
            }
        });
        let warnings: Vec<_> = lost.collect();
        Words { lost: !warnings.is_empty() && warnings.len() == route.hosts.len(), warnings, ..Words::default() }
    }
}

/// Another route goes first.
pub(super) fn conflict(path: &str, first: &Key, what: &str) -> Problem {
    let message = format!("ProxyRoute {first}, which comes first, {what}");
    Problem { reason: reason::PARTIALLY_CONFLICTED, path: path.to_owned(), message }
}
