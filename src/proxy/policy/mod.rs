//! Whether a request may pass, by what the policies say that it is under: asked once its route and its backend are known, and before
//! anything is done with it. What the policies say, `snapshot::Policy` holds; how their parts become one, `translate` says.
//!
//! A section may refuse (an [`Error`], whose answer gets what `Exchange::adorn` was given before), answer in place of the
//! backend, change the head that goes on, or give the answer fields. Cheap sections are asked before dear ones, and who is
//! refused learns nothing of those behind.
//!
//! Most sections know at once. Only requests that may have to wait, for others or for a computation that takes its time, are admitted
//! by a future of their own: [`admit_at_once`] says which.

mod aside;
mod basic;
mod client;
mod compression;
mod cors;
mod external;
pub(super) mod headers;
mod jwt;
mod key;
mod limits;
mod mirror;
mod pages;
mod passwords;
mod place;
mod rate_limit;

use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::HeaderName;

pub use self::jwt::{Refusal, Tokens, Verified};
pub(super) use self::mirror::{Mirrored, copied, mirrored};
pub(super) use self::passwords::Passwords;
use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::headers::{Client, came_by_tls, put_vouched};
use super::message::{RequestHead, Response};
use super::request::Reply;
use super::worker::{Peer, Worker};
use crate::snapshot::{Policy, Snapshot};

/// The request that wants to pass.
pub(super) struct Asked<'a> {
    /// Who serves it.
    pub worker: &'a Worker,
    /// The snapshot that it sees.
    pub snapshot: &'a Snapshot,
    /// Where it came in.
    pub peer: &'a Peer,
    /// Who sends it.
    pub client: Client,
    /// Gets what the answer is to be told.
    pub exchange: &'a Exchange,
    /// Its head as it came, which sections may change before it goes on. Its path stays: by that its route was found.
    pub head: &'a mut RequestHead,
    /// Its content, of which nothing was read yet.
    pub content: &'a Body,
    /// The token that it showed, once it was verified: sections behind may ask for its claims.
    pub token: Option<Rc<Verified>>,
    /// Who sent it, once a section knows.
    pub sender: Option<Sender>,
}

/// Who sent a request, by the name that a section knows them by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    /// A user with a password.
    User(Box<str>),
    /// Who has a key.
    KeyOf(Box<str>),
}

impl Asked<'_> {
    /// The request goes on with a field that Floodway vouches for, or without it, and with none that its client sends under that
    /// name. Sections behind see it already; it is put in again once everything else is as it goes on, so that nothing of what the
    /// client says takes it away.
    fn vouch(&mut self, name: &HeaderName, value: Option<&[u8]>) {
        let vouched = (name.clone(), value.map(Box::from));
        put_vouched(&mut self.head.fields, &vouched);
        self.exchange.vouches(vouched);
    }

    /// What the client speaks with us, or with a trusted proxy that says so.
    fn scheme(&self) -> &'static str {
        if came_by_tls(&self.head.fields, self.peer, self.client) { "https" } else { "http" }
    }
}

/// Whether [`admit`] has to be asked by somebody who can wait.
fn may_wait(policy: &Policy) -> bool {
    policy.basic_auth.is_some()
        || policy.external_auth.is_some()
        || policy.rate_limit.as_deref().is_some_and(rate_limit::may_wait)
        // Tokens wait so seldom that it is tried at once first; but not where sections before them have changed the head by then.
        || policy.jwt.as_deref().is_some_and(jwt::may_wait)
            && (policy.api_key.is_some() || policy.headers.as_deref().is_some_and(headers::alters_requests))
}

/// Lets a request pass, or answers it, if that can be said at once; `Pending` if somebody has to ask who can wait. Then nothing
/// was changed that is not the same when it is changed again.
pub(super) fn admit_at_once(policy: &Policy, asked: &mut Asked<'_>) -> Poll<Result<Option<Response>, Error>> {
    if may_wait(policy) {
        return Poll::Pending;
    }
    pin!(admit(policy, asked)).poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets a request pass, or answers it. Sections are asked in this order.
///
/// # Errors
/// Why it may not.
pub(super) async fn admit(policy: &Policy, asked: &mut Asked<'_>) -> Result<Option<Response>, Error> {
    let Policy {
        invalid,
        ip_access,
        cors,
        headers,
        compression,
        error_pages,
        request_limits,
        client_certificate,
        basic_auth,
        api_key,
        rate_limit,
        jwt,
        external_auth,
        // Asked when the request goes on.
        mirror: _,
    } = policy;
    // From here on failures look as the policy says, that it cannot be applied among them.
    if let Some(pages) = error_pages {
        asked.exchange.shows(pages);
    }
    if invalid.is_some() {
        return Err(Error::InvalidPolicy);
    }
    // What clients may not say, nobody behind hears; and whoever is refused gets an answer like others.
    if let Some(headers) = headers {
        headers::admit(headers, asked.exchange, &mut asked.head.fields);
    }
    if let Some(compression) = compression {
        compression::admit(compression, asked);
    }
    if ip_access.as_ref().is_some_and(|access| !access.allows(asked.client.address)) {
        return Err(Error::AddressDenied);
    }
    // Before it is asked who the client is, and which methods it may use: browsers say nothing of that in a preflight, and a page
    // can read why it is refused.
    if let Some(cors) = cors
        && let Some(answer) = cors::admit(cors, asked)?
    {
        return Ok(Some(answer));
    }
    if let Some(limits) = request_limits {
        limits::admit(limits, asked)?;
    }
    if let Some(clients) = client_certificate {
        client::admit(clients, asked)?;
    }
    if let Some(basic) = basic_auth {
        basic::admit(basic, asked).await?;
    }
    if let Some(keys) = api_key {
        key::admit(keys, asked)?;
    }
    if let Some(jwt) = jwt {
        jwt::admit(jwt, asked).await?;
    }
    if let Some(limits) = rate_limit {
        rate_limit::admit(limits, asked).await?;
    }
    if let Some(external) = external_auth {
        // In a box, so that others have no room for it.
        Box::pin(external::admit(external, asked)).await?;
    }
    Ok(None)
}

/// Does with the answer of a request what its sections want, whoever gives it, once all is known of it but the id.
pub(super) fn finish(reply: &mut Reply, head: &RequestHead) {
    if let Some(pages) = reply.exchange.error_pages() {
        pages::finish(&pages, reply, head);
    }
    if let Some((compression, takes)) = reply.exchange.compression()
        && reply.takeover.is_none()
    {
        compression::finish(&compression, takes, &mut reply.response, head);
    }
}
