//! Content that is compressed as it passes. Nothing of it waits for more to come: when the endpoint pauses, all that came goes out.
//! What a stream holds is bounded, whatever passes: the state of the compressor, and one piece each way.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};

use crate::proxy::body::{Body, Content};
use crate::proxy::error::Error;

/// What is compressed between two looks at how much was.
const SLICE: usize = 16 * 1024;
/// How much is compressed before others of the worker have their turn: less than a millisecond's work.
const TURN: usize = 64 * 1024;
/// Room for what comes out of one step, least and most. Less than a flush needs would make it flush again.
const ROOM: (usize, usize) = (512, 16 * 1024);

/// Matches are looked for in the last 8 KiB, and 4,096 of them make a block: 196 KB of state. The default, 32 KiB and 16,384, takes 380 KB
/// to make of text what is an eighth smaller.
const WINDOW_BITS: i32 = 13;
const MEMORY_LEVEL: i32 = 6;
/// Tells the compressor to write what RFC 1952 has around the content.
const GZIP: i32 = 16;

/// Content that is compressed with gzip.
pub(super) struct Compressed {
    body: Body,
    level: u8,
    /// Whether every piece goes out as soon as it came, even if the next one is there.
    each: bool,
    /// Made for the first byte.
    deflate: Option<Box<Deflate>>,
    /// What came and is not compressed yet.
    input: Bytes,
    state: State,
    /// Whether the compressor may hold back some of what it got.
    owes: bool,
    /// Bytes since others had their turn.
    worked: usize,
    trailers: Option<HeaderMap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More is to come.
    Taking,
    /// What came goes out.
    Flushing,
    /// All came, and goes out.
    Finishing,
    /// All went out but for trailers.
    Ended,
}

impl Compressed {
    /// Compresses `body`.
    pub(super) fn new(body: Body, level: u8, each: bool) -> Self {
        Compressed {
            body,
            level,
            each,
            deflate: None,
            input: Bytes::new(),
            state: State::Taking,
            owes: false,
            worked: 0,
            trailers: None,
        }
    }

    /// Waits for the next piece, or finds out what to do without one.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.body.is_end_stream() {
            self.state = State::Finishing;
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending if self.owes => self.state = State::Flushing,
            Poll::Pending => {
                self.worked = 0;
                return Poll::Pending;
            }
            Poll::Ready(None) => self.state = State::Finishing,
            Poll::Ready(Some(frame)) => match frame?.into_data() {
                Ok(data) => self.input = data,
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    self.state = State::Finishing;
                }
            },
        }
        Poll::Ready(Ok(()))
    }

    /// Compresses a slice of what came, or lets go what is held back; what comes out of it, if anything.
    fn step(&mut self) -> Result<Bytes, Error> {
        let slice = self.input.len().min(SLICE);
        let last = self.each && slice == self.input.len();
        let mut out = vec![0; (slice + slice / 8 + 64).clamp(ROOM.0, ROOM.1)];
        let flush = match self.state {
            State::Taking if !last => DeflateFlush::NoFlush,
            State::Taking | State::Flushing => DeflateFlush::SyncFlush,
            State::Finishing | State::Ended => DeflateFlush::Finish,
        };
        let level = i32::from(self.level);
        let deflate = self.deflate.get_or_insert_with(|| {
            let (window_bits, mem_level) = (GZIP + WINDOW_BITS, MEMORY_LEVEL);
            Box::new(Deflate::new_with_config(DeflateConfig {
                level,
                window_bits,
                mem_level,
                ..DeflateConfig::default()
            }))
        });
        let (taken, written) = (deflate.total_in(), deflate.total_out());
        // It fails only if its state is broken. The client then sees that the content breaks off.
        let status = deflate.compress(&self.input[..slice], &mut out, flush).map_err(|_| Error::UpstreamCut)?;
        let taken = (deflate.total_in() - taken) as usize;
        let written = (deflate.total_out() - written) as usize;
        self.input.advance(taken);
        self.worked += taken;
        match self.state {
            State::Taking if taken == 0 && written == 0 => return Err(Error::UpstreamCut),
            // Whatever leaves room has let go of everything.
            State::Taking if last && self.input.is_empty() && written < out.len() => self.owes = false,
            State::Taking => self.owes = true,
            State::Flushing if written < out.len() => {
                self.owes = false;
                self.state = State::Taking;
            }
            State::Flushing => {}
            State::Finishing | State::Ended if status == Status::StreamEnd => {
                self.deflate = None;
                self.state = State::Ended;
            }
            State::Finishing | State::Ended if written == 0 => return Err(Error::UpstreamCut),
            State::Finishing | State::Ended => {}
        }
        out.truncate(written);
        // A short piece does not keep the room of a long one while it waits for its client.
        Ok(if written <= out.capacity() / 2 { Bytes::copy_from_slice(&out) } else { out.into() })
    }
}

impl Content for Compressed {}

impl HttpBody for Compressed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        loop {
            if this.state == State::Ended {
                return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            if this.worked >= TURN {
                this.worked = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let done = match this.state {
                State::Taking if this.input.is_empty() => ready!(this.poll_piece(cx)).map(|()| Bytes::new()),
                _ => this.step(),
            };
            match done {
                Ok(out) if out.is_empty() => {}
                Ok(out) => return Poll::Ready(Some(Ok(Frame::data(out)))),
                Err(error) => {
                    this.state = State::Ended;
                    this.trailers = None;
                    this.deflate = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Ended && self.trailers.is_none()
    }

    /// Unknown until it is compressed.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
