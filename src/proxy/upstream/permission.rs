//! Leave of the circuit breakers to make an attempt at an endpoint.
//! Whoever has it says what came of the attempt; dropped without a word, it says nothing of the endpoint.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Host, Upstream, Wish};
use crate::clock;
use crate::proxy::error::Error;
use crate::resilience::breaker::{NotPermitted, Permit};
use crate::resilience::{Circuit, KeptOut, Moment, Outcome, Place};

/// How many endpoints in a row may refuse, by their breakers, until the first is taken that looks as if it would not.
const MAX_REFUSALS: usize = 8;

/// Leave to make an attempt at an endpoint.
#[derive(Debug)]
pub(in crate::proxy) struct Permission {
    host: Rc<Host>,
    /// Of its cluster's breaker.
    cluster: Leave,
    /// Of its own.
    endpoint: Leave,
}

/// The permit of a breaker, if there is one.
#[derive(Debug)]
struct Leave {
    permit: Option<Permit>,
    /// The outcome was told, and the permit is spent.
    settled: Cell<bool>,
}

impl Upstream {
    /// Chooses the endpoint for the next attempt, not one of those tried already, and asks the breakers for leave.
    ///
    /// # Errors
    /// [`Error::BreakerOpen`] or [`Error::NoEndpoint`].
    pub(in crate::proxy) fn permit(&self, tried: &[SocketAddr], wish: &Wish, now: Moment) -> Result<Permission, Error> {
        let Some(first) = self.hosts.first() else { return Err(Error::NoEndpoint) };
        let cluster = first.state.cluster();
        if cluster.is_time_to_look(now) {
            for host in &self.hosts {
                if let Some(circuit) = &host.circuit {
                    circuit.look_after(Place::Endpoint(&host.state), now);
                }
            }
        }
        let asked = first.cluster_circuit.as_ref().map(|circuit| circuit.acquire(Place::Cluster(cluster), now));
        let of_cluster = asked.transpose().map_err(|refused| Error::BreakerOpen(seconds(refused)))?;
        match self.let_in(tried, wish, now) {
            Ok((host, permit)) => {
                let leave = |permit| Leave { permit, settled: Cell::new(false) };
                Ok(Permission { host: Rc::clone(host), cluster: leave(of_cluster), endpoint: leave(permit) })
            }
            Err(error) => {
                if let Some((circuit, permit)) = first.cluster_circuit.as_ref().zip(of_cluster) {
                    circuit.release(Place::Cluster(cluster), permit, now);
                }
                Err(error)
            }
        }
    }

    /// An endpoint whose own breaker lets the request in.
    fn let_in(&self, tried: &[SocketAddr], wish: &Wish, now: Moment) -> Result<(&Rc<Host>, Option<Permit>), Error> {
        let Some(mut host) = self.pick(tried, wish) else { return Err(self.nobody(tried, now)) };
        let mut passed: Vec<SocketAddr> = Vec::new();
        loop {
            let Some(circuit) = &host.circuit else { return Ok((host, None)) };
            if let Ok(permit) = circuit.acquire(Place::Endpoint(&host.state), now) {
                return Ok((host, Some(permit)));
            }
            if passed.is_empty() {
                passed.extend(tried);
            }
            passed.push(host.endpoint.address);
            let next = match passed.len() - tried.len() {
                ..MAX_REFUSALS => self.pick(&passed, wish),
                MAX_REFUSALS => {
                    self.hosts.iter().find(|host| host.state.is_available() && !passed.contains(&host.endpoint.address))
                }
                _ => None,
            };
            host = next.ok_or_else(|| self.nobody(tried, now))?;
        }
    }

    /// Why nobody may be asked.
    fn nobody(&self, tried: &[SocketAddr], now: Moment) -> Error {
        let refusing = self
            .hosts
            .iter()
            .filter(|host| host.state.is_kept_out(KeptOut::BreakerOpen) && !tried.contains(&host.endpoint.address));
        let left = refusing.filter_map(|host| host.circuit.as_ref()).map(|circuit| circuit.look(now).left);
        match left.reduce(|one, other| one.into_iter().chain(other).min()) {
            Some(retry_after) => Error::BreakerOpen(seconds(NotPermitted { retry_after })),
            None => Error::NoEndpoint,
        }
    }
}

/// Whole seconds until it is worth coming back; 0 if nobody knows. Breakers count milliseconds, the last one of which may have
/// begun already.
fn seconds(NotPermitted { retry_after }: NotPermitted) -> u32 {
    let whole = |time: Duration| u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
    retry_after.map_or(0, whole)
}

impl Permission {
    /// That for an endpoint which was connected to beside the one that was let in. What comes of it counts with the breakers that
    /// have a permit for it.
    pub(in crate::proxy) fn of(host: &Rc<Host>, now: Moment) -> Permission {
        let Host { state, cluster_circuit, circuit, .. } = &**host;
        let leave = |circuit: &Option<Arc<Circuit>>, place| {
            let permit = circuit.as_ref().and_then(|circuit| circuit.acquire(place, now).ok());
            Leave { permit, settled: Cell::new(false) }
        };
        let cluster = leave(cluster_circuit, Place::Cluster(state.cluster()));
        let endpoint = leave(circuit, Place::Endpoint(state));
        Permission { host: Rc::clone(host), cluster, endpoint }
    }

    /// The endpoint.
    pub(in crate::proxy) fn host(&self) -> &Rc<Host> {
        &self.host
    }

    /// The same for another endpoint of the cluster, if its breaker lets the request in.
    pub(in crate::proxy) fn moved_to(mut self, host: &Rc<Host>) -> Option<Permission> {
        if Rc::ptr_eq(host, &self.host) {
            return Some(self);
        }
        let now = clock::now();
        if let Some((circuit, permit)) = self.host.circuit.as_deref().zip(self.endpoint.permit.take()) {
            circuit.release(Place::Endpoint(&self.host.state), permit, now);
        }
        self.host = Rc::clone(host);
        if let Some(circuit) = &host.circuit {
            self.endpoint.permit = Some(circuit.acquire(Place::Endpoint(&host.state), now).ok()?);
        }
        Some(self)
    }

    /// Tells what came of the attempt, which took so long until that was known.
    pub(in crate::proxy) fn settle(&self, outcome: Outcome, took: Duration, now: Moment) {
        self.host.state.report(outcome, now);
        for (place, circuit, permit, leave) in self.leaves() {
            if !leave.settled.replace(true) || outcome == Outcome::Cut {
                circuit.record(place, permit, outcome, took, now);
            }
        }
    }

    /// The head of a stream came, whose content may come much later. It is enough for a breaker that finds out whether it may
    /// close, so that others get the permit; one that is closed waits for the first byte.
    pub(in crate::proxy) fn begins(&self, status: u16, took: Duration, now: Moment) {
        for (place, circuit, permit, leave) in self.leaves() {
            if permit.trial && !leave.settled.replace(true) {
                circuit.record(place, permit, Outcome::Answered { status, first_byte: took }, took, now);
            }
        }
    }

    fn leaves(&self) -> impl Iterator<Item = (Place<'_>, &Circuit, Permit, &Leave)> {
        let Permission { host, cluster, endpoint } = self;
        let of_cluster = (Place::Cluster(host.state.cluster()), host.cluster_circuit.as_deref(), cluster);
        let of_endpoint = (Place::Endpoint(&host.state), host.circuit.as_deref(), endpoint);
        let asked = [of_cluster, of_endpoint].into_iter();
        asked.filter_map(|(place, circuit, leave)| Some((place, circuit?, leave.permit?, leave)))
    }
}

impl Drop for Permission {
    fn drop(&mut self) {
        for (place, circuit, permit, leave) in self.leaves() {
            if !leave.settled.get() {
                circuit.release(place, permit, clock::now());
            }
        }
    }
}
