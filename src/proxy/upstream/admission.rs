//! Where a request is admitted to its upstream: it takes its place among those in flight, and later one for a connection if it
//! needs a new one, or waits in line for them under the clocks of its exchange. What is counted, and who comes first, is
//! `resilience`'s to say.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use super::{Host, Upstream, Wish};
use crate::clock;
use crate::proxy::error::Error;
use crate::proxy::exchange::Exchange;
use crate::resilience::{Admission, Called, ClusterState, Connected, Limited, Waiting};
use crate::snapshot::Protocol;

/// What a request holds of its upstream, from its admission to the end of its exchange with the endpoint.
#[derive(Debug)]
pub(crate) struct Admitted(RefCell<Admission>);

impl Admitted {
    /// The answer is a stream, which the request did not tell: it counts as one from now on.
    ///
    /// # Errors
    /// [`Error::UpstreamOverflow`] if there are as many streams as there may be.
    pub(crate) fn becomes_stream(&self) -> Result<(), Error> {
        let mut admission = self.0.borrow_mut();
        if admission.what() != Limited::Streams {
            *admission = admission.exchanged(Limited::Streams).ok_or(Error::UpstreamOverflow)?;
        }
        Ok(())
    }
}

/// Admits a request, which may have to wait for that. `stream` says that it will be one, if it gets what it asks for.
///
/// # Errors
/// No more may wait, it waited for too long, or a clock of the exchange ran out.
pub(crate) async fn admit(upstream: &Upstream, exchange: &Exchange, stream: bool) -> Result<Rc<Admitted>, Error> {
    let what = if stream { Limited::Streams } else { Limited::Requests };
    let admission = match Admission::try_new(&upstream.state, what) {
        Some(admission) => admission,
        // In a box, because few requests wait and every exchange has room for what is awaited here.
        None => Box::pin(async { exchange.within(pin!(wait(&upstream.state, what))).await.flatten() }).await?,
    };
    Ok(Rc::new(Admitted(RefCell::new(admission))))
}

/// The place of an attempt beside that of a request which is admitted; nothing if nothing is limited.
pub(crate) type SparePlace = Option<Admission>;

/// A place for an attempt beside another one. `None` if there is none to spare: such an attempt does not wait.
pub(crate) fn spare_place(upstream: &Upstream) -> Option<SparePlace> {
    match &upstream.cluster.resilience.limits {
        None => Some(None),
        Some(_) => Admission::try_new(&upstream.state, Limited::Requests).map(Some),
    }
}

async fn wait(state: &Arc<ClusterState>, what: Limited) -> Result<Admission, Error> {
    let mut waiting = join(state, what)?;
    loop {
        if called(&mut waiting).await? == Called::First
            && let Some(admission) = Admission::of_first(&waiting)
        {
            return Ok(admission);
        }
    }
}

fn join(state: &Arc<ClusterState>, what: Limited) -> Result<Waiting, Error> {
    let now = clock::now();
    Waiting::join(state, what, thread::current().id(), now).ok_or(Error::UpstreamOverflow)
}

/// Waits until it is time to look again.
async fn called(waiting: &mut Waiting) -> Result<Called, Error> {
    let next = poll_fn(|cx| waiting.poll_called(clock::now(), cx.waker()));
    let called = tokio::time::timeout(waiting.time_left(clock::now()), next).await;
    match called {
        Ok(called) if called != Called::Stale => Ok(called),
        _ => {
            waiting.give_up();
            Err(Error::QueueTimeout)
        }
    }
}

/// An endpoint to ask, and the place for a connection to it if it needs a new one.
#[derive(Debug)]
pub(crate) struct Chosen<'a> {
    /// The endpoint.
    pub host: &'a Rc<Host>,
    /// Room for a connection; `None` if there is one already, or nothing is limited.
    pub place: Option<Connected>,
}

/// Chooses the endpoint for a request: the one that was picked, another one if that has as many connections as it may have, or,
/// if all have, the first that has one to spare. Who needs a connection `alone` has no use for those that are there.
///
/// # Errors
/// No more may wait, or it waited for too long.
pub(crate) async fn choose<'a>(
    upstream: &'a Upstream,
    host: &'a Rc<Host>,
    tried: &[SocketAddr],
    wish: &Wish,
    alone: bool,
) -> Result<Chosen<'a>, Error> {
    let bounded =
        |limits: &crate::snapshot::Limits| limits.connections.is_some() || limits.connections_per_endpoint.is_some();
    if !upstream.cluster.resilience.limits.as_ref().is_some_and(bounded) || !alone && upstream.has_connection(host) {
        return Ok(Chosen { host, place: None });
    }
    Ok(match upstream.place(host) {
        Some(place) => Chosen { host, place: Some(place) },
        None => match upstream.spare(tried, wish, !upstream.others_wait(), alone) {
            Some(chosen) => chosen,
            None => Box::pin(wait_for_connection(upstream, tried, wish, alone)).await?,
        },
    })
}

async fn wait_for_connection<'a>(
    upstream: &'a Upstream,
    tried: &[SocketAddr],
    wish: &Wish,
    alone: bool,
) -> Result<Chosen<'a>, Error> {
    let mut waiting = join(&upstream.state, Limited::Connections)?;
    loop {
        let first = called(&mut waiting).await? == Called::First;
        if let Some(chosen) = upstream.spare(tried, wish, first, alone) {
            return Ok(chosen);
        }
        // What this worker keeps is of no use to it, and makes room.
        if first && alone && upstream.give_up_one() {
            continue;
        }
        // HTTP/2 connections are shared, and not idle for want of one request: only for a worker without any do others give one up.
        if first && (alone || upstream.cluster.protocol != Protocol::Http2 || !upstream.has_any()) {
            waiting.want_connection();
        } else if !first {
            // What was kept for it and does not fit it, because it has been tried, may be wanted elsewhere.
            upstream.yield_connections();
        }
    }
}

impl Upstream {
    fn has_connection(&self, host: &Host) -> bool {
        host.pool.has_room(self.cluster.protocol)
    }

    fn has_any(&self) -> bool {
        self.hosts.iter().any(|host| host.pool.has_any())
    }

    fn others_wait(&self) -> bool {
        self.state.limits().lane(Limited::Connections).waiting() > 0
    }

    /// Room for a new connection to `host`, unless others wait for it.
    pub(super) fn place(&self, host: &Host) -> Option<Connected> {
        if self.others_wait() { None } else { Connected::try_new(&host.state) }
    }

    /// The least loaded endpoint that has a connection for a request, or to which one may be opened.
    fn spare(&self, tried: &[SocketAddr], wish: &Wish, may_open: bool, alone: bool) -> Option<Chosen<'_>> {
        let has_connection = |host: &Host| !alone && self.has_connection(host);
        let may_open = may_open && self.state.limits().lane(Limited::Connections).gate.has_room();
        let fits = |host: &Host| {
            let room = || has_connection(host) || may_open && host.state.connections().has_room();
            !tried.contains(&host.endpoint.address) && room()
        };
        let host = self.choice.least_loaded(&self.hosts, wish, fits)?;
        if has_connection(host) {
            return Some(Chosen { host, place: None });
        }
        Connected::try_new(&host.state).map(|place| Chosen { host, place: Some(place) })
    }

    /// Gives up connections that requests of other workers wait for.
    pub(super) fn yield_connections(&self) {
        if self.has_any() && self.state.limits().yields() {
            self.give_up_one();
        }
    }

    /// Gives up a connection that carries nothing, or the fewest; whether there was any.
    fn give_up_one(&self) -> bool {
        let host = self.hosts.iter().find(|host| host.pool.has_any());
        host.map(|host| host.pool.give_up_one()).is_some()
    }
}

/// Whether a connection that became free may be kept, and not closed for a request of another worker.
pub(super) fn may_keep(cluster: &ClusterState) -> bool {
    let limits = cluster.limits();
    limits.lane(Limited::Connections).waiting() == 0 || limits.may_keep(thread::current().id())
}

/// A connection was opened that others can use, too.
pub(super) fn opened(cluster: &ClusterState) {
    freed(cluster);
    cluster.limits().opened();
}

/// A connection of this worker's, or room on one, is free.
pub(super) fn freed(cluster: &ClusterState) {
    let limits = cluster.limits();
    if limits.lane(Limited::Connections).waiting() > 0 {
        limits.freed(thread::current().id());
    }
}
