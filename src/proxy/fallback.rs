//! What a request gets if its upstream has nobody who may be asked: because a circuit breaker is open, or because there is no
//! endpoint. The answer of another cluster, which is asked like any other, but whose own fallback is not; or an answer of
//! Floodway's own.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;

use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::message::Response;
use super::reply;
use super::request::{self, Reply};
use super::upstream::Wish;
use crate::snapshot::{Cluster, Fallback, Redirect, Respond, Route, Snapshot};

/// What stands by for a request.
#[derive(Debug)]
pub(super) enum Standby {
    /// Another cluster.
    Cluster(Arc<Cluster>, Wish),
    /// An answer of Floodway's own.
    Answer(Box<Answer>),
}

/// An answer of Floodway's own.
#[derive(Debug)]
pub(super) enum Answer {
    /// As configured.
    Respond(Respond),
    /// To another location.
    Redirect(StatusCode, String),
}

/// What stands by for a request; `wish` is what it says of an endpoint of a cluster, and `place` where a redirect leads. `None` if that cannot be had, so that the failure is told
/// as if there were none.
pub(super) fn prepare(
    fallback: &Fallback,
    snapshot: &Snapshot,
    wish: impl FnOnce(&Cluster) -> Wish,
    place: impl FnOnce(&Redirect) -> Option<String>,
) -> Option<Standby> {
    Some(match fallback {
        Fallback::Cluster(name) => {
            let cluster = Arc::clone(snapshot.clusters.get(name)?);
            let wish = wish(&cluster);
            Standby::Cluster(cluster, wish)
        }
        Fallback::Respond(respond) => Standby::Answer(Box::new(Answer::Respond(respond.clone()))),
        Fallback::Redirect(redirect) => Standby::Answer(Box::new(Answer::Redirect(redirect.status, place(redirect)?))),
    })
}

/// Answers in place of an endpoint. The log and the metrics tell why, and so does the answer.
pub(super) fn answered(answer: &Answer, error: Error, route: &Route, exchange: &Rc<Exchange>) -> Reply {
    let mut response = match answer {
        Answer::Respond(respond) => reply::direct(respond),
        Answer::Redirect(status, location) => {
            let mut response = Response::new(*status, Body::empty());
            response.head.fields.add("location", location.as_bytes());
            response
        }
    };
    let fields = &mut response.head.fields;
    fields.add(reply::REASON, error.reason().as_bytes());
    // RFC 9110 10.2.3: "When sent with a 503 (Service Unavailable) response".
    if response.head.status == StatusCode::SERVICE_UNAVAILABLE
        && let Some(seconds) = error.retry_after()
    {
        fields.add("retry-after", itoa::Buffer::new().format(seconds).as_bytes());
    }
    let status = response.head.status;
    let reply = request::reply_locally(exchange, request::edited(response, route));
    exchange.refused(error, status);
    reply
}
