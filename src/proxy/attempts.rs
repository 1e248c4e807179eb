//! How an answer is got: pick an endpoint, connect, send, and do so again where that is safe, or where the route asks for it.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body as _;
use tokio::time::Instant;

use super::body::Body;
use super::error::Error;
use super::exchange::Exchange;
use super::eyeballs;
use super::first_byte::{self, Held, Hold};
use super::forward::Outgoing;
use super::message::RequestHead;
use super::retry::{Instead, Retrying, Shared};
use super::upload::Upload;
use super::upstream::{self, Admitted, Answer, Chosen, Lease, Permission, SendFailure, Upstream, Wish};
use super::worker::Worker;
use crate::clock;
use crate::snapshot::{Action, Cluster, Timeouts};

/// Endpoints that are tried when connections fail.
pub(super) const MAX_ENDPOINTS: usize = 3;
/// How often a request is sent again because it was not taken.
const MAX_AGAIN: usize = 3;

/// Who takes a request, and let it in already.
pub(super) struct Taker<'a> {
    /// The upstream.
    pub upstream: Rc<Upstream>,
    /// What the request says of its endpoint.
    pub wish: &'a Wish,
    /// To ask the one that is first.
    pub permission: Permission,
}

/// Asks a cluster for leave to make the first attempt.
///
/// # Errors
/// [`Error::BreakerOpen`] or [`Error::NoEndpoint`].
pub(super) fn choose<'a>(worker: &Worker, cluster: &Arc<Cluster>, wish: &'a Wish) -> Result<Taker<'a>, Error> {
    let upstream = worker.upstreams.of(cluster);
    upstream.ask();
    let permission = upstream.permit(&[], wish, clock::now())?;
    Ok(Taker { upstream, wish, permission })
}

/// Sends a request to one endpoint of an upstream after the other until one answers; the first let it in already.
///
/// # Errors
/// Whatever kept it from getting an answer.
pub(super) async fn answer(
    worker: &Rc<Worker>,
    head: &RequestHead,
    outgoing: &Outgoing,
    Taker { upstream, wish, permission }: Taker<'_>,
    content: Body,
    admitted: Option<&Rc<Admitted>>,
    exchange: &Rc<Exchange>,
) -> Result<Answer, Error> {
    let Action::Forward(action) = &outgoing.route.action else { return Err(Error::InvalidRoute) };
    let mut first = Some(permission);
    let empty = content.is_end_stream();
    let replayable = empty && head.method.is_idempotent() && !outgoing.upgrade;
    // What a rule says counts for the whole of it.
    let retry = action.retry.as_ref().or(upstream.cluster().resilience.retry.as_ref());
    exchange.may_repeat(retry.is_some());
    // In a box, because few routes ask for it.
    let mut retrying = retry.map(|retry| Box::new(Retrying::new(retry, worker, &upstream, wish, head)));
    let mut failed = None;
    let mut body = Body::empty();
    if !empty {
        let upload = Upload::new(content, Rc::clone(exchange));
        failed = Some(upload.failure());
        body = Body::stream(upload);
        if let Some(retrying) = &mut retrying {
            body = retrying.keep(body);
        }
    }

    let hold = Hold::asked_by(action.streaming.as_deref(), retry.map(|retry| &**retry));
    let mut tried = Vec::new();
    let mut again = 0;
    loop {
        let connected = {
            let retrying = retrying.as_deref_mut();
            let connecting =
                connect(worker, (&upstream, wish), first.take(), &mut tried, &action.timeouts, retrying, exchange);
            exchange.within(pin!(connecting)).await.flatten()
        };
        let (mut lease, mut endpoint) = match (connected, &mut retrying) {
            (Ok(connected), _) => connected,
            (Err(error), None) => return Err(error),
            // In a box, as is all that few requests need: every exchange has room for what is awaited here.
            (Err(error), Some(retrying)) => {
                if Box::pin(retrying.after_all(error, &mut tried, exchange)).await? {
                    continue;
                }
                return Err(error);
            }
        };
        lease.hold(admitted);
        let mut kept = lease.reused;
        if empty {
            exchange.request_sent();
        }
        let sent = match &mut retrying {
            Some(retrying) if !outgoing.upgrade && retrying.hedges() => {
                let shared = Shared { admitted, connect: action.timeouts.connect, exchange };
                let served = Box::pin(retrying.hedged(lease, head, body, endpoint, &mut tried, shared)).await;
                served.map(|served| {
                    (endpoint, kept) = (served.endpoint, served.reused);
                    served.sent
                })
            }
            retrying => {
                let head = match retrying {
                    Some(retrying) => retrying.begin(head, exchange),
                    None => head,
                };
                exchange.within(pin!(lease.send(head, body, exchange.downstream()))).await
            }
        };
        let (error, unsent, begun) = match sent {
            Ok(Ok(mut answer)) => {
                exchange.attempt_said(&answer.response.head.fields);
                if let Some(retrying) = &mut retrying {
                    match Box::pin(retrying.instead(answer, None, endpoint, &mut tried, exchange)).await? {
                        Instead::Another(content) => {
                            body = content;
                            continue;
                        }
                        Instead::Of(wanted) => answer = wanted,
                    }
                }
                let held = match hold {
                    None => Ok(Held { answer, status: None }),
                    Some(hold) => Box::pin(first_byte::awaited(answer, hold, exchange)).await,
                };
                match (held, &mut retrying) {
                    (Ok(held), None) => return Ok(held.answer),
                    (Ok(Held { answer, status: None }), Some(retrying)) => {
                        return Ok(retrying.accept(answer, exchange));
                    }
                    (Ok(Held { answer, status }), Some(retrying)) => {
                        match Box::pin(retrying.instead(answer, status, endpoint, &mut tried, exchange)).await? {
                            Instead::Another(content) => {
                                body = content;
                                continue;
                            }
                            Instead::Of(answer) => return Ok(retrying.accept(answer, exchange)),
                        }
                    }
                    (Err(error), _) => (error, None, true),
                }
            }
            Ok(Err(SendFailure { error, unsent })) => (error, unsent, false),
            Err(error) => (error, None, false),
        };
        body = match unsent {
            // An endpoint may say that it made nothing of the request, or close a kept connection just as it is used again. It is
            // then sent once more, elsewhere or anew: if certainly nothing was made of it, or if it has no content and may be
            // repeated (RFC 9110 9.2.2).
            Some(unsent) if again < MAX_AGAIN && !retrying.as_ref().is_some_and(|it| it.wanted().on.refused_stream) => {
                again += 1;
                // Rather elsewhere; the only endpoint is asked again.
                if !another(&upstream, &mut tried, wish, endpoint) {
                    tried.pop();
                }
                unsent
            }
            None if error == Error::UpstreamReset && !begun && kept && replayable && again < MAX_AGAIN => {
                again += 1;
                Body::empty()
            }
            unsent => match (&mut retrying, failed.as_ref().and_then(|failed| failed.get())) {
                // The client's own failure to send its content explains the endpoint's.
                (_, Some(failed)) => return Err(failed),
                (Some(retrying), None) => {
                    Box::pin(retrying.after((error, unsent), endpoint, &mut tried, exchange)).await?
                }
                (None, None) => {
                    let held = hold.is_some_and(|hold| hold.first_byte) && replayable;
                    if error != Error::UpstreamReset || !held || !another(&upstream, &mut tried, wish, endpoint) {
                        return Err(error);
                    }
                    exchange.attempt_failed(error);
                    exchange.begins_anew();
                    Body::empty()
                }
            },
        };
        tracing::debug!(%endpoint, "a request was not taken; trying again");
    }
}

/// Counts a connection that was attempted; not if another request made it, or none was allowed.
pub(super) fn count_connect(worker: &Worker, upstream: &Upstream, connected: &Result<Lease, Error>) {
    let made = !connected.as_ref().is_ok_and(|lease| lease.reused);
    if made && !matches!(connected, Err(Error::UpstreamOverflow)) {
        worker.recorder.upstream_connect(upstream.cluster().name.as_str(), connected.is_ok());
    }
}

/// Whether there is another endpoint to try than those that failed and this one, which did now.
fn another(upstream: &Upstream, tried: &mut Vec<SocketAddr>, wish: &Wish, failed: SocketAddr) -> bool {
    tried.push(failed);
    tried.len() < MAX_ENDPOINTS && upstream.has_another(tried, wish)
}

/// A connection to an endpoint: one that waits, or a new one. Endpoints that cannot be connected to are passed over, since
/// nothing was sent to them.
async fn connect(
    worker: &Worker,
    (upstream, wish): (&Upstream, &Wish),
    mut first: Option<Permission>,
    tried: &mut Vec<SocketAddr>,
    timeouts: &Timeouts,
    mut retrying: Option<&mut Retrying<'_>>,
    exchange: &Exchange,
) -> Result<(Lease, SocketAddr), Error> {
    let cluster = upstream.cluster();
    let mut limit = timeouts.connect.unwrap_or(cluster.connections.connect_timeout);
    let mut endpoints = MAX_ENDPOINTS.saturating_sub(tried.len());
    if let Some(retrying) = &retrying {
        endpoints = retrying.endpoints(MAX_ENDPOINTS);
        limit = retrying.wanted().per_try_timeout.map_or(limit, |one| one.min(limit));
    }
    let mut failure = None;
    while endpoints > 0 {
        let permit = || upstream.permit(tried, wish, clock::now());
        let permission = match first.take().map_or_else(permit, Ok) {
            Ok(permission) => permission,
            Err(error) => return Err(failure.unwrap_or(error)),
        };
        let picked = Rc::clone(permission.host());
        let Chosen { host, place } = upstream::choose(upstream, &picked, tried, wish, false).await?;
        let Some(permission) = permission.moved_to(host) else {
            // The one that has room for a connection has an open breaker: whoever comes next has none, or another's room.
            tried.push(host.endpoint.address);
            continue;
        };
        let endpoint = host.endpoint.address;
        exchange.attempt(permission);
        if let Some(lease) = Lease::waiting(upstream, host) {
            exchange.connected(Duration::ZERO);
            return Ok((lease, endpoint));
        }
        let started = Instant::now();
        let told = |connected: &Result<Lease, Error>| count_connect(worker, upstream, connected);
        // In boxes, so that the many requests that find a connection do not carry the room to open one.
        let before = tried.len();
        let (connected, endpoint) = match cluster.connections.upkeep.stagger {
            None => {
                let connected = Box::pin(Lease::connect(upstream, host, place, exchange.client(), limit)).await;
                told(&connected);
                (connected, endpoint)
            }
            Some(after) => {
                let first = Chosen { host, place };
                let bounds = (after, limit, endpoints);
                match Box::pin(eyeballs::connect(upstream, first, bounds, tried, wish, exchange, told)).await {
                    Ok((lease, other)) => {
                        if !Rc::ptr_eq(host, other) {
                            exchange.attempt(Permission::of(other, clock::now()));
                        }
                        (Ok(lease), other.endpoint.address)
                    }
                    Err(error) => (Err(error), endpoint),
                }
            }
        };
        endpoints = endpoints.saturating_sub(tried.len() - before);
        if matches!(connected, Err(Error::UpstreamOverflow)) {
            // Others were faster to open a connection: it is chosen again, and waits in line if it must.
            continue;
        }
        match connected {
            Ok(lease) => {
                exchange.connected(started.elapsed());
                return Ok((lease, endpoint));
            }
            Err(error) if error.retryable() => {
                exchange.attempt_failed(error);
                failure = Some(error);
                tried.push(endpoint);
                endpoints = endpoints.saturating_sub(1);
                if let Some(retrying) = &mut retrying {
                    retrying.unconnected(tried.len() - before);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or(Error::NoEndpoint))
}
