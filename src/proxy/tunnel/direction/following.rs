//! Following the frames of one direction: what of them goes on, and where something may be said between them.

use tokio::time::Instant;

use super::{Aside, Direction, Excess};
use crate::proxy::error::Error;
use crate::proxy::exchange::Exchange;
use crate::proxy::tunnel::frames::{Found, opcode};
use crate::proxy::tunnel::pace::{self, Begin};
use crate::proxy::tunnel::words::Word;
use crate::proxy::worker::Worker;

impl Direction {
    /// Follows what was read, all of `buffer` from `followed` on; how much of `buffer` goes on.
    pub(super) fn follow(&mut self, buffer: &mut [u8], followed: usize, worker: &Worker, exchange: &Exchange) -> usize {
        let (mut at, mut end) = (followed, buffer.len());
        let mut kept = None;
        while at < end {
            match self.begin(buffer[at]) {
                Begin::Now => {}
                Begin::Later => {
                    if let Some(pace) = &mut self.pace {
                        pace.hold(&buffer[at..end]);
                    }
                    end = at;
                    break;
                }
                Begin::Never => {
                    self.signs.excess = Some(Excess::TooFast);
                    self.frames.lift_limits();
                    if self.frames.since_boundary().is_some() {
                        kept = Some(at);
                        self.put(at, Word::close(Error::TooFast, self.frames.masked()));
                    }
                }
            }
            let mut rest = &buffer[at..end];
            let found = self.frames.follow(&mut rest);
            at = end - rest.len();
            match found {
                Found::Frame(opcode::PING) => self.signs.asked = true,
                Found::Nothing | Found::Frame(_) => {}
                Found::OwnPong(length) if !self.over => {
                    buffer.copy_within(at..end, at - length);
                    at -= length;
                    end -= length;
                }
                Found::OwnPong(_) => {}
                Found::TooLarge if !self.over => {
                    // The whole header is here, since none is passed on before it was judged.
                    let header = self.frames.since_boundary().unwrap_or_default() as usize;
                    kept = Some(at - header);
                    self.signs.excess = Some(Excess::TooLarge);
                    self.frames.lift_limits();
                    self.put(at - header, Word::close(Error::MessageTooLarge, self.frames.masked()));
                }
                Found::TooLarge => {}
                Found::Violation(violation) => worker.recorder.violation(self.frames.masked(), violation.as_str()),
            }
        }
        let ended = self.frames.take_ended();
        if ended.frames > 0 {
            let to_client = !self.frames.masked();
            worker.recorder.frames(to_client, ended.frames, ended.messages);
            if to_client {
                exchange.events(ended.messages);
            }
        }
        match kept {
            Some(kept) => kept,
            None if self.over => 0,
            None => end,
        }
    }

    /// Whether the frame may pass that begins with this byte, if one does: it may begin a message. Where boundaries are not known any
    /// more, each piece counts as one.
    fn begin(&mut self, first: u8) -> Begin {
        let Some(pace) = &mut self.pace else { return Begin::Now };
        let begins = match self.frames.since_boundary() {
            Some(0) => pace::counts(first),
            Some(_) => false,
            None => true,
        };
        if begins && !self.over && self.signs.excess.is_none() { pace.begin(Instant::now()) } else { Begin::Now }
    }

    /// Finds the place of what is to be said: the last boundary between frames.
    pub(super) fn place(&mut self) {
        let Some(word) = self.say else { return };
        if self.over || self.frames.closed() {
            // We or the source has said the last word.
            self.say = None;
        } else if self.aside.is_none()
            && let Some(since) = self.frames.since_boundary()
            && let Some(after) = (self.unsent.len() as u64).checked_sub(since)
        {
            self.say = None;
            self.put(after as usize, word);
            if self.over {
                self.unsent.truncate(after as usize);
            }
        }
    }

    fn put(&mut self, after: usize, word: Word) {
        self.over |= matches!(word, Word::Close(..));
        self.aside = Some(Box::new(Aside { after, frame: word.frame(self.frames.masked()), word }));
    }
}
