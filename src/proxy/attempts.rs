//! How an answer is got: pick an endpoint, connect, send, and do so again where that is safe, or where the route asks for it.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http_body::Body as _;
use tokio::time::Instant;

use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::first_byte;
use super::forward::Outgoing;
use super::message::RequestHead;
use super::upload::Upload;
use super::upstream::{Answer, Lease, SendFailure, Upstream};
use super::worker::Worker;
use crate::snapshot::{Action, Timeouts};

/// Endpoints that are tried when connections fail.
const MAX_ENDPOINTS: usize = 3;
/// How often a request is sent again because it was not taken.
const MAX_AGAIN: usize = 3;

/// Sends a request to one endpoint after the other until one answers.
///
/// # Errors
/// Whatever kept it from getting an answer.
pub(super) async fn answer(
    worker: &Rc<Worker>,
    head: &RequestHead,
    outgoing: &Outgoing,
    content: Body,
    exchange: &Rc<Exchange>,
) -> Result<Answer, Error> {
    let Action::Forward(action) = &outgoing.route.action else { return Err(Error::InvalidRoute) };
    let upstream = worker.upstreams.of(&outgoing.cluster);
    upstream.ask();
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
        let connecting = connect(worker, &upstream, &mut tried, outgoing, &action.timeouts, exchange);
        let (lease, endpoint) = exchange.within(pin!(connecting)).await.flatten()?;
        let kept = lease.reused;
        if empty {
            exchange.request_sent();
        }
        body = match exchange.within(pin!(lease.send(head, body, exchange.downstream()))).await? {
            Ok(answer) if !held => return Ok(answer),
            // In a box, because few routes ask for it and every exchange has room for what is awaited here.
            Ok(answer) => match Box::pin(first_byte::awaited(answer, exchange)).await {
                Ok(answer) => return Ok(answer),
                Err(Error::UpstreamReset) if replayable && another(&upstream, &mut tried, outgoing, endpoint) => {
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
                if !another(&upstream, &mut tried, outgoing, endpoint) {
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
                if held && replayable && another(&upstream, &mut tried, outgoing, endpoint) =>
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
fn another(upstream: &Upstream, tried: &mut Vec<SocketAddr>, outgoing: &Outgoing, failed: SocketAddr) -> bool {
    tried.push(failed);
    tried.len() < MAX_ENDPOINTS && upstream.has_another(tried, &outgoing.wish)
}

/// A connection to an endpoint: one that waits, or a new one. Endpoints that cannot be connected to are passed over, since
/// nothing was sent to them.
async fn connect(
    worker: &Worker,
    upstream: &Upstream,
    tried: &mut Vec<SocketAddr>,
    outgoing: &Outgoing,
    timeouts: &Timeouts,
    exchange: &Exchange,
) -> Result<(Lease, SocketAddr), Error> {
    let cluster = upstream.cluster();
    let limit = timeouts.connect.unwrap_or(cluster.connections.connect_timeout);
    let mut failure = Error::NoEndpoint;
    while tried.len() < MAX_ENDPOINTS {
        let Some(host) = upstream.pick(tried, &outgoing.wish) else { break };
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
