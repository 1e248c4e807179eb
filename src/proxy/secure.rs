//! Requests that have to come by TLS, or not at all. That the certificate of a connection is for the host that is asked for, `request` sees to.

use super::error::Error;
use super::exchange::Exchange;
use super::headers::{self, Client};
use super::message::{RequestHead, Response};
use super::worker::Peer;
use super::{reply, target};
use crate::snapshot::{Matched, Transport};

/// Sends away who came without TLS and has to come with it, and everyone where TLS is passed on; has the answer to others say that they are to come with it again.
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
    let by_tls = headers::came_by_tls(&head.fields, peer, client);
    // By a connection for another host, whose certificate is for this one, too: TLS with this one's endpoints is another connection.
    if transport.passed && by_tls {
        return Err(Error::Misdirected);
    }
    if let Some(redirect) = transport.redirect.as_ref().filter(|_| !by_tls) {
        let (path, query) = (path.unwrap_or(head.path_and_query.path()), head.path_and_query.query());
        let place = (authority, exchange.host());
        let location = target::location(redirect, matched.path, place, path, query, peer.scheme());
        return reply::moved(redirect, location, exchange).map(Some);
    }
    if transport.passed {
        return Err(Error::NoRoute);
    }
    // RFC 6797 7.2: "An HSTS Host MUST NOT include the STS header field in HTTP responses conveyed over non-secure transport."
    if let Some(hsts) = transport.hsts.as_ref().filter(|_| peer.scheme() == "https") {
        exchange.adorn("strict-transport-security", hsts.as_bytes());
    }
    Ok(None)
}
