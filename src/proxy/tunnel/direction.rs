//! One way through a tunnel: what one side sends, the other gets, as it comes. What is said in between is put between frames,
//! if the bytes are a WebSocket's: where that is, `following` finds. When to say something, and when the tunnel ends, is `mod`'s to say.

mod following;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::frames::Frames;
use super::pace::{Allowed, Pace};
use super::words::Word;
use crate::proxy::clocks::Flow;
use crate::proxy::exchange::Exchange;
use crate::proxy::io::Pipe;
use crate::proxy::worker::Worker;

/// Which end of a direction broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Source,
    Sink,
}

/// What a source does that it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// It announced more than it may send.
    TooLarge,
    /// It sent faster than it may.
    TooFast,
}

/// What happened since this was last looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs {
    /// The source sent something.
    pub(super) heard: bool,
    /// The sink, which was full, took something.
    pub(super) drained: bool,
    /// The source asked the sink for a pong.
    pub(super) asked: bool,
    /// Our own ping is with the sink.
    pub(super) pinged: bool,
    /// The source does what it may not.
    pub(super) excess: Option<Excess>,
}

/// One way through a tunnel.
#[derive(Debug)]
pub(super) struct Direction {
    /// Read, but not taken by the sink yet. Its end is where `frames` has come to.
    unsent: Bytes,
    pub(super) frames: Frames,
    /// How fast the source may send, if that is limited.
    pace: Option<Box<Pace>>,
    state: State,
    /// What is to be said at the next boundary.
    say: Option<Word>,
    /// What is being said, and after how many of the unsent bytes.
    aside: Option<Box<Aside>>,
    /// A close of ours has its place: RFC 6455 5.5.1, an endpoint "MUST NOT send any more data frames after sending a Close
    /// frame". What the source still sends is not passed on.
    over: bool,
    blocked: bool,
    signs: Signs,
}

#[derive(Debug)]
struct Aside {
    after: usize,
    frame: Bytes,
    word: Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    SourceEnded,
    Closed,
}

impl Direction {
    /// A direction whose source has sent `early` already.
    pub(super) fn new(
        early: Bytes,
        frames: Frames,
        pace: Option<Box<Pace>>,
        worker: &Worker,
        exchange: &Exchange,
    ) -> Self {
        let mut direction = Direction {
            unsent: Bytes::new(),
            frames,
            pace,
            state: State::Open,
            say: None,
            aside: None,
            over: false,
            blocked: false,
            signs: Signs::default(),
        };
        if !early.is_empty() {
            let mut early = Vec::from(early);
            direction.took(early.len());
            let kept = direction.follow(&mut early, 0, worker, exchange);
            early.truncate(kept);
            direction.unsent = early.into();
        }
        direction
    }

    /// Moves what can be moved; ready once the source has ended and the sink was told.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        exchange: &Exchange,
        source: &mut dyn Pipe,
        sink: &mut dyn Pipe,
    ) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.poll_send(cx, exchange, sink)).map_err(|_| Broken::Sink)?;
            match self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::SourceEnded => {
                    // The peer may be gone already, which is all a half-close could have told it.
                    let _ = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                    self.state = State::Closed;
                }
                State::Open => match self.allowed() {
                    // What it says meanwhile nobody hears.
                    Allowed::Nothing => {
                        self.signs.heard = true;
                        return Poll::Pending;
                    }
                    Allowed::Held => self.move_held(cx, worker, exchange, sink)?,
                    Allowed::Read(most) => {
                        ready!(source.poll_readable(cx)).map_err(|_| Broken::Source)?;
                        let moved = worker
                            .with_scratch(|scratch| self.poll_move(cx, scratch, most, worker, exchange, source, sink));
                        if ready!(moved)? == 0 {
                            self.state = State::SourceEnded;
                        }
                    }
                },
            }
        }
    }

    /// What may be done with the source now.
    fn allowed(&mut self) -> Allowed {
        let ends = self.over || matches!(self.say, Some(Word::Close(..)));
        let Some(pace) = &mut self.pace else { return Allowed::Read(usize::MAX) };
        if ends {
            pace.lift();
        }
        pace.allowed(Instant::now())
    }

    /// Passes on what was held, as far as it may go now.
    fn move_held(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        exchange: &Exchange,
        sink: &mut dyn Pipe,
    ) -> Result<(), Broken> {
        let held = self.pace.as_mut().map(|pace| pace.take_held()).unwrap_or_default();
        let before = self.unsent.len();
        let mut both = [&self.unsent[..], &held].concat();
        self.pass_on(cx, &mut both, before, worker, exchange, sink)
    }

    /// Reads once, at most so much, and passes on at once what the sink takes. Returns how much was read.
    #[allow(clippy::too_many_arguments, reason = "what a direction moves between, lent for a moment")]
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        most: usize,
        worker: &Worker,
        exchange: &Exchange,
        source: &mut dyn Pipe,
        sink: &mut dyn Pipe,
    ) -> Poll<Result<usize, Broken>> {
        let held = self.unsent.len();
        scratch[..held].copy_from_slice(&self.unsent);
        let room = scratch.len().min(held.saturating_add(most));
        let mut buffer = ReadBuf::new(&mut scratch[held..room]);
        match ready!(Pin::new(source).poll_read(cx, &mut buffer)) {
            // TLS that ends without a word. WebSockets have their own, and many clients say no other.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
            read => read.map_err(|_| Broken::Source)?,
        }
        let read = buffer.filled().len();
        if read == 0 {
            return Poll::Ready(Ok(0));
        }
        self.signs.heard = true;
        self.took(read);
        self.pass_on(cx, &mut scratch[..held + read], held, worker, exchange, sink)?;
        Poll::Ready(Ok(read))
    }

    /// The source sent so much, which may be too much.
    fn took(&mut self, bytes: usize) {
        if let Some(pace) = &mut self.pace
            && !self.over
            && !pace.took(bytes, Instant::now())
        {
            self.signs.excess = Some(Excess::TooFast);
        }
    }

    /// Follows what was read, all of `buffer` from `followed` on, and passes on at once what the sink takes.
    fn pass_on(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        followed: usize,
        worker: &Worker,
        exchange: &Exchange,
        sink: &mut dyn Pipe,
    ) -> Result<(), Broken> {
        let kept = self.follow(buffer, followed, worker, exchange);
        let now = if self.say.is_some() || self.aside.is_some() { 0 } else { kept - self.frames.undecided().min(kept) };
        let written = match write(sink, cx, &buffer[..now]) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) => return Err(Broken::Sink),
            Poll::Pending => 0,
        };
        self.moved(exchange, written);
        self.unsent = Bytes::copy_from_slice(&buffer[written..kept]);
        Ok(())
    }

    /// Sends what is there, until only what is undecided is left.
    fn poll_send(&mut self, cx: &mut Context<'_>, exchange: &Exchange, sink: &mut dyn Pipe) -> Poll<io::Result<()>> {
        loop {
            self.place();
            let undecided = if self.state == State::Open && !self.over { self.frames.undecided() } else { 0 };
            let part = match &self.aside {
                Some(aside) if aside.after == 0 => &aside.frame,
                Some(aside) => &self.unsent[..aside.after],
                None => &self.unsent[..self.unsent.len() - undecided.min(self.unsent.len())],
            };
            if part.is_empty() {
                return self.poll_drain(cx, exchange, sink);
            }
            let Poll::Ready(written) = write(sink, cx, part) else {
                self.waits_for(exchange, Flow::Sink);
                return Poll::Pending;
            };
            let written = written?;
            self.signs.drained |= self.blocked;
            self.waits_for(exchange, Flow::Source);
            match &mut self.aside {
                Some(aside) if aside.after == 0 => {
                    aside.frame.advance(written);
                    if aside.frame.is_empty() {
                        self.signs.pinged |= matches!(aside.word, Word::Ping(_));
                        self.aside = None;
                    }
                    continue;
                }
                Some(aside) => aside.after -= written,
                None => {}
            }
            self.moved(exchange, written);
            self.unsent.advance(written);
            if self.unsent.is_empty() {
                self.unsent = Bytes::new();
            }
        }
    }

    /// Ready when the sink holds nothing back of what it took, as TLS may.
    fn poll_drain(&mut self, cx: &mut Context<'_>, exchange: &Exchange, sink: &mut dyn Pipe) -> Poll<io::Result<()>> {
        loop {
            let Poll::Ready(drained) = sink.poll_drain(cx) else {
                self.waits_for(exchange, Flow::Sink);
                return Poll::Pending;
            };
            if drained? == 0 {
                return Poll::Ready(Ok(()));
            }
            self.signs.drained |= self.blocked;
            self.waits_for(exchange, Flow::Source);
        }
    }

    /// When more may come of the source, which sends faster than it may.
    pub(super) fn delayed_until(&self) -> Option<Instant> {
        self.pace.as_ref()?.until().filter(|_| self.state == State::Open && !self.over)
    }

    /// Says something to the sink, as soon as it can be; a close before all else, and nothing after it.
    pub(super) fn say(&mut self, word: Word) {
        if !self.over && !matches!(self.say, Some(Word::Close(..))) {
            self.say = Some(word);
        }
    }

    /// Whether the sink was told that the WebSocket ends: by us or by the source, or by the end of the bytes.
    pub(super) fn told(&self) -> bool {
        self.over && self.aside.is_none()
            || self.frames.closed() && self.unsent.is_empty()
            || self.state == State::Closed
    }

    /// Whether the source has said that the WebSocket ends, or has ended it.
    pub(super) fn heard_end(&self) -> bool {
        self.frames.closed() || self.ended()
    }

    /// Whether the source has ended.
    pub(super) fn ended(&self) -> bool {
        self.state != State::Open
    }

    /// Nothing more is awaited of the source: what is there goes to the sink, and then its end.
    pub(super) fn finish(&mut self) {
        if self.state == State::Open {
            self.state = State::SourceEnded;
        }
    }

    /// Nothing more can be said to the sink.
    pub(super) fn give_up(&mut self) {
        (self.state, self.unsent, self.say, self.aside) = (State::Closed, Bytes::new(), None, None);
    }

    /// What happened since this was last asked.
    pub(super) fn take_signs(&mut self) -> Signs {
        std::mem::take(&mut self.signs)
    }

    /// What it waits for: the clocks of who sends and of who takes are not the same.
    fn waits_for(&mut self, exchange: &Exchange, flow: Flow) {
        let blocked = flow == Flow::Sink;
        if std::mem::replace(&mut self.blocked, blocked) == blocked {
        } else if self.frames.masked() {
            exchange.upload_waits(flow);
        } else {
            exchange.download_waits(flow);
        }
    }

    /// What the source sent was passed on. Frames are masked towards the endpoint.
    fn moved(&self, exchange: &Exchange, bytes: usize) {
        if bytes == 0 {
        } else if self.frames.masked() {
            exchange.received(bytes);
        } else {
            exchange.sent(bytes);
        }
    }
}

fn write(sink: &mut dyn Pipe, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    if bytes.is_empty() {
        return Poll::Ready(Ok(0));
    }
    match ready!(Pin::new(sink).poll_write_vectored(cx, &[IoSlice::new(bytes)])) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        result => Poll::Ready(result),
    }
}
