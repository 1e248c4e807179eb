//! Tunnels: bytes both ways after both sides have switched to WebSocket, or between a client and an endpoint that speak TLS with each
//! other, of which nothing can be seen and in which nothing can be said. An end of one side is passed on as a half-close, and
//! nothing is buffered but what the other side has not taken yet; the scratch they pass through is the worker's.
//!
//! [`direction`] moves bytes and knows, by [`frames`], where something may be said; [`pulse`] knows when a side is to be
//! pinged, [`pace`] how fast it may send, [`words`] how what we say looks. Here is decided what is said, and how the tunnel ends.

mod direction;
mod frames;
mod pace;
mod pulse;
mod words;

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use self::direction::{Broken, Direction, Excess};
use self::frames::Frames;
use self::pace::Pace;
use self::pulse::{Beat, Pulse, Side};
use self::words::Word;
use super::error::Error;
use super::exchange::{Due, Exchange, Farewell};
use super::io::Pipe;
use super::upstream::Takeover;
use super::worker::Worker;
use crate::snapshot::WebSocket;

/// How long the sides may take to answer a close of ours: RFC 6455 7.1.1, a "reasonable time period".
const PARTING: Duration = Duration::from_secs(5);

/// Carries a tunnel to its end. `early` is what the client sent ahead of the switch.
///
/// Not an `async fn`, whose future would keep room for its arguments beside what becomes of them.
pub(super) fn run<P: Pipe>(
    worker: Rc<Worker>,
    mut client: P,
    early: Bytes,
    upstream: Takeover,
    exchange: Rc<Exchange>,
) -> impl Future<Output = ()> {
    let Takeover { pipe: mut endpoint, early: ahead, extended, in_flight } = upstream;
    let mut tunnel = Tunnel::new(early, ahead, extended, &worker, &exchange);
    async move {
        let _in_flight = in_flight;
        let carried = |cx: &mut Context<'_>| tunnel.poll(cx, &worker, &exchange, &mut client, &mut *endpoint);
        let result = std::future::poll_fn(carried).await;
        end(result, &tunnel, &mut client, &mut *endpoint, &exchange);
    }
}

fn end(
    result: Result<Ending, Error>,
    tunnel: &Tunnel,
    client: &mut dyn Pipe,
    endpoint: &mut dyn Pipe,
    exchange: &Exchange,
) {
    match result {
        Ok(Ending::Complete) => exchange.complete(),
        Ok(Ending::Left(farewell)) => exchange.left(farewell),
        Ok(Ending::Cut(error)) => exchange.cut(error),
        Err(error) => {
            // A broken side must look broken to the other, too.
            if !tunnel.down.told() {
                client.abort();
            }
            if !tunnel.up.told() {
                endpoint.abort();
            }
            exchange.cut(error);
        }
    }
}

/// How a tunnel ended whose sides were both told.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Complete,
    Left(Farewell),
    Cut(Error),
}

/// Why we end it.
#[derive(Clone, Copy, Debug)]
struct Parting {
    ending: Ending,
    /// When it is cut. A farewell has a clock of its own.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Tunnel {
    /// From the client to the endpoint.
    up: Direction,
    /// From the endpoint to the client.
    down: Direction,
    pulse: Option<Box<Pulse>>,
    parting: Option<Parting>,
    /// Who ended first.
    first: Option<Side>,
    /// It carries something else than a WebSocket.
    opaque: bool,
}

impl Tunnel {
    fn new(early: Bytes, ahead: Bytes, extended: Option<bool>, worker: &Worker, exchange: &Exchange) -> Self {
        let none = WebSocket::default();
        let wanted = exchange.streaming().map_or(&none, |streaming| &streaming.web_socket);
        let pulse = wanted.ping.filter(|_| extended.is_some()).map(|ping| Box::new(Pulse::new(ping, Instant::now())));
        let frames = |masked| {
            let Some(extended) = extended else { return Frames::none(masked) };
            let mut frames = Frames::new(masked, extended, wanted);
            if let Some(pulse) = &pulse {
                frames.expect_pongs(pulse.token);
            }
            frames
        };
        let up = Direction::new(early, frames(true), Pace::of(exchange, true), worker, exchange);
        let down = Direction::new(ahead, frames(false), Pace::of(exchange, false), worker, exchange);
        Tunnel { up, down, pulse, parting: None, first: None, opaque: extended.is_none() }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        exchange: &Exchange,
        client: &mut dyn Pipe,
        endpoint: &mut dyn Pipe,
    ) -> Poll<Result<Ending, Error>> {
        loop {
            // Both directions move before either is judged, so that the last words of one side are not lost to the other's end.
            let up = self.up.poll(cx, worker, exchange, client, endpoint);
            let down = self.down.poll(cx, worker, exchange, endpoint, client);
            self.first = self.first.or_else(|| match (self.up.ended(), self.down.ended()) {
                (true, _) => Some(Side::Client),
                (_, true) => Some(Side::Endpoint),
                _ => None,
            });
            if let (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) = (up, down) {
                return Poll::Ready(Ok(self.ending(exchange)));
            }
            let broken = match (up, down) {
                (Poll::Ready(Err(broken)), _) => Some((Side::Client, broken)),
                (_, Poll::Ready(Err(broken))) => Some((Side::Endpoint, broken)),
                _ => None,
            };
            if let Some((source, broken)) = broken {
                if !self.survives(source, broken) {
                    return Poll::Ready(Err(blame(source, broken)));
                }
                continue;
            }
            if self.notice() || self.parted() {
                continue;
            }
            let beat = match self.parting {
                Some(parting) => parting.until,
                None => self.pulse.as_ref().and_then(|pulse| pulse.next()),
            };
            let paced = self.up.delayed_until().into_iter().chain(self.down.delayed_until());
            match exchange.poll_due(cx, paced.chain(beat).min()) {
                Poll::Pending => return Poll::Pending,
                // There are no last words in it.
                Poll::Ready(Due::Leave(farewell)) if self.opaque => return Poll::Ready(Err(farewell.error())),
                Poll::Ready(Due::Leave(farewell)) => {
                    // Sides that are parting already are left to it.
                    if !self.up.frames.closed() && !self.down.frames.closed() {
                        self.part(Ending::Left(farewell), farewell.error(), None);
                    }
                }
                Poll::Ready(Due::Beat) => match self.parting {
                    Some(Parting { ending: Ending::Cut(error), until }) => {
                        if until.is_none_or(|until| until <= Instant::now()) {
                            return Poll::Ready(Err(error));
                        }
                    }
                    _ => self.beat(),
                },
                Poll::Ready(Due::Expired(error)) => {
                    // Nobody is waited for any more, but what can be said at once is said.
                    let error = match self.parting.map(|parting| parting.ending) {
                        Some(Ending::Cut(before)) => before,
                        Some(Ending::Left(farewell)) => farewell.error(),
                        _ => error,
                    };
                    self.part(Ending::Cut(error), error, None);
                    let _ = self.up.poll(cx, worker, exchange, client, endpoint);
                    let _ = self.down.poll(cx, worker, exchange, endpoint, client);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// How it ended, now that both sides have.
    fn ending(&self, exchange: &Exchange) -> Ending {
        match (self.parting, self.first) {
            // An endpoint that says nothing to a client that did has not served it.
            (None, Some(Side::Client)) if self.opaque && exchange.bytes_sent() == 0 => Ending::Cut(Error::ClientGone),
            (None, Some(Side::Endpoint)) if self.opaque && exchange.bytes_sent() == 0 => {
                Ending::Cut(Error::UpstreamCut)
            }
            (Some(parting), _) => parting.ending,
            // RFC 6455 7.1.4: it is closed cleanly "if the TCP connection was closed after the WebSocket closing handshake was
            // completed". One that was begun tells as much. What is no WebSocket may end as it likes.
            (None, Some(Side::Client)) if self.cut_short() => Ending::Cut(Error::ClientGone),
            (None, Some(Side::Endpoint)) if self.cut_short() => Ending::Cut(Error::UpstreamCut),
            _ => Ending::Complete,
        }
    }

    fn cut_short(&self) -> bool {
        [&self.up, &self.down].iter().all(|way| !way.frames.closed() && way.frames.since_boundary().is_some())
    }

    /// Whether a broken side leaves something to be done.
    fn survives(&mut self, source: Side, broken: Broken) -> bool {
        let said = self.up.frames.closed() && self.down.frames.closed();
        if self.parting.is_none() && !said {
            return false;
        }
        let way = match source {
            Side::Client => &mut self.up,
            Side::Endpoint => &mut self.down,
        };
        match broken {
            Broken::Source => way.finish(),
            Broken::Sink => way.give_up(),
        }
        true
    }

    /// Looks at what happened. Returns whether there is something new to be said.
    fn notice(&mut self) -> bool {
        let (up, down) = (self.up.take_signs(), self.down.take_signs());
        if let Some(pulse) = &mut self.pulse {
            let now = Instant::now();
            for (side, from, to) in [(Side::Client, up, down), (Side::Endpoint, down, up)] {
                if to.asked {
                    pulse.owes(side);
                }
                if to.pinged {
                    pulse.asked(side, now);
                }
                if from.heard || to.drained {
                    pulse.heard(side, now);
                }
            }
        }
        let why = up.excess.or(down.excess).map(|excess| match excess {
            Excess::TooLarge => Error::MessageTooLarge,
            Excess::TooFast => Error::TooFast,
        });
        if let Some(why) = why {
            self.part(Ending::Cut(why), why, Some(Instant::now() + PARTING));
        }
        why.is_some()
    }

    /// Ends both ways once each side was told and has answered. Returns whether it did.
    fn parted(&mut self) -> bool {
        let (up, down) = (&mut self.up, &mut self.down);
        let over = self.parting.is_some()
            && up.told()
            && down.told()
            && up.heard_end()
            && down.heard_end()
            && !(up.ended() && down.ended());
        if over {
            up.finish();
            down.finish();
        }
        over
    }

    /// Tells both sides that the WebSocket ends.
    fn part(&mut self, ending: Ending, why: Error, until: Option<Instant>) {
        if self.parting.is_none() {
            self.parting = Some(Parting { ending, until });
        }
        self.up.say(Word::close(why, true));
        self.down.say(Word::close(why, false));
    }

    /// Pings who is silent, and ends with who stays it.
    fn beat(&mut self) {
        let now = Instant::now();
        while let Some(pulse) = &mut self.pulse
            && let Some(beat) = pulse.beat(now)
        {
            let ping = Word::Ping(pulse.token);
            match beat {
                Beat::Ask(Side::Client) => self.down.say(ping),
                Beat::Ask(Side::Endpoint) => self.up.say(ping),
                Beat::Silent(side) => {
                    let error = match side {
                        Side::Client => Error::ClientSilent,
                        Side::Endpoint => Error::UpstreamSilent,
                    };
                    self.part(Ending::Cut(error), error, Some(now + PARTING));
                    // Nothing more is awaited of it.
                    return match side {
                        Side::Client => self.up.finish(),
                        Side::Endpoint => self.down.finish(),
                    };
                }
            }
        }
    }
}

/// What it means that a side broke.
fn blame(source: Side, broken: Broken) -> Error {
    match (source, broken) {
        (Side::Client, Broken::Source) | (Side::Endpoint, Broken::Sink) => Error::ClientGone,
        (Side::Endpoint, Broken::Source) | (Side::Client, Broken::Sink) => Error::UpstreamCut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::io::Io;

    /// The size of what a function gives for arguments that need not be made.
    fn size<A, B, C, D, E, F>(_: impl FnOnce(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_open_tunnel_is_small() {
        assert!(size_of::<Direction>() <= 200, "{}", size_of::<Direction>());
        let future = size::<Rc<Worker>, Io, Bytes, Takeover, Rc<Exchange>, _>(run);
        assert!(future <= 616, "{future}");
    }
}
