//! The second half of a request's life: choose a backend, get an answer of it (`attempts`), and make that the client's.

use std::rc::Rc;
use std::sync::Arc;

use http::{StatusCode, Version};

use super::attempts;
use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::fallback::{self, Standby};
use super::fields::Known;
use super::followed;
use super::headers;
use super::http2::connect;
use super::message::{RequestHead, Response, ResponseHead};
use super::policy;
use super::request::Reply;
use super::upstream::{self, Admitted, Answer, Wish};
use super::worker::Worker;
use crate::snapshot::{Action, Backend, Cluster, Forward, Route, Snapshot};
use crate::telemetry::Kind;

/// What was decided of a request that goes on.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Whether it asks for a WebSocket.
    pub upgrade: bool,
    /// Where it goes.
    pub cluster: Arc<Cluster>,
    /// What it gets if nobody there may be asked.
    pub standby: Option<Standby>,
    /// Its route, whose action is to forward.
    pub route: Arc<Route>,
    /// What it says of its endpoint.
    pub wish: Wish,
    /// Who gets a copy of it, if anybody. In a box, because few routes ask for that.
    pub mirror: Option<Box<policy::Mirrored>>,
}

/// Chooses a backend by weight.
///
/// # Errors
/// No weight at all.
pub(super) fn choose(action: &Forward) -> Result<&Backend, Error> {
    match &*action.backends {
        [only] if only.weight > 0 => Ok(only),
        backends => {
            let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
            if total == 0 {
                return Err(Error::NoBackend);
            }
            let mut share = fastrand::u64(..total);
            let taken = backends.iter().find(|backend| match share.checked_sub(u64::from(backend.weight)) {
                Some(rest) => {
                    share = rest;
                    false
                }
                None => true,
            });
            taken.ok_or(Error::NoBackend)
        }
    }
}

/// Which backend of an action one is.
pub(super) fn place(action: &Action, backend: &Backend) -> Option<usize> {
    let Action::Forward(action) = action else { return None };
    action.backends.iter().position(|one| std::ptr::eq(one, backend))
}

/// Where a backend leads.
///
/// # Errors
/// The backend is broken, or gone.
pub(super) fn cluster(snapshot: &Snapshot, backend: &Backend) -> Result<Arc<Cluster>, Error> {
    let name = backend.cluster.as_ref().map_err(|_| Error::InvalidRoute)?;
    snapshot.clusters.get(name).cloned().ok_or(Error::NoEndpoint)
}

/// Sends a request on and waits for the head of the answer.
///
/// # Errors
/// Whatever kept it from getting one.
pub(super) async fn send(
    worker: &Rc<Worker>,
    head: &RequestHead,
    outgoing: &Outgoing,
    content: Body,
    exchange: &Rc<Exchange>,
) -> Result<Reply, Error> {
    let chosen = match attempts::choose(worker, &outgoing.cluster, &outgoing.wish) {
        Ok(chosen) => chosen,
        Err(error) if error.calls_for_fallback() => match &outgoing.standby {
            Some(Standby::Cluster(cluster, wish)) => attempts::choose(worker, cluster, wish)?,
            Some(Standby::Answer(answer)) => return Ok(fallback::answered(answer, error, &outgoing.route, exchange)),
            None => return Err(error),
        },
        Err(error) => return Err(error),
    };
    let wish = chosen.wish;
    let admitted = match &chosen.upstream.cluster().resilience.limits {
        None => None,
        Some(_) => Some(upstream::admit(&chosen.upstream, exchange, asks_for_stream(head, outgoing)).await?),
    };
    let answer = attempts::answer(worker, head, outgoing, chosen, content, admitted.as_ref(), exchange).await?;
    receive(answer, head, outgoing, (wish, admitted.as_deref()), exchange)
}

/// Whether a request asks for a stream, so that it counts as one from the beginning.
fn asks_for_stream(head: &RequestHead, outgoing: &Outgoing) -> bool {
    outgoing.upgrade || head.fields.get(Known::Accept).is_some_and(|accept| is_media(accept, b"text/event-stream"))
}

/// Makes the endpoint's answer the client's.
fn receive(
    answer: Answer,
    head: &RequestHead,
    outgoing: &Outgoing,
    (wish, admitted): (&Wish, Option<&Admitted>),
    exchange: &Rc<Exchange>,
) -> Result<Reply, Error> {
    let Answer { mut response, takeover } = answer;
    let ResponseHead { status, fields } = &mut response.head;
    let switched = *status == StatusCode::SWITCHING_PROTOCOLS;
    // Only who asked may be switched, and only to what was asked for (RFC 9110 7.8).
    let websocket = fields.get(Known::Upgrade).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    if switched && !(outgoing.upgrade && websocket) || status.is_informational() && !switched {
        return Err(Error::UpstreamProtocol);
    }
    // A handshake that was made of an extended CONNECT is ours, and so is the proof that it was read.
    let ours = switched && head.version == Version::HTTP_2;
    if ours && !connect::is_proved(&head.fields, fields) {
        return Err(Error::UpstreamProtocol);
    }
    headers::clean_response(fields);
    if let Some(cookie) = wish.issued() {
        fields.add("set-cookie", cookie.as_bytes());
    }
    if let Some(edits) = &outgoing.route.response_headers {
        headers::edit(fields, edits);
    }
    if switched {
        fields.set("upgrade", b"websocket");
        fields.remove(Known::Connection);
    }
    let kind = if switched { Kind::WebSocket } else { kind(&response) };
    if let Some(admitted) = admitted.filter(|_| kind == Kind::Sse) {
        admitted.becomes_stream()?;
    }
    // The client of an extended CONNECT is told of the switch by another status (RFC 8441 5).
    exchange.answered(if ours { StatusCode::OK } else { response.head.status }, kind);
    let response = followed::follow(response, kind, exchange);
    Ok(Reply {
        response,
        exchange: Rc::clone(exchange),
        local: false,
        last: false,
        takeover: takeover.filter(|_| switched),
    })
}

fn kind(response: &Response) -> Kind {
    let content_type = response.head.fields.get(Known::ContentType).unwrap_or_default();
    if is_media(content_type, b"text/event-stream") {
        Kind::Sse
    } else if is_media(content_type, b"application/grpc") {
        Kind::Grpc
    } else {
        Kind::Http
    }
}

fn is_media(value: &[u8], media: &[u8]) -> bool {
    value.len() >= media.len()
        && value[..media.len()].eq_ignore_ascii_case(media)
        && matches!(value.get(media.len()), None | Some(b';' | b' ' | b'+'))
}
