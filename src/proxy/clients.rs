//! Connections of clients: accepted, and carried by whoever speaks their protocol, or at rest. What is said on them is
//! `handshake`'s, `http1`'s, `http2`'s, `passage`'s and `tunnel`'s.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::capture::{self, Judged, Way};
use super::handshake::{self, HTTP2, Shaken};
use super::http1::{self, Served};
use super::http2;
use super::introduction::{self, Expected, Introduced};
use super::io::Io;
use super::passage;
use super::resting::Place;
use super::tunnel;
use super::worker::{Peer, Worker};

/// Accepts until the drain begins, or to the end. On `secure` ones, TLS is spoken.
pub(super) async fn accept(listener: TcpListener, secure: bool, worker: Rc<Worker>, clients: TaskTracker) {
    let outlasts = worker.capture.as_ref().is_some_and(capture::Capture::outlasts);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = worker.leaving.drain.happened(), if !outlasts => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: connections that end make room.
                tracing::warn!(%error, "cannot accept a connection");
                worker.recorder.connection_refused("accept_failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let address = canonical(address);
        let expected = introduction::expected(&worker.settings.listeners.proxy_protocol, address.ip());
        if expected == Expected::Nothing {
            worker.recorder.connection_refused("proxy_protocol_untrusted");
            continue;
        }
        match Open::new(&worker) {
            Some(open) => drop(clients.spawn_local(Connection::new(stream, secure, address, expected, open))),
            None => worker.recorder.connection_refused("too_many_connections"),
        }
    }
}

/// An IPv4 client of a dual-stack socket is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// One of the process's connections, until dropped.
struct Open(Rc<Worker>);

impl Open {
    /// `None` if there are too many.
    fn new(worker: &Rc<Worker>) -> Option<Self> {
        let connections = &worker.connections;
        if connections.fetch_add(1, Ordering::Relaxed) >= worker.settings.limits.connections {
            connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        worker.recorder.opened();
        Some(Open(Rc::clone(worker)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.recorder.closed();
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection from its first byte to its last. What it takes to serve it gets a box of its own, so that it costs what it is
/// at the time: most connections of most servers rest. Written by hand, because an `async` block has room for every
/// variable that it ever moves.
struct Connection {
    state: State,
    address: SocketAddr,
    open: Open,
}

enum State {
    /// Until its header of the PROXY protocol has said for whom it is; and whether TLS is spoken then.
    Introduced(Pin<Box<dyn Future<Output = Option<Introduced>>>>, bool),
    /// Until it is known what it is.
    Judged(Pin<Box<dyn Future<Output = Option<Judged>>>>),
    /// By TLS; `None` if that came to nothing.
    ShakesHands(Pin<Box<dyn Future<Output = Option<Shaken>>>>),
    /// By `http1`, until it turns out to be something else; or by `passage`, until an endpoint is reached.
    Served(Pin<Box<dyn Future<Output = Served>>>),
    Rests(Io, Place),
    /// To its end, by whoever it turned out to be for.
    GivenTo(Pin<Box<dyn Future<Output = ()>>>),
    Closed,
}

impl Connection {
    fn new(stream: TcpStream, secure: bool, address: SocketAddr, expected: Expected, open: Open) -> Self {
        let state = match expected {
            Expected::Header => {
                let worker = Rc::clone(&open.0);
                let introduced = async move { introduction::heard(stream, address, &worker).await };
                State::Introduced(Box::pin(introduced), secure)
            }
            Expected::Own | Expected::Nothing => State::begin(stream, secure, address, &open.0),
        };
        Connection { state, address, open }
    }
}

impl State {
    fn begin(stream: TcpStream, secure: bool, address: SocketAddr, worker: &Rc<Worker>) -> Self {
        if worker.capture.is_some() {
            return State::Judged(Box::pin(capture::judge(stream, Rc::clone(worker))));
        }
        if secure {
            return State::ShakesHands(Box::pin(handshake::accept(stream, Rc::clone(worker))));
        }
        let io = Io::new(stream, worker.settings.limits.stream_buffer_bytes);
        State::serve(io, true, address, worker)
    }

    fn serve(io: Io, fresh: bool, address: SocketAddr, worker: &Rc<Worker>) -> Self {
        let peer = peer(&io, address, worker);
        State::Served(Box::pin(http1::serve(io, fresh, peer, Rc::clone(worker))))
    }

    fn serve_http2(io: Io, address: SocketAddr, worker: &Rc<Worker>) -> Self {
        let peer = peer(&io, address, worker);
        State::GivenTo(Box::pin(http2::serve(io, peer, Rc::clone(worker))))
    }
}

/// The peer of a connection.
fn peer(io: &Io, address: SocketAddr, worker: &Worker) -> Peer {
    let way = worker.capture.as_ref().map_or(Way::Host, |capture| capture.way(io.socket()));
    Peer::new(address, io.agreed().cloned(), way)
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Connection { state, address, open: Open(worker) } = self.get_mut();
        loop {
            *state = match state {
                State::Introduced(introduced, secure) => match ready!(introduced.as_mut().poll(cx)) {
                    Some((stream, client)) => {
                        *address = canonical(client);
                        State::begin(stream, *secure, *address, worker)
                    }
                    None => State::Closed,
                },
                State::Judged(judging) => match ready!(judging.as_mut().poll(cx)) {
                    Some(Judged::Serve(io)) => State::serve(io, true, *address, worker),
                    Some(Judged::ShakeHands(stream)) => {
                        State::ShakesHands(Box::pin(handshake::accept(stream, Rc::clone(worker))))
                    }
                    Some(Judged::Pass(passed)) => State::GivenTo(Box::pin(passed.carry(Rc::clone(worker)))),
                    None => State::Closed,
                },
                State::ShakesHands(shaking) => match ready!(shaking.as_mut().poll(cx)) {
                    Some(Shaken::Ended(io)) if io.agreed().is_some_and(|agreed| agreed.alpn == Some(HTTP2)) => {
                        State::serve_http2(io, *address, worker)
                    }
                    Some(Shaken::Ended(io)) => State::serve(io, true, *address, worker),
                    Some(Shaken::Passed(passed)) => {
                        State::Served(Box::pin(passage::reach(passed, *address, Rc::clone(worker))))
                    }
                    None => State::Closed,
                },
                State::Served(serving) => match ready!(serving.as_mut().poll(cx)) {
                    Served::Closed => State::Closed,
                    Served::Resting(io) => {
                        let time = worker.settings.limits.keep_alive_idle.saturating_sub(http1::RESTS_AFTER);
                        State::Rests(io, Place::take(&worker.resting, time, cx.waker()))
                    }
                    Served::Http2(io) => State::serve_http2(io, *address, worker),
                    Served::Switched { client, early, upstream, exchange } => {
                        State::GivenTo(Box::pin(tunnel::run(Rc::clone(worker), client, early, upstream, exchange)))
                    }
                },
                State::Rests(io, place) => {
                    let leaving = worker.leaving.drain.has_happened();
                    let asked = !leaving && io.poll_readable(cx).is_ready();
                    if !leaving && !asked {
                        ready!(place.poll_over(cx));
                    }
                    match std::mem::replace(state, State::Closed) {
                        State::Rests(io, _) if asked => State::serve(io, false, *address, worker),
                        _ => State::Closed,
                    }
                }
                State::GivenTo(carrier) => {
                    ready!(carrier.as_mut().poll(cx));
                    State::Closed
                }
                State::Closed => return Poll::Ready(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection takes while it rests, beside its socket: 256 bytes, with what tokio and the tracker add.
    #[test]
    fn a_connection_that_rests_is_small() {
        assert!(size_of::<Connection>() <= 152, "{}", size_of::<Connection>());
    }
}
