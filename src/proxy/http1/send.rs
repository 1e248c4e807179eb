//! Messages on their way out, whichever side takes them: the head with what content is there already, then each piece as it
//! comes. What is waited with, and for how long, is the taker's to say.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::Body as _;

use super::conn::Conn;
use super::encode::{self, Outbound};
use crate::proxy::body::Body;
use crate::proxy::error::Error;
use crate::proxy::lent::lending;
use crate::proxy::pipes::Piped;

/// Content up to this is copied behind what goes before it: one part is written faster than three.
const COPIED: usize = 2 * 1024;
/// What is left of a piece up to this is copied when it has to wait, so that it does not keep a much larger buffer.
const LITTLE: usize = 16 * 1024;
/// A piece of at least this length is taken for one of many, which may as well pass unseen.
const BULK: usize = 32 * 1024;
/// How much passes unseen until others have their turn.
const TURN: usize = 2 * 1024 * 1024;
/// What is kept from one piece to the next for their framing.
const FRAMING: usize = 64;

/// Whoever takes a message.
pub(super) trait Taker {
    /// What is wrong with content that is longer than was said.
    const TOO_LONG: Error;
    /// What is wrong with content that is shorter than was said.
    const TOO_SHORT: Error;

    /// There is no content at the moment. Ready if it is not waited for any longer.
    fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<Error>;

    /// It takes nothing at the moment. Ready if it is not waited for any longer. `begins` if it took something before.
    fn poll_stalled(&self, cx: &mut Context<'_>, begins: bool) -> Poll<Error>;

    /// It took something after it had taken nothing.
    fn moved(&self) {}

    /// It took all of a piece with so much content, after it had taken nothing, or at once.
    fn took(&self, _content: usize, _stalled: bool) {}

    /// It is gone.
    fn gone(&self, error: Error) -> Error {
        error
    }
}

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Sender {
    body: Body,
    framing: Outbound,
    /// Content that is still to come, if its length was said.
    left: u64,
    /// What goes before `data`, and how much of it went out.
    out: Vec<u8>,
    written: usize,
    data: Bytes,
    /// Content in place of `data`.
    piped: Option<Piped>,
    after: &'static [u8],
    /// Length of the content in this piece.
    content: usize,
    /// Whether the piece is to be written, and not to be added to.
    ready: bool,
    /// Whether nothing comes after it.
    last: bool,
    stalled: bool,
    /// Whether the last piece was a large one.
    bulk: bool,
}

impl Sender {
    /// `out`, which has a head at its end, and then content.
    pub(super) fn new(out: Vec<u8>, framing: Outbound, body: Body) -> Self {
        let left = if let Outbound::Length(length) = framing { length } else { u64::MAX };
        let bare = framing == Outbound::None;
        Sender {
            body,
            framing,
            left,
            out,
            written: 0,
            data: Bytes::new(),
            piped: None,
            after: b"",
            content: 0,
            ready: bare,
            last: bare,
            stalled: false,
            bulk: false,
        }
    }

    /// `out`, and no content.
    pub(super) fn bare(out: Vec<u8>) -> Self {
        Self::new(out, Outbound::None, Body::empty())
    }

    /// How the content is delimited.
    pub(super) fn framing(&self) -> Outbound {
        self.framing
    }

    /// Sends what is there, whether content has come or not.
    pub(super) fn flush(&mut self) {
        self.ready = true;
    }

    /// Ready when what was flushed has been sent.
    pub(super) fn poll_flushed<T: Taker>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &Conn,
        taker: &T,
    ) -> Poll<Result<(), Error>> {
        if self.ready {
            ready!(self.poll_write(cx, conn, taker))?;
            self.ready = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when everything has been sent.
    pub(super) fn poll<T: Taker>(&mut self, cx: &mut Context<'_>, conn: &Conn, taker: &T) -> Poll<Result<(), Error>> {
        let mut turn = TURN;
        loop {
            ready!(self.poll_flushed(cx, conn, taker))?;
            if self.last {
                return Poll::Ready(Ok(()));
            }
            if let Some(piped) = self.poll_piped::<T>(cx, conn) {
                match piped {
                    Poll::Ready(length) => turn = turn.saturating_sub(length?),
                    Poll::Pending => return taker.poll_idle(cx).map(Err),
                }
                if turn == 0 {
                    cx.waker().wake_by_ref();
                    return taker.poll_idle(cx).map(Err);
                }
                continue;
            }
            // Content that is there already goes out together with the head; what is not must not hold the head up.
            self.ready = match lending(|| Pin::new(&mut self.body).poll_frame(cx)) {
                Poll::Pending if self.out.is_empty() => return taker.poll_idle(cx).map(Err),
                Poll::Pending => true,
                Poll::Ready(None) => self.end::<T>(None)?,
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) => self.piece::<T>(data)?,
                    Err(frame) => self.end::<T>(frame.into_trailers().ok().as_ref())?,
                },
            };
        }
    }

    /// Makes content that nobody sees the next piece, if there is much of it and it goes from socket to socket as it is. Ready
    /// with its length.
    fn poll_piped<T: Taker>(&mut self, cx: &mut Context<'_>, conn: &Conn) -> Option<Poll<Result<usize, Error>>> {
        if !self.bulk || !matches!(self.framing, Outbound::Length(_)) || !self.out.is_empty() || !conn.takes_pipes() {
            return None;
        }
        let mut piped = Piped::take()?;
        let polled = self.body.poll_piped(cx, &mut piped)?;
        Some(polled.map(|length| {
            let length = length?;
            self.left = self.left.checked_sub(length as u64).ok_or(T::TOO_LONG)?;
            self.content = length;
            self.bulk = length >= BULK;
            self.piped = Some(piped);
            self.ready = true;
            Ok(length)
        }))
    }

    /// Makes content the next piece. Whether there is anything to write.
    fn piece<T: Taker>(&mut self, data: Bytes) -> Result<bool, Error> {
        if data.is_empty() {
            return Ok(false);
        }
        self.left = self.left.checked_sub(data.len() as u64).ok_or(T::TOO_LONG)?;
        self.content = data.len();
        self.bulk = data.len() >= BULK;
        if data.len() <= COPIED {
            self.out.reserve(data.len() + FRAMING);
        }
        if self.framing == Outbound::Chunked {
            encode::chunk_size(&mut self.out, data.len());
            self.last = self.body.is_end_stream();
            self.after = if self.last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
        }
        if data.len() <= COPIED {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(std::mem::take(&mut self.after));
        } else {
            self.data = data;
        }
        Ok(true)
    }

    /// Makes the end the next piece.
    fn end<T: Taker>(&mut self, trailers: Option<&http::HeaderMap>) -> Result<bool, Error> {
        match self.framing {
            // RFC 9112 7.1.2: trailers exist in chunked content only; elsewhere they may be dropped.
            Outbound::Chunked => encode::last_chunk(&mut self.out, trailers),
            Outbound::Length(_) if self.left > 0 => return Err(T::TOO_SHORT),
            _ => {}
        }
        self.last = true;
        Ok(true)
    }

    /// Writes the piece, as one call where the kernel takes it.
    fn poll_write<T: Taker>(&mut self, cx: &mut Context<'_>, conn: &Conn, taker: &T) -> Poll<Result<(), Error>> {
        loop {
            let all = [&self.out[self.written..], &self.data, self.after];
            let mut parts = [IoSlice::new(&[]); 3];
            let mut count = 0;
            for part in all.into_iter().filter(|part| !part.is_empty()) {
                parts[count] = IoSlice::new(part);
                count += 1;
            }
            // TLS may hold back what it took, and then it is not with the kernel.
            let written = match &mut self.piped {
                _ if count > 0 => conn.poll_write(cx, &parts[..count]),
                Some(piped) if !piped.is_empty() => conn.poll_write_piped(cx, piped),
                _ => conn.poll_drain(cx),
            };
            match written {
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(Ok(written)) => {
                    if count > 0 {
                        self.wrote(written);
                    }
                    if self.stalled {
                        taker.moved();
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(taker.gone(error))),
                Poll::Pending => {
                    let begins = !std::mem::replace(&mut self.stalled, true);
                    if self.data.is_empty() {
                        self.data = Bytes::new();
                    } else if begins && self.data.len() <= LITTLE {
                        self.data = Bytes::copy_from_slice(&self.data);
                    }
                    return taker.poll_stalled(cx, begins).map(Err);
                }
            }
        }
        taker.took(std::mem::take(&mut self.content), std::mem::take(&mut self.stalled));
        self.data = Bytes::new();
        self.piped = None;
        self.written = 0;
        self.out.clear();
        if self.out.capacity() > FRAMING {
            self.out = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, mut written: usize) {
        let out = written.min(self.out.len() - self.written);
        self.written += out;
        written -= out;
        let data = written.min(self.data.len());
        self.data.advance(data);
        self.after = &self.after[written - data..];
    }
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
