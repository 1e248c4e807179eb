//! Whom another service lets pass. It is asked by the same connections, balancing, health and breakers as backends are, with a
//! request of Floodway's own that has none of the client's content. Nothing is asked about that request: it goes to the
//! endpoints at once.

use std::rc::Rc;
use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{Method, StatusCode, Version};
use tokio::time::{Instant, timeout_at};

use super::{Asked, aside};
use crate::clock;
use crate::proxy::body::Body;
use crate::proxy::error::Error;
use crate::proxy::exchange::Beside;
use crate::proxy::fields::{Fields, Known};
use crate::proxy::headers;
use crate::proxy::message::{Form, PathAndQuery, RequestHead, ResponseHead};
use crate::proxy::retry;
use crate::proxy::upstream::{self, Wish};
use crate::snapshot::{Cluster, ExternalAuth, FieldLines as _, path};

/// How often it is asked about one request: a connection that was kept may be closed by then, an endpoint be gone.
const MOST_ATTEMPTS: usize = 3;
/// Tells how many questions led to this one, so that a service which is behind the same policy is not asked about itself without end.
const DEPTH: &str = "x-floodway-asks";
/// How many of them are legitimate: one Floodway behind another.
const MOST_DEPTH: u8 = 4;

/// Lets a request pass that the service lets pass.
///
/// # Errors
/// It refuses, or it says nothing.
pub(super) async fn admit(external: &ExternalAuth, asked: &mut Asked<'_>) -> Result<(), Error> {
    // Whatever is to become of failures: clients can send this, too.
    let Some(depth) = depth(&asked.head.fields) else {
        tracing::debug!(request_id = asked.exchange.request_id(), "a service is asked about its own questions");
        return Err(Error::AuthUnavailable);
    };
    let told = match asked.snapshot.clusters.get(&external.cluster) {
        Some(cluster) => ask(external, cluster, &question(external, depth, asked), asked).await,
        None => Err(Error::NoEndpoint),
    };
    let told = told.and_then(|head| if decides(head.status) { Ok(head) } else { Err(Error::AuthUnavailable) });
    match told {
        Ok(head) if head.status.is_success() => {
            for name in &external.backend_headers {
                asked.vouch(name, head.fields.value(name).as_deref());
            }
            for name in &external.success_headers {
                for value in lines(&head.fields, name.as_str()) {
                    // Cookies of the backend stay beside those of the service.
                    match name == SET_COOKIE {
                        true => asked.exchange.adorn_beside(name.as_str(), value),
                        false => asked.exchange.adorn(name.as_str(), value),
                    }
                }
            }
            Ok(())
        }
        Ok(head) => {
            for name in &external.refusal_headers {
                lines(&head.fields, name.as_str()).for_each(|value| asked.exchange.adorn(name.as_str(), value));
            }
            Err(Error::AuthDenied(head.status))
        }
        Err(error) => {
            let (request_id, cluster) = (asked.exchange.request_id(), external.cluster.as_str());
            tracing::debug!(request_id, cluster, %error, "nobody says whether a request may pass");
            if !external.pass_on_failure {
                return Err(Error::AuthUnavailable);
            }
            external.backend_headers.iter().for_each(|name| asked.vouch(name, None));
            Ok(())
        }
    }
}

/// Whether an answer says anything. A 304 would have clients take what they have for allowed, a 407 is about a proxy.
fn decides(status: StatusCode) -> bool {
    match status.as_u16() {
        301 | 302 | 303 | 307 | 308 => true,
        407 => false,
        _ => status.is_success() || status.is_client_error(),
    }
}

/// The depth of the next question. `None` if that is too deep.
fn depth(fields: &Fields) -> Option<u8> {
    let mut given = lines(fields, DEPTH);
    match (given.next(), given.next()) {
        (None, _) => Some(1),
        (Some(depth), None) => {
            let depth = std::str::from_utf8(depth).ok()?.parse::<u8>().ok()?;
            depth.checked_add(1).filter(|next| *next <= MOST_DEPTH)
        }
        _ => None,
    }
}

fn lines<'a>(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(line, _)| *line == name.as_bytes()).map(|(_, value)| value)
}

/// What it is asked: a GET with what the client's request says of itself, as Traefik's forwardAuth (`x-forwarded-*`) and nginx's
/// auth_request (`x-original-*`) have it.
fn question(external: &ExternalAuth, depth: u8, asked: &Asked<'_>) -> RequestHead {
    let given = &asked.head.fields;
    let mut fields = Fields::new();
    for name in external.request_headers.iter().map(|name| name.as_str()) {
        // What is for the client's connection alone does not get any farther (RFC 9110 7.6.1).
        if !given.lists(Known::Connection, name) {
            lines(given, name).for_each(|value| fields.add(name, value));
        }
    }
    let (method, scheme) = (asked.head.method.as_str(), asked.scheme());
    let authority = asked.head.authority.as_deref().map(str::as_bytes).or(given.get(Known::Host)).unwrap_or_default();
    let host = external.host.as_deref().map_or(authority, str::as_bytes);
    // In the form in which it was matched and goes on: nobody is to judge another path than the one that is meant.
    let given = &asked.head.path_and_query;
    let path = path::normalize(given.path()).unwrap_or_default();
    let uri = match given.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    let url = [scheme.as_bytes(), &b"://"[..], authority, uri.as_bytes()].concat();
    let (client, depth) = (asked.client.address.to_string(), depth.to_string());
    // Those of the client say nothing here.
    for (name, value) in [
        ("host", host),
        ("x-forwarded-method", method.as_bytes()),
        ("x-forwarded-proto", scheme.as_bytes()),
        ("x-forwarded-host", authority),
        ("x-forwarded-uri", uri.as_bytes()),
        ("x-forwarded-for", client.as_bytes()),
        ("x-original-method", method.as_bytes()),
        ("x-original-url", &url[..]),
        (headers::REQUEST_ID, asked.exchange.request_id().as_bytes()),
        (DEPTH, depth.as_bytes()),
    ] {
        fields.set(name, value);
    }
    headers::join_cookies(&mut fields, asked.head.version);
    RequestHead {
        method: Method::GET,
        version: Version::HTTP_11,
        form: Form::Origin,
        authority: None,
        path_and_query: PathAndQuery::new(&*external.path),
        fields,
    }
}

/// Asks, and gets the head of an answer, without what is for the connection alone.
async fn ask(
    external: &ExternalAuth,
    cluster: &Arc<Cluster>,
    head: &RequestHead,
    asked: &Asked<'_>,
) -> Result<ResponseHead, Error> {
    let until = Instant::now() + external.timeout;
    let upstream = asked.worker.upstreams.of(cluster);
    upstream.ask();
    let admitted = match &cluster.resilience.limits {
        None => None,
        Some(_) => Some(
            timeout_at(until, upstream::admit(&upstream, asked.exchange, false))
                .await
                .map_err(|_| Error::QueueTimeout)
                .flatten()?,
        ),
    };
    let (wish, mut tried) = (Wish::default(), Vec::new());
    let mut left = MOST_ATTEMPTS;
    loop {
        left -= 1;
        let permission = upstream.permit(&tried, &wish, clock::now())?;
        let picked = Rc::clone(permission.host());
        let choosing = timeout_at(until, upstream::choose(&upstream, &picked, &tried, &wish, false)).await;
        let chosen = choosing.map_err(|_| Error::QueueTimeout).flatten()?;
        let endpoint = chosen.host.endpoint.address;
        let Some(permission) = permission.moved_to(chosen.host) else { return Err(Error::NoEndpoint) };
        let attempt = Beside::of(permission);
        let sending = aside::send(
            asked.worker,
            &upstream,
            chosen,
            head,
            Body::empty(),
            admitted.as_ref(),
            asked.exchange.client(),
        );
        let (sent, reused) = match timeout_at(until, sending).await {
            Ok(sent) => sent,
            Err(_) => (Err(Error::HeadTimeout), false),
        };
        match sent {
            Ok(answer) => {
                let mut head = answer.response.head.clone();
                retry::discard(answer, true);
                attempt.passed_over(&head);
                headers::clean_response(&mut head.fields);
                return Ok(head);
            }
            // Its endpoint closed it just then, which says nothing of the endpoint; and room for a connection may be gone again.
            Err(Error::UpstreamReset) if reused && left > 0 => {}
            Err(Error::UpstreamOverflow) if left > 0 => {}
            Err(error) => {
                attempt.failed(error);
                tried.push(endpoint);
                if left == 0 || !error.retryable() || !upstream.has_another(&tried, &wish) {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_about_questions_come_to_an_end() {
        let next = |given: &[&str]| {
            let given: Vec<_> = given.iter().map(|value| (DEPTH, *value)).collect();
            depth(&Fields::of(&given))
        };
        assert_eq!([next(&[]), next(&["1"]), next(&["3"])], [Some(1), Some(2), Some(4)]);
        for given in [&["4"][..], &["255"], &["256"], &["-1"], &[""], &["x"], &["1", "1"]] {
            assert_eq!(next(given), None, "{given:?}");
        }
    }

    #[test]
    fn only_what_a_client_can_be_told_decides() {
        let deciding: Vec<u16> = (100..600).filter(|code| StatusCode::from_u16(*code).is_ok_and(decides)).collect();
        let expected = (200..300).chain([301, 302, 303, 307, 308]).chain((400..500).filter(|code| *code != 407));
        assert_eq!(deciding, expected.collect::<Vec<_>>());
    }
}
