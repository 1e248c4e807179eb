//! Where events begin and end in a `text/event-stream`, as far as a proxy has to know: lines are told apart, not read. Pure;
//! what is done between events is `Followed`'s to say.

use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;

use super::Units;
use crate::proxy::exchange::Farewell;
use crate::snapshot::Streaming;

/// HTML 9.2.6: "Streams must be decoded using the UTF-8 decode algorithm. The UTF-8 decode algorithm strips one leading
/// UTF-8 Byte Order Mark (BOM), if any."
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Follows the events of a stream, however its bytes are cut into pieces. HTML 9.2.5 has the grammar:
///
/// ```text
/// stream        = [ bom ] *event
/// event         = *( comment / field ) end-of-line
/// comment       = colon *any-char end-of-line
/// field         = 1*name-char [ colon [ space ] *any-char ] end-of-line
/// end-of-line   = ( cr lf / cr / lf )
/// ```
///
/// Comments say nothing, so that a stream is between two events, too, after a comment with no field before it. A field that no
/// empty line follows is part of an event that has not come yet: 9.2.6 has clients discard it when the stream ends.
#[derive(Debug)]
pub(super) struct EventScan {
    place: Place,
    /// Whether a field of the current event has begun.
    open: bool,
    ended: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the very start, behind so many bytes of a byte order mark.
    Start(u8),
    /// At the start of what comes, but not of what the client gets; so many bytes of a byte order mark are held back.
    Interrupted(u8),
    /// At the start of a line.
    Line,
    /// At the start of a line, too; but a line feed that comes next belongs to the end of the line before.
    AfterReturn,
    /// Within a line.
    Within,
}

impl Default for EventScan {
    fn default() -> Self {
        EventScan { place: Place::Start(0), open: false, ended: 0 }
    }
}

impl EventScan {
    /// Goes over the rest of a line, its end included, or of a byte order mark. How long that is, or `None` if the end has not come.
    fn line(&mut self, bytes: &[u8]) -> Option<usize> {
        if bytes.is_empty() {
            return None;
        }
        let mut at = 0;
        while let Place::Start(seen) = self.place {
            if *bytes.get(at)? == BOM[usize::from(seen)] {
                at += 1;
                self.place = Place::Start(seen + 1);
                if usize::from(seen) + 1 == BOM.len() {
                    self.place = Place::Line;
                    return Some(at);
                }
            } else {
                // What only began like a mark begins a field with an odd name.
                self.open = seen > 0;
                self.place = if seen > 0 { Place::Within } else { Place::Line };
            }
        }
        if self.place == Place::AfterReturn {
            at += usize::from(*bytes.get(at)? == b'\n');
            self.place = Place::Line;
        }
        if self.place == Place::Line {
            match bytes.get(at)? {
                b'\n' | b'\r' => {
                    self.ended += u64::from(self.open);
                    self.open = false;
                }
                b':' => {}
                _ => self.open = true,
            }
        }
        let Some(end) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) else {
            self.place = Place::Within;
            return None;
        };
        at += end + 1;
        self.place = Place::Line;
        if bytes[at - 1] == b'\r' {
            match bytes.get(at) {
                None => self.place = Place::AfterReturn,
                Some(b'\n') => at += 1,
                Some(_) => {}
            }
        }
        Some(at)
    }
}

impl Units for EventScan {
    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some(length) = self.line(bytes) {
            bytes = &bytes[length..];
        }
    }

    fn pass_to_gap(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(length) = self.line(&bytes[at..]) {
            at += length;
            if self.in_gap() {
                return Some(at);
            }
        }
        None
    }

    fn in_gap(&self) -> bool {
        !self.open && matches!(self.place, Place::Start(0) | Place::Interrupted(_) | Place::Line | Place::AfterReturn)
    }

    fn take_ended(&mut self) -> u64 {
        std::mem::take(&mut self.ended)
    }

    fn heartbeat(streaming: &Streaming) -> Option<Duration> {
        streaming.sse.heartbeat
    }

    /// A comment, because clients must ignore it, of no more than its colon. HTML 9.2.7: "authors can include a comment line (one
    /// starting with a ':' character) every 15 seconds or so". The empty line after it ends no event, there is none; it is for
    /// clients that read blocks instead of lines, which would else hold the comment back, or see the next event begin with it.
    fn beat(&mut self) -> Bytes {
        if self.place == Place::Start(0) {
            self.place = Place::Interrupted(0);
        }
        Bytes::from_static(b":\n\n")
    }

    /// A byte order mark is one at the start only. Behind a heartbeat it would become a part of the first field's name, which
    /// the client would then not know.
    fn after_beats(&mut self, bytes: Bytes) -> Bytes {
        let Place::Interrupted(held) = self.place else { return bytes };
        let (held, awaited) = BOM.split_at(usize::from(held));
        if bytes.len() < awaited.len() && awaited.starts_with(&bytes) {
            self.place = Place::Interrupted((held.len() + bytes.len()) as u8);
            return Bytes::new();
        }
        self.place = Place::Line;
        if bytes.starts_with(awaited) {
            bytes.slice(awaited.len()..)
        } else if held.is_empty() {
            bytes
        } else {
            [held, &bytes].concat().into()
        }
    }

    /// HTML 9.2.6: a field `retry` of digits sets "the event stream's reconnection time to that integer", in milliseconds, as
    /// soon as its line has ended. The empty line is for clients that read blocks instead of lines.
    fn last_words(_: Farewell, streaming: Option<&Streaming>) -> Option<Frame<Bytes>> {
        let retry = streaming?.sse.retry?;
        Some(Frame::data(format!("retry: {}\n\n", retry.as_millis()).into()))
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
