//! How fast one side of a WebSocket may send, by what rate limits say of it. Who sends more is delayed, by not being read, or the
//! WebSocket is closed. No bytes are moved here, and there is no timer: `direction` asks before it reads and where frames begin.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::frames::opcode;
use crate::clock;
use crate::proxy::exchange::Exchange;
use crate::resilience::rate::{self, Limiter, Rate};
use crate::snapshot::{FramesFrom, MessageRate, RequestRate};

/// Bytes that are worth being read, where so many may come at once.
const PIECE: u64 = 4096;

/// What may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Nothing, until a time.
    Nothing,
    /// What is held goes on.
    Held,
    /// So many bytes may be read.
    Read(usize),
}

/// Whether a message may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It may.
    Now,
    /// Not yet.
    Later,
    /// It may not: the WebSocket is to be closed.
    Never,
}

/// What is said of one direction.
#[derive(Debug)]
pub(super) struct Pace {
    limits: Vec<Limit>,
    /// Read, but not followed yet, because a message begins there that may not.
    held: Bytes,
    /// When something may be done again.
    until: Option<Instant>,
    /// Nothing is limited any more: the WebSocket ends.
    lifted: bool,
}

#[derive(Debug)]
struct Limit {
    messages: Option<rate::Pace>,
    bytes: Option<rate::Pace>,
    /// Who sends more is not delayed.
    close: bool,
    /// Where refusals are counted.
    limiter: Arc<Limiter>,
}

impl Pace {
    /// What the limits of an exchange say of one of its sides, if they say anything.
    pub(super) fn of(exchange: &Exchange, client: bool) -> Option<Box<Self>> {
        let side = if client { FramesFrom::Client } else { FramesFrom::Endpoint };
        let limits = exchange.paces(|(rate, limiter)| {
            let MessageRate { messages, bytes, close, from } = **rate;
            let pace = |RequestRate { requests, per, burst }| rate::Pace::new(Rate::new(requests, per, burst));
            (from == side || from == FramesFrom::Both).then(|| Limit {
                messages: messages.map(pace),
                bytes: bytes.map(pace),
                close,
                limiter: Arc::clone(limiter),
            })
        });
        let none = limits.is_empty();
        (!none).then(|| Box::new(Pace { limits, held: Bytes::new(), until: None, lifted: false }))
    }

    /// What may be done now.
    pub(super) fn allowed(&mut self, now: Instant) -> Allowed {
        if !self.lifted && self.until.is_some_and(|until| now < until) {
            return Allowed::Nothing;
        }
        self.until = None;
        if !self.held.is_empty() {
            return Allowed::Held;
        }
        if self.lifted {
            return Allowed::Read(usize::MAX);
        }
        let (moment, mut most, mut wait) = (clock::moment(now), u64::MAX, Duration::ZERO);
        for bytes in self.limits.iter().filter(|limit| !limit.close).filter_map(|limit| limit.bytes.as_ref()) {
            wait = wait.max(bytes.wait(PIECE, moment));
            most = most.min(bytes.room(moment));
        }
        if !wait.is_zero() {
            self.until = Some(now + wait);
            return Allowed::Nothing;
        }
        Allowed::Read(usize::try_from(most).unwrap_or(usize::MAX).max(1))
    }

    /// Bytes came. Returns whether so many may.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) -> bool {
        let (bytes, now) = (bytes as u64, clock::moment(now));
        let mut may = true;
        for Limit { bytes: pace, close, limiter, .. } in &mut self.limits {
            let Some(pace) = pace else { continue };
            if *close && may && bytes > pace.room(now) {
                limiter.refuse();
                may = false;
            }
            pace.take(bytes, now);
        }
        may || self.lifted
    }

    /// A message wants to begin; it has begun if it may.
    pub(super) fn begin(&mut self, now: Instant) -> Begin {
        let (moment, mut wait) = (clock::moment(now), Duration::ZERO);
        if self.lifted {
            return Begin::Now;
        }
        for Limit { messages, close, limiter, .. } in &self.limits {
            let missing = messages.as_ref().map_or(Duration::ZERO, |messages| messages.wait(1, moment));
            if *close && !missing.is_zero() {
                limiter.refuse();
                return Begin::Never;
            }
            wait = wait.max(missing);
        }
        if !wait.is_zero() {
            self.until = Some(now + wait);
            return Begin::Later;
        }
        self.limits
            .iter_mut()
            .filter_map(|limit| limit.messages.as_mut())
            .for_each(|messages| messages.take(1, moment));
        Begin::Now
    }

    /// Keeps what was read until a message may begin with it.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.held = Bytes::copy_from_slice(bytes);
    }

    /// What was kept.
    pub(super) fn take_held(&mut self) -> Bytes {
        std::mem::take(&mut self.held)
    }

    /// Nothing is limited any more.
    pub(super) fn lift(&mut self) {
        self.lifted = true;
    }

    /// When something may be done again, if it may not now.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until.filter(|_| !self.lifted)
    }
}

/// Whether a frame that begins with this byte counts as a message: the first of a message does, and a ping, which asks for an answer. A
/// pong that was asked for, and the end, do not.
pub(super) fn counts(first: u8) -> bool {
    matches!(first & 0x0f, opcode::TEXT | opcode::BINARY | opcode::PING)
}
