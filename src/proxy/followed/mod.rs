//! Answers that are streams of units, events or messages: followed without being read, so that they can be counted, kept
//! alive and ended between two units. What a unit is, is said in `events` and `messages`; when a stream has to end, by its
//! exchange. Its clocks are looked at by whoever sends it.

mod events;
mod messages;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use self::events::EventScan;
use self::messages::MessageScan;
use super::body::{Body, Content};
use super::error::Error;
use super::exchange::{Due, Exchange, Farewell, Manner};
use super::fields::Known;
use super::message::Response;
use crate::snapshot::Streaming;
use crate::telemetry::{Kind, Protocol};

/// Follows an answer if it can be followed: it is made of units that are there to be seen, and has no length that would bind it.
/// gRPC has to end with trailers, which only HTTP/2 carries to every client.
pub(super) fn follow(response: Response, kind: Kind, exchange: &Rc<Exchange>) -> Response {
    let follow = match kind {
        Kind::Sse => Some(followed::<EventScan> as fn(Body, Rc<Exchange>) -> Body),
        Kind::Grpc if exchange.protocol() == Protocol::Http2 => Some(followed::<MessageScan> as _),
        Kind::Grpc => None,
        _ => return response,
    };
    let identity = |coding: &[u8]| coding.eq_ignore_ascii_case(b"identity");
    let Response { head, body } = response;
    let seen = head.fields.tokens(Known::ContentEncoding).all(identity);
    let (body, manner) = match follow {
        _ if body.size_hint().exact().is_some() => (body, Manner::ByItself),
        Some(follow) if seen => {
            exchange.counts_events();
            (follow(body, Rc::clone(exchange)), Manner::Polite)
        }
        _ => (body, Manner::Cut),
    };
    exchange.ends(manner);
    Response { head, body }
}

fn followed<U: Units>(body: Body, exchange: Rc<Exchange>) -> Body {
    Body::stream(Followed::<U>::new(body, exchange))
}

/// What a stream is made of, and where between two of its units it can be interrupted: in a gap.
trait Units: Default + Unpin + 'static {
    /// Goes over bytes that pass.
    fn pass(&mut self, bytes: &[u8]);

    /// Goes over bytes up to the next gap. How long that is, or `None` if there is none and all of them were passed.
    fn pass_to_gap(&mut self, bytes: &[u8]) -> Option<usize>;

    /// Whether what was passed so far ends in a gap.
    fn in_gap(&self) -> bool;

    /// Units that ended since this was last asked.
    fn take_ended(&mut self) -> u64;

    /// What is sent before the stream is ended in a gap.
    fn last_words(why: Farewell, streaming: Option<&Streaming>) -> Option<Frame<Bytes>>;

    /// After how much silence something is sent that means nothing.
    fn heartbeat(_: &Streaming) -> Option<Duration> {
        None
    }

    /// What that is; it will be sent in this gap.
    fn beat(&mut self) -> Bytes {
        Bytes::new()
    }

    /// What goes on of bytes that came, given the heartbeats that were sent before.
    fn after_beats(&mut self, bytes: Bytes) -> Bytes {
        bytes
    }
}

/// The content of an answer, followed.
struct Followed<U> {
    body: Body,
    exchange: Rc<Exchange>,
    units: U,
    state: State,
    heart: Option<Box<Heart>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    /// It ends in the next gap.
    Leaving(Farewell),
    /// It ends here; the last words come next.
    Parting(Farewell),
    Ended,
}

/// The heartbeats of a stream.
#[derive(Debug)]
struct Heart {
    every: Duration,
    /// Whether anything came from the endpoint.
    begun: bool,
    /// When something last came from the endpoint.
    heard: Instant,
    /// When the next heartbeat is sent, if nothing comes and the stream is in a gap.
    next: Instant,
}

impl Heart {
    fn new(every: Duration) -> Self {
        let now = Instant::now();
        Heart { every, begun: false, heard: now, next: now + every }
    }
}

impl<U: Units> Followed<U> {
    fn new(body: Body, exchange: Rc<Exchange>) -> Self {
        let heart =
            exchange.streaming().and_then(|streaming| U::heartbeat(streaming)).map(|every| Box::new(Heart::new(every)));
        Followed { body, exchange, units: U::default(), state: State::Open, heart }
    }

    /// What goes on of a piece that came; the stream may end with it.
    fn pass(&mut self, mut piece: Bytes) -> Bytes {
        if let Some(heart) = &mut self.heart {
            **heart = Heart { begun: true, ..Heart::new(heart.every) };
            piece = self.units.after_beats(piece);
        }
        match self.state {
            State::Leaving(why) => {
                if let Some(length) = self.units.pass_to_gap(&piece) {
                    piece.truncate(length);
                    self.state = State::Parting(why);
                    // What still comes is nobody's: the endpoint learns of it now.
                    self.body = Body::empty();
                }
            }
            _ => self.units.pass(&piece),
        }
        let ended = self.units.take_ended();
        if ended > 0 {
            self.exchange.events(ended);
        }
        piece
    }

    /// Ends the stream, which is in a gap.
    fn part(&mut self, why: Farewell) -> Option<Frame<Bytes>> {
        self.body = Body::empty();
        self.state = State::Ended;
        self.exchange.left(why);
        U::last_words(why, self.exchange.streaming().map(|streaming| &**streaming))
    }

    /// When to look after a silent stream: for its next heartbeat, and because heartbeats must not hide that the endpoint
    /// is silent for too long. The exchange's own clock cannot tell, since heartbeats are sent like anything else.
    fn look_at(&self) -> Option<Instant> {
        let heart = self.heart.as_ref()?;
        let (over, _) = self.exchange.give_up(heart.heard, heart.begun);
        Some(if self.units.in_gap() { heart.next.min(over) } else { over })
    }

    /// The time for it has come. The next heartbeat, or the end of the patience with the endpoint.
    fn look(&mut self) -> Option<Result<Bytes, Error>> {
        let heart = self.heart.as_mut()?;
        let now = Instant::now();
        let (over, error) = self.exchange.give_up(heart.heard, heart.begun);
        if now >= over {
            return Some(Err(error));
        }
        heart.next = now + heart.every;
        Some(Ok(self.units.beat()))
    }
}

impl<U: Units> Content for Followed<U> {}

impl<U: Units> HttpBody for Followed<U> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        loop {
            match this.state {
                State::Open | State::Leaving(_) => {}
                State::Parting(why) => return Poll::Ready(this.part(why).map(Ok)),
                State::Ended => return Poll::Ready(None),
            }
            let due = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let piece = match frame.into_data() {
                        Ok(piece) => piece,
                        Err(frame) => {
                            if let Some(trailers) = frame.trailers_ref() {
                                this.exchange.attempt_ended(trailers);
                            }
                            return Poll::Ready(Some(Ok(frame)));
                        }
                    };
                    // One that always has more is asked here, others when they wait.
                    if let Poll::Ready(Due::Leave(why)) = this.exchange.poll_asked(cx, None) {
                        this.state = State::Leaving(why);
                    }
                    let piece = this.pass(piece);
                    if piece.is_empty() {
                        continue;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending => ready!(this.exchange.poll_asked(cx, this.look_at())),
            };
            match due {
                Due::Expired(error) => return Poll::Ready(Some(Err(error))),
                Due::Leave(why) if this.units.in_gap() => return Poll::Ready(this.part(why).map(Ok)),
                Due::Leave(why) => this.state = State::Leaving(why),
                Due::Beat => return Poll::Ready(this.look().map(|beat| beat.map(Frame::data))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            State::Open | State::Leaving(_) => self.body.is_end_stream(),
            State::Parting(_) => false,
            State::Ended => true,
        }
    }

    /// Unknown: it may end early, and more may be sent than comes.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event stream that is silent costs little more than its connections.
    #[test]
    fn following_takes_little_memory() {
        assert!(size_of::<Followed<EventScan>>() <= 80, "{}", size_of::<Followed<EventScan>>());
        assert!(size_of::<Followed<MessageScan>>() <= 88, "{}", size_of::<Followed<MessageScan>>());
    }
}
