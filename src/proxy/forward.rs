//! The second half of a request's life: pick an endpoint, connect, send, and make the endpoint's answer the client's.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Version};
use http_body::Body as _;
use tokio::time::Instant;

use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::fields::Known;
use super::first_byte;
use super::followed;
use super::headers;
use super::http2::connect;
use super::message::{RequestHead, Response, ResponseHead};
use super::request::Reply;
use super::upload::Upload;
use super::upstream::{Answer, Lease, SendFailure, Upstream};
use super::worker::Worker;
use crate::snapshot::{Action, Cluster, Forward, Route, Snapshot, Timeouts};
use crate::telemetry::Kind;

/// Endpoints that are tried when connections fail.
const MAX_ENDPOINTS: usize = 3;
/// How often a request is sent again because it was not taken.
const MAX_AGAIN: usize = 3;

/// What was decided of a request that goes on.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Whether it asks for a WebSocket.
    pub upgrade: bool,
    /// Where it goes.
    pub cluster: Arc<Cluster>,
    /// Its route, whose action is to forward.
    pub route: Arc<Route>,
}

/// Chooses a backend by weight.
///
/// # Errors
/// The share of a broken backend, or no weight at all.
pub(super) fn choose(snapshot: &Snapshot, action: &Forward) -> Result<Arc<Cluster>, Error> {
    let backend = match &*action.backends {
        [only] if only.weight > 0 => only,
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
            taken.ok_or(Error::NoBackend)?
        }
    };
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
    let Action::Forward(action) = &outgoing.route.action else { return Err(Error::InvalidRoute) };
    let upstream = worker.upstreams.of(&outgoing.cluster);
    let empty = content.is_end_stream();
    let replayable = empty && head.method.is_idempotent() && !outgoing.upgrade;
    let mut failed = None;
    let mut body = Body::empty();
    if !empty {
        let upload = Upload::new(content, Rc::clone(exchange), worker.settings.limits.body_bytes);
        failed = Some(upload.failure());
        body = Body::stream(upload);
    }

    let held = action.streaming.as_ref().is_some_and(|streaming| streaming.hold_first_byte);
    let mut tried = Vec::new();
    let mut again = 0;
    loop {
        let connecting = connect(worker, &upstream, &mut tried, &action.timeouts, exchange);
        let (lease, endpoint) = exchange.within(pin!(connecting)).await.flatten()?;
        let kept = lease.reused;
        if empty {
            exchange.request_sent();
        }
        body = match exchange.within(pin!(lease.send(head, body, exchange.downstream()))).await? {
            Ok(answer) if !held => return receive(answer, head, outgoing, exchange),
            // In a box, because few routes ask for it and every exchange has room for what is awaited here.
            Ok(answer) => match Box::pin(first_byte::awaited(answer, exchange)).await {
                Ok(answer) => return receive(answer, head, outgoing, exchange),
                Err(Error::UpstreamReset) if replayable && another(&upstream, &mut tried, endpoint) => {
                    exchange.attempt_failed(Error::UpstreamReset);
                    exchange.begins_anew();
                    body = Body::empty();
                    continue;
                }
                Err(error) => return Err(error),
            },
            // An endpoint may close a kept connection just as it is used again, or say that it made nothing of the request. It is
            // then sent once more, elsewhere or anew: if certainly nothing was made of it, or if it has no content and may be
            // repeated (RFC 9110 9.2.2).
            Err(SendFailure { unsent: Some(unsent), .. }) if again < MAX_AGAIN => {
                again += 1;
                // Rather elsewhere; the only endpoint is asked again.
                if !another(&upstream, &mut tried, endpoint) {
                    tried.pop();
                }
                unsent
            }
            Err(SendFailure { error: Error::UpstreamReset, unsent: None })
                if kept && replayable && again < MAX_AGAIN =>
            {
                again += 1;
                Body::empty()
            }
            Err(SendFailure { error: Error::UpstreamReset, .. })
                if held && replayable && another(&upstream, &mut tried, endpoint) =>
            {
                exchange.attempt_failed(Error::UpstreamReset);
                exchange.begins_anew();
                Body::empty()
            }
            // The client's own failure to send its content explains the endpoint's.
            Err(SendFailure { error, .. }) => {
                return Err(failed.and_then(|failed| failed.get()).unwrap_or(error));
            }
        };
        tracing::debug!(%endpoint, "a request was not taken; trying again");
    }
}

/// Whether there is another endpoint to try than those that failed and this one, which did now.
fn another(upstream: &Upstream, tried: &mut Vec<SocketAddr>, failed: SocketAddr) -> bool {
    tried.push(failed);
    tried.len() < MAX_ENDPOINTS && upstream.pick(tried).is_some()
}

/// A connection to an endpoint: one that waits, or a new one. Endpoints that cannot be connected to are passed over, since
/// nothing was sent to them.
async fn connect(
    worker: &Worker,
    upstream: &Upstream,
    tried: &mut Vec<SocketAddr>,
    timeouts: &Timeouts,
    exchange: &Exchange,
) -> Result<(Lease, SocketAddr), Error> {
    let cluster = upstream.cluster();
    let limit = timeouts.connect.unwrap_or(cluster.connections.connect_timeout);
    let mut failure = Error::NoEndpoint;
    while tried.len() < MAX_ENDPOINTS {
        let Some(host) = upstream.pick(tried) else { break };
        let endpoint = host.endpoint.address;
        exchange.attempt(host);
        if let Some(lease) = Lease::waiting(upstream, host) {
            exchange.connected(Duration::ZERO);
            return Ok((lease, endpoint));
        }
        let started = Instant::now();
        // In a box, so that the many requests that find a connection do not carry the room to open one.
        let connected = Box::pin(Lease::connect(upstream, host, limit)).await;
        if !connected.as_ref().is_ok_and(|lease| lease.reused) {
            worker.recorder.upstream_connect(cluster.name.as_str(), connected.is_ok());
        }
        match connected {
            Ok(lease) => {
                exchange.connected(started.elapsed());
                return Ok((lease, endpoint));
            }
            Err(error) if error.retryable() => {
                exchange.attempt_failed(error);
                failure = error;
                tried.push(endpoint);
            }
            Err(error) => return Err(error),
        }
    }
    Err(failure)
}

/// Makes the endpoint's answer the client's.
fn receive(answer: Answer, head: &RequestHead, outgoing: &Outgoing, exchange: &Rc<Exchange>) -> Result<Reply, Error> {
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
    if let Some(edits) = &outgoing.route.response_headers {
        headers::edit(fields, edits);
    }
    if switched {
        fields.set("upgrade", b"websocket");
        fields.remove(Known::Connection);
    }
    let kind = if switched { Kind::WebSocket } else { kind(&response) };
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
    let is = |media: &[u8]| {
        content_type.len() >= media.len()
            && content_type[..media.len()].eq_ignore_ascii_case(media)
            && matches!(content_type.get(media.len()), None | Some(b';' | b' ' | b'+'))
    };
    if is(b"text/event-stream") {
        Kind::Sse
    } else if is(b"application/grpc") {
        Kind::Grpc
    } else {
        Kind::Http
    }
}
