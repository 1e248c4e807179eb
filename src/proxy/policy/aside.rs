//! Requests of Floodway's own, beside those of clients: sent once, on a connection of an upstream's pool.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::proxy::attempts;
use crate::proxy::body::Body;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::Error;
use crate::proxy::message::RequestHead;
use crate::proxy::upstream::{Admitted, Answer, Chosen, Lease, SendFailure, Upstream};
use crate::proxy::worker::Worker;

/// Sends a request on a connection that waits, or on a new one; and whether the connection was kept from before. Nobody bounds how long
/// that takes but who awaits it.
pub(super) async fn send(
    worker: &Worker,
    upstream: &Upstream,
    Chosen { host, place }: Chosen<'_>,
    head: &RequestHead,
    content: Body,
    admitted: Option<&Rc<Admitted>>,
    client: SocketAddr,
) -> (Result<Answer, Error>, bool) {
    let mut lease = match Lease::waiting(upstream, host) {
        Some(lease) => lease,
        None => {
            let limit = upstream.cluster().connections.connect_timeout;
            let connected = Lease::connect(upstream, host, place, client, limit).await;
            attempts::count_connect(worker, upstream, &connected);
            match connected {
                Ok(lease) => lease,
                Err(error) => return (Err(error), false),
            }
        }
    };
    lease.hold(admitted);
    let reused = lease.reused;
    // Its interim responses are nobody's.
    let own = Downstream::default();
    let sent = lease.send(head, content, &own).await;
    (sent.map_err(|SendFailure { error, .. }| error), reused)
}
