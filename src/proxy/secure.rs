//! Requests that have to come by TLS. That the certificate of a connection is for the host that is asked for, `request` sees to.

use super::error::Error;
use super::exchange::Exchange;
use super::headers::{self, Client};
use super::message::{RequestHead, Response};
use super::worker::Peer;
use super::{reply, target};
use crate::snapshot::{Matched, Transport};

/// Sends away who came without TLS and has to come with it; has the answer to others say that they are to come with it again.
#[allow(clippy::too_many_arguments, reason = "each is a fact of the request, used once")]
pub(super) fn secure(
    transport: &Transport,
    matched: Matched<'_>,
    path: Option<&str>,
    peer: &Peer,
    head: &RequestHead,
    client: Client,
    authority: &str,
    exchange: &Exchange,
) -> Result<Option<Response>, Error> {
    if let Some(redirect) = transport.redirect.as_ref().filter(|_| !headers::came_by_tls(&head.fields, peer, client)) {
        let (path, query) = (path.unwrap_or(head.path_and_query.path()), head.path_and_query.query());
        let place = (authority, exchange.host());
        let location = target::location(redirect, matched.path, place, path, query, peer.scheme);
        return reply::moved(redirect, location, exchange).map(Some);
    }
    // RFC 6797 7.2: "An HSTS Host MUST NOT include the STS header field in HTTP responses conveyed over non-secure transport."
    if let Some(hsts) = transport.hsts.as_ref().filter(|_| peer.scheme == "https") {
        exchange.adorn("strict-transport-security", hsts.as_bytes());
    }
    Ok(None)
}
