//! Places and lines without sockets: what is exact, who comes first, and who is given up.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::*;
use crate::resilience::Registry;
use crate::snapshot::{Cluster, ClusterName, Endpoint, Resilience};

fn at(millis: u64) -> Moment {
    Moment::default() + Duration::from_millis(millis)
}

fn cluster(limits: snapshot::Limits, ports: &[u16]) -> Cluster {
    let endpoint = |port: &u16| Endpoint {
        address: SocketAddr::from(([127, 0, 0, 1], *port)),
        weight: 1,
        local: true,
        subset: None,
    };
    Cluster {
        endpoints: ports.iter().map(endpoint).collect(),
        resilience: Arc::new(Resilience { limits: Some(limits), ..Resilience::default() }),
        ..Cluster::plain()
    }
}

fn state(limits: snapshot::Limits) -> Arc<ClusterState> {
    let registry = Registry::default();
    registry.of(&cluster(limits, &[]), at(0));
    registry.cluster(&ClusterName::new("shop/llm:80"))
}

/// An endpoint to which there may be one connection, and its cluster.
fn one_connection() -> (Arc<EndpointState>, Arc<ClusterState>) {
    let limits = snapshot::Limits { connections: Some(1), ..snapshot::Limits::NONE };
    let endpoint = Registry::default().of(&cluster(limits, &[1]), at(0)).remove(0);
    let cluster = Arc::clone(endpoint.cluster());
    (endpoint, cluster)
}

fn requests(limit: u32) -> snapshot::Limits {
    snapshot::Limits { requests: Some(limit), ..snapshot::Limits::NONE }
}

fn join(cluster: &Arc<ClusterState>, what: Limited, now: u64) -> Option<Waiting> {
    Waiting::join(cluster, what, thread::current().id(), at(now))
}

fn poll(waiting: &Waiting, now: u64) -> Poll<Called> {
    waiting.poll_called(at(now), Waker::noop())
}

/// What somebody in the line for requests gets: the place, if it is called and there is one.
fn next(waiting: &Waiting, now: u64) -> Option<Admission> {
    match poll(waiting, now) {
        Poll::Ready(Called::First) => Admission::of_first(waiting),
        _ => None,
    }
}

#[test]
fn no_more_are_admitted_than_there_are_places() {
    let cluster = state(requests(2));
    let held = [Limited::Requests; 2].map(|what| Admission::try_new(&cluster, what).unwrap());
    assert!(Admission::try_new(&cluster, Limited::Requests).is_none());
    assert!(Admission::try_new(&cluster, Limited::Streams).is_some(), "streams have no limit here");
    drop(held);
    assert_eq!(cluster.limits().lane(Limited::Requests).gate.taken(), 0);
}

#[test]
fn who_came_first_is_served_first_and_nobody_passes() {
    let cluster = state(requests(1));
    let held = Admission::try_new(&cluster, Limited::Requests).unwrap();
    let [first, second] = [0, 1].map(|now| join(&cluster, Limited::Requests, now).unwrap());
    assert!(next(&first, 2).is_none() && next(&second, 2).is_none());
    assert_eq!((poll(&first, 2), poll(&second, 2)), (Poll::Pending, Poll::Pending), "nothing happened since");
    drop(held);
    assert!(Admission::try_new(&cluster, Limited::Requests).is_none(), "others wait");
    assert!(poll(&second, 3).is_pending());
    let held = next(&first, 3).unwrap();
    drop(first);
    assert!(poll(&second, 4).is_pending(), "there is no place for it yet");
    drop(held);
    assert!(next(&second, 5).is_some());
    drop(second);
    assert!(Admission::try_new(&cluster, Limited::Requests).is_some());
}

#[test]
fn who_leaves_the_line_makes_way() {
    let cluster = state(requests(1));
    let held = Admission::try_new(&cluster, Limited::Requests).unwrap();
    let [first, second, third] = [0, 1, 2].map(|now| join(&cluster, Limited::Requests, now).unwrap());
    for waiting in [&first, &second, &third] {
        assert!(next(waiting, 3).is_none());
    }
    drop(second);
    drop(held);
    // The first was called, and leaves before it looks.
    drop(first);
    assert!(next(&third, 4).is_some());
    drop(third);
    let limits = cluster.limits();
    assert_eq!((limits.lane(Limited::Requests).waiting(), limits.pending.taken()), (0, 0));
}

#[test]
fn the_line_is_bounded_over_all_that_is_waited_for() {
    let cluster = state(snapshot::Limits { pending: 2, ..requests(1) });
    let first = join(&cluster, Limited::Requests, 0).unwrap();
    let _second = join(&cluster, Limited::Connections, 0).unwrap();
    assert!(join(&cluster, Limited::Streams, 0).is_none());
    assert_eq!(cluster.limits().lane(Limited::Streams).in_line().refused, 1);
    drop(first);
    assert!(join(&cluster, Limited::Streams, 0).is_some());
}

#[test]
fn a_line_that_stands_serves_those_who_came_lately() {
    let cluster = state(requests(1));
    let timeout = cluster.limits().pending_timeout().as_millis() as u64;
    let mut held = Admission::try_new(&cluster, Limited::Requests);
    let patient = join(&cluster, Limited::Requests, 0).unwrap();
    let [old, young] = [timeout - 600, timeout - 400].map(|now| join(&cluster, Limited::Requests, now).unwrap());
    for waiting in [&patient, &old, &young] {
        assert!(next(waiting, timeout - 400).is_none());
    }
    drop(held.take());
    // Not long enough: the first has waited nearly the whole timeout, and is served.
    held = next(&patient, timeout - 1);
    assert!(held.is_some());
    drop(patient);
    drop(held);
    // From now on there was somebody all the time, and who waited for more than a tenth of it is given up.
    assert_eq!(poll(&old, timeout), Poll::Ready(Called::Stale));
    old.give_up();
    drop(old);
    assert!(next(&young, timeout).is_some());
    assert_eq!(cluster.limits().lane(Limited::Requests).in_line().given_up, 1);
    drop(young);
    let (held, alone) =
        (Admission::try_new(&cluster, Limited::Requests), join(&cluster, Limited::Requests, timeout).unwrap());
    assert!(next(&alone, timeout).is_none());
    drop(held);
    assert!(next(&alone, 2 * timeout - 1).is_some(), "a new line has the whole timeout");
}

#[test]
fn settings_change_under_who_waits() {
    let registry = Registry::default();
    registry.of(&cluster(requests(1), &[]), at(0));
    let state = registry.cluster(&ClusterName::new("shop/llm:80"));
    let held = Admission::try_new(&state, Limited::Requests).unwrap();
    let waiting = join(&state, Limited::Requests, 0).unwrap();
    assert!(next(&waiting, 0).is_none());
    registry.of(&cluster(requests(2), &[]), at(0));
    assert!(next(&waiting, 1).is_some());
    // Fewer: what runs goes on, and nobody comes in until it fits.
    drop(waiting);
    let second = Admission::try_new(&state, Limited::Requests).unwrap();
    registry.of(&cluster(requests(1), &[]), at(0));
    drop(held);
    assert!(Admission::try_new(&state, Limited::Requests).is_none());
    drop(second);
    assert!(Admission::try_new(&state, Limited::Requests).is_some());
}

#[test]
fn connections_are_bounded_for_each_endpoint_and_for_all() {
    let limits = snapshot::Limits { connections: Some(3), connections_per_endpoint: Some(2), ..snapshot::Limits::NONE };
    let endpoints = Registry::default().of(&cluster(limits, &[1, 2]), at(0));
    let [first, second] = &endpoints[..] else { panic!() };
    let cluster = first.cluster();
    let mut open = vec![Connected::try_new(first).unwrap(), Connected::try_new(first).unwrap()];
    assert!(Connected::try_new(first).is_none(), "the endpoint has two");
    open.push(Connected::try_new(second).unwrap());
    assert!(Connected::try_new(second).is_none(), "there are three");
    assert_eq!((first.connections().taken(), second.connections().taken()), (2, 1), "what failed is not counted");
    open.clear();
    let all = cluster.limits().lane(Limited::Connections).gate.taken();
    assert_eq!((first.connections().taken(), second.connections().taken(), all), (0, 0, 0));
}

#[test]
fn a_thread_keeps_a_free_connection_unless_others_waited_much_longer() {
    let cluster = state(snapshot::Limits { connections: Some(1), ..snapshot::Limits::NONE });
    let (own, other) = (thread::current().id(), thread::spawn(|| thread::current().id()).join().unwrap());
    let limits = cluster.limits();
    assert!(limits.may_keep(own), "nobody waits");
    let first = Waiting::join(&cluster, Limited::Connections, other, at(0)).unwrap();
    assert!(!limits.may_keep(own) && limits.may_keep(other));
    let mine = Waiting::join(&cluster, Limited::Connections, own, at(50)).unwrap();
    assert!(limits.may_keep(own), "the other waits for little longer");
    assert_eq!((poll(&first, 60), poll(&mine, 60)), (Poll::Ready(Called::First), Poll::Ready(Called::FirstOfThread)));
    assert!(poll(&mine, 61).is_pending());
    limits.freed(own);
    assert_eq!(poll(&mine, 62), Poll::Ready(Called::FirstOfThread));
    drop(mine);
    let _mine = Waiting::join(&cluster, Limited::Connections, own, at(500)).unwrap();
    assert!(!limits.may_keep(own), "the other waits for much longer");
}

#[test]
fn one_thread_gives_up_a_connection_for_who_is_first() {
    let (endpoint, cluster) = one_connection();
    let unused = Connected::try_new(&endpoint).unwrap();
    let (limits, mut heard) = (cluster.limits(), 0);
    let mut waiting = join(&cluster, Limited::Connections, 0).unwrap();
    assert!(!limits.yields(), "not wanted yet");
    waiting.want_connection();
    assert!(limits.bell.poll_rung(&mut heard, Waker::noop()).is_ready());
    assert!(limits.yields() && !limits.yields(), "only one does");
    waiting.want_connection();
    assert!(limits.bell.poll_rung(&mut heard, Waker::noop()).is_pending(), "it was promised");
    drop(unused);
    waiting.want_connection();
    limits.opened();
    assert!(limits.bell.poll_rung(&mut heard, Waker::noop()).is_ready(), "wanted again");
    drop(waiting);
    assert!(!limits.yields(), "nobody waits any more");
}

#[test]
fn a_wish_ends_with_who_made_it() {
    let (endpoint, cluster) = one_connection();
    let (limits, mut heard) = (cluster.limits(), 0);
    let used = Connected::try_new(&endpoint).unwrap();
    let mut first = join(&cluster, Limited::Connections, 0).unwrap();
    assert_eq!(poll(&first, 0), Poll::Ready(Called::First));
    // A place is given back between its look and its wish, and it gets that one: nobody answers the wish.
    drop(used);
    first.want_connection();
    assert!(limits.bell.poll_rung(&mut heard, Waker::noop()).is_ready());
    assert_eq!(poll(&first, 1), Poll::Ready(Called::First));
    let _unused = Connected::try_new(&endpoint).unwrap();
    drop(first);
    let mut next = join(&cluster, Limited::Connections, 2).unwrap();
    next.want_connection();
    assert!(limits.bell.poll_rung(&mut heard, Waker::noop()).is_ready(), "its own wish is heard");
}

#[test]
fn what_was_kept_for_who_left_is_offered_to_others() {
    let cluster = state(snapshot::Limits { connections: Some(1), ..snapshot::Limits::NONE });
    let (own, other) = (thread::current().id(), thread::spawn(|| thread::current().id()).join().unwrap());
    let (limits, mut heard) = (cluster.limits(), 0);
    let mut first = Waiting::join(&cluster, Limited::Connections, other, at(0)).unwrap();
    first.want_connection();
    let mine = [1, 2].map(|now| Waiting::join(&cluster, Limited::Connections, own, at(now)).unwrap());
    mine.iter().for_each(|mine| assert!(poll(mine, 3).is_ready()));
    assert!(limits.bell.poll_rung(&mut heard, Waker::noop()).is_ready());
    let [mine, behind] = mine;
    assert!(limits.may_keep(own));
    limits.freed(own);
    drop(mine);
    assert_eq!(poll(&behind, 4), Poll::Ready(Called::FirstOfThread), "the next of the thread");
    assert!(limits.bell.poll_rung(&mut heard, Waker::noop()).is_ready(), "and who wants one of any thread");
    drop(behind);
    assert!(limits.bell.poll_rung(&mut heard, Waker::noop()).is_pending(), "it had looked");
}

#[test]
fn the_limit_of_requests_follows_what_is_reported() {
    let adaptive = snapshot::Adaptive { min: 2, max: 100, tolerance_percent: 150, window: Duration::from_secs(1) };
    let limits = |requests| snapshot::Limits { requests, adaptive: Some(adaptive.clone()), ..snapshot::Limits::NONE };
    let registry = Registry::default();
    let endpoints = registry.of(&cluster(limits(None), &[1]), at(0));
    let cluster_state = registry.cluster(&ClusterName::new("shop/llm:80"));
    let gate = &cluster_state.limits().lane(Limited::Requests).gate;
    assert_eq!(gate.limit(), Some(20));
    let _held: Vec<_> = (0..15).map(|_| Admission::try_new(&cluster_state, Limited::Requests).unwrap()).collect();
    let report = |window: u64, millis, status| {
        for _ in 0..10 {
            let first_byte = Duration::from_millis(millis);
            endpoints[0].report(crate::resilience::Outcome::Answered { status, first_byte }, at(1000 * window));
        }
    };
    (1..=10).for_each(|window| report(window, 10, 200));
    let grown = gate.limit().unwrap();
    assert!(grown > 20, "{grown}");
    (11..=20).for_each(|window| report(window, 1, 503));
    assert_eq!(gate.limit(), Some(grown), "failures say nothing");
    (21..=30).for_each(|window| report(window, 100, 200));
    let shrunk = gate.limit().unwrap();
    assert!(shrunk < grown, "{shrunk}");
    registry.of(&cluster(limits(Some(5)), &[1]), at(0));
    assert_eq!(gate.limit(), Some(5), "requests is the most");
}

/// A waker that wakes a thread.
struct Unpark(thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn threads_never_hold_more_than_there_is_and_all_are_served() {
    const PLACES: u32 = 3;
    const ROUNDS: u32 = 2000;
    let cluster = state(requests(PLACES));
    let (inside, served) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                for round in 0..ROUNDS {
                    let admission = Admission::try_new(&cluster, Limited::Requests).or_else(|| {
                        let waiting = join(&cluster, Limited::Requests, 0)?;
                        // Some leave the line again.
                        if round % 7 == 0 {
                            return None;
                        }
                        loop {
                            match waiting.poll_called(at(0), &waker) {
                                Poll::Ready(Called::First) => match Admission::of_first(&waiting) {
                                    Some(admission) => return Some(admission),
                                    None => continue,
                                },
                                Poll::Ready(_) => continue,
                                Poll::Pending => thread::park(),
                            }
                        }
                    });
                    if admission.is_some() {
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < PLACES);
                        served.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(served.into_inner() >= 8 * (ROUNDS - ROUNDS / 7 - 1));
    let limits = cluster.limits();
    assert_eq!(
        (limits.lane(Limited::Requests).gate.taken(), limits.pending.taken()),
        (0, 0),
        "everything was given back"
    );
}
