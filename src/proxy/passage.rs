//! TLS that is passed on: the connection of a client whose first words name a host of a route that does so. `handshake` has heard them,
//! and ends nothing; here an endpoint is found for the connection and gets these words, and from there on both sides are a
//! `tunnel`'s. It is an exchange like any other, with the choice, the limits and the breakers of its upstream, and
//! policies as far as they can be asked of somebody whose words nobody here can read.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::affinity;
use super::attempts::{self, MAX_ENDPOINTS, Taker};
use super::error::Error;
use super::exchange::{Exchange, Subject};
use super::fields::Fields;
use super::forward;
use super::headers;
use super::http1::Served;
use super::io::Io;
use super::trace::Trace;
use super::upstream::{self, Admitted, Chosen, Takeover};
use super::worker::Worker;
use crate::clock;
use crate::snapshot::{Action, Backend, Cluster, Fallback, Policy, Route, Snapshot, Timeouts};
use crate::telemetry::{Kind, Protocol};

/// A fatal alert in a record of its own: internal_error (RFC 8446 6.2), as far as the client is concerned.
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
/// The same with access_denied.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// A connection that is passed on.
pub(super) struct Passed {
    /// The connection.
    pub socket: TcpStream,
    /// Everything that came on it.
    pub hello: Bytes,
    /// The host that its client named.
    pub server_name: Box<str>,
    /// Where it goes.
    pub route: Arc<Route>,
    /// What was in force when it came.
    pub snapshot: Arc<Snapshot>,
}

/// Finds an endpoint for a connection. Who gets none is told so and closed.
pub(super) async fn reach(passed: Box<Passed>, client: SocketAddr, worker: Rc<Worker>) -> Served {
    let Passed { socket, hello, server_name, route, snapshot } = *passed;
    let subject = Subject {
        request_id: headers::new_request_id(),
        trace: Trace::none(),
        client: client.ip(),
        client_port: client.port(),
        protocol: Protocol::Tls,
        method: Method::from_bytes(b"-").unwrap_or_default(),
        host: server_name,
        path: "".into(),
        tls: None,
    };
    let exchange = Exchange::new(Rc::clone(&worker), subject, Rc::default());
    exchange.is_to_be(Kind::Tunnel);
    exchange.routed(&route);
    let client = Io::new(socket, worker.settings.limits.stream_buffer_bytes);
    match endpoint(&worker, &route, &snapshot, &client, &exchange).await {
        Ok(upstream) => {
            // There is no status between the two; logs and metrics have that of a CONNECT that led somewhere (RFC 9110 9.3.6).
            exchange.answered(StatusCode::OK, Kind::Tunnel);
            Served::Switched { client, early: hello, upstream, exchange }
        }
        Err(error) => {
            exchange.refused(error, error.status());
            if error != Error::ClientGone {
                exchange.complete();
            }
            let alert = if error == Error::AddressDenied { ACCESS_DENIED } else { INTERNAL_ERROR };
            client.say_at_once(&alert);
            Served::Closed
        }
    }
}

/// An endpoint, connected to, unless a clock runs out or the client leaves before.
async fn endpoint(
    worker: &Worker,
    route: &Route,
    snapshot: &Snapshot,
    client: &Io,
    exchange: &Exchange,
) -> Result<Takeover, Error> {
    let Action::Forward(action) = &route.action else { return Err(Error::InvalidRoute) };
    let backend = forward::choose(action)?;
    if let Some(policy) = &backend.policy {
        admit(policy, exchange)?;
    }
    let leaves = client.lookout();
    let mut connecting = pin!(connected(worker, snapshot, backend, &action.timeouts, exchange));
    let mut reached = pin!(exchange.within(connecting.as_mut()));
    poll_fn(|cx| match reached.as_mut().poll(cx) {
        Poll::Ready(reached) => Poll::Ready(reached.flatten()),
        // Nobody reads from it meanwhile.
        Poll::Pending => match &leaves {
            Ok(leaves) => leaves.poll_left(cx).map(|()| Err(Error::ClientGone)),
            Err(_) => Poll::Pending,
        },
    })
    .await
}

/// Whether a policy lets a connection pass. What it asks beyond its address, nobody can ask; so nobody passes.
fn admit(policy: &Policy, exchange: &Exchange) -> Result<(), Error> {
    if policy.invalid.is_some() || policy.beyond_address().is_some() {
        return Err(Error::InvalidPolicy);
    }
    match &policy.ip_access {
        Some(access) if !access.allows(exchange.client().ip()) => Err(Error::AddressDenied),
        _ => Ok(()),
    }
}

/// An endpoint of a backend, or of the cluster that it falls back to.
async fn connected(
    worker: &Worker,
    snapshot: &Snapshot,
    backend: &Backend,
    timeouts: &Timeouts,
    exchange: &Exchange,
) -> Result<Takeover, Error> {
    let cluster = forward::cluster(snapshot, backend)?;
    // A client says no more of the endpoint that it wants than where it is.
    let nothing = Fields::new();
    let wish_of = |cluster: &Cluster| affinity::wish(cluster, &nothing, "", None, exchange.client().ip());
    let wish = wish_of(&cluster);
    let fallback = || match cluster.resilience.fallback.as_ref()? {
        Fallback::Cluster(name) => snapshot.clusters.get(name).cloned(),
        // These speak HTTP.
        Fallback::Respond(_) | Fallback::Redirect(_) => None,
    };
    let other;
    let taker = match attempts::choose(worker, &cluster, &wish) {
        Err(error) if error.calls_for_fallback() => {
            let cluster = fallback().ok_or(error)?;
            other = wish_of(&cluster);
            attempts::choose(worker, &cluster, &other)?
        }
        taker => taker?,
    };
    let admitted = match &taker.upstream.cluster().resilience.limits {
        None => None,
        Some(_) => Some(upstream::admit(&taker.upstream, exchange, true).await?),
    };
    connect(worker, taker, timeouts, admitted.as_ref(), exchange).await
}

/// A connection to an endpoint. Those that cannot be connected to are passed over, since nothing was sent to them.
async fn connect(
    worker: &Worker,
    Taker { upstream, wish, permission }: Taker<'_>,
    timeouts: &Timeouts,
    admitted: Option<&Rc<Admitted>>,
    exchange: &Exchange,
) -> Result<Takeover, Error> {
    let cluster = upstream.cluster();
    let limit = timeouts.connect.unwrap_or(cluster.connections.connect_timeout);
    let (mut first, mut tried, mut failure) = (Some(permission), Vec::new(), None);
    while tried.len() < MAX_ENDPOINTS {
        let permit = || upstream.permit(&tried, wish, clock::now());
        let permission = match first.take().map_or_else(permit, Ok) {
            Ok(permission) => permission,
            Err(error) => return Err(failure.unwrap_or(error)),
        };
        let picked = Rc::clone(permission.host());
        let Chosen { host, place } = upstream::choose(&upstream, &picked, &tried, wish, true).await?;
        let Some(permission) = permission.moved_to(host) else {
            // The one that has room for a connection has an open breaker.
            tried.push(host.endpoint.address);
            continue;
        };
        exchange.attempt(permission);
        let started = Instant::now();
        let connected = Takeover::connect(&upstream, host, place, exchange.client(), limit, admitted).await;
        // Others were faster to open a connection: it is chosen again, and waits in line if it must.
        if matches!(connected, Err(Error::UpstreamOverflow)) {
            continue;
        }
        worker.recorder.upstream_connect(cluster.name.as_str(), connected.is_ok());
        match connected {
            Ok(takeover) => {
                exchange.connected(started.elapsed());
                return Ok(takeover);
            }
            Err(error) => {
                exchange.attempt_failed(error);
                failure = Some(error);
                tried.push(host.endpoint.address);
            }
        }
    }
    Err(failure.unwrap_or(Error::NoEndpoint))
}
