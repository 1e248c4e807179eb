//! An HTTP/1 connection, whichever side we are: the socket, what was read ahead, and how far the content of the current
//! message has been read. One thread owns it all.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunked::Malformed;
use super::head::{Framing, HeadScan};
use super::held_up::HeldUp;
use super::inbound::{Inbound, give_away, lend};
use crate::proxy::error::Error;
use crate::proxy::io::{Io, poll_read_into, poll_read_room};
use crate::proxy::lent::{LENT, with_lent, with_scratch};
use crate::proxy::pipes::Piped;

/// Read at once when a head is expected.
pub(super) const HEAD_READ: usize = 4 * 1024;
/// Read at once when content is expected.
const BODY_READ: usize = 32 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// What is owed to a client that waits for it: its bytes, and that none of them is held back.
const OWED: usize = CONTINUE.len() + 1;

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) io: RefCell<Io>,
    pub(super) buffer: RefCell<BytesMut>,
    inbound: RefCell<Inbound>,
    /// What is left of [`OWED`].
    owed: Cell<usize>,
    /// Whoever waits for the client to leave.
    watcher: RefCell<Option<Waker>>,
    /// Whether whoever reads the content waits for more of it, and so would notice that the client left.
    awaited: Cell<bool>,
    /// The look at a client while nobody takes its content.
    held_up: RefCell<Option<Box<HeldUp>>>,
    /// How much content is read at once.
    room: Cell<usize>,
}

impl Conn {
    pub(super) fn new(io: Io) -> Self {
        Conn {
            io: RefCell::new(io),
            buffer: RefCell::new(BytesMut::new()),
            inbound: RefCell::new(Inbound::Done),
            owed: Cell::new(0),
            watcher: RefCell::new(None),
            awaited: Cell::new(false),
            held_up: RefCell::new(None),
            room: Cell::new(HEAD_READ),
        }
    }

    /// A message began; its content is what follows.
    pub(super) fn expect(&self, framing: Framing, expects_continue: bool) {
        self.inbound.replace(Inbound::all(framing));
        // RFC 9110 10.1.1: "A server MAY omit sending a 100 (Continue) response if it has already received some or all of the
        // content for the corresponding request".
        let waits = expects_continue && !self.content_read() && self.buffer.borrow().is_empty();
        self.owed.set(if waits { OWED } else { 0 });
    }

    /// Whether all content of the current message was read.
    pub(super) fn content_read(&self) -> bool {
        matches!(*self.inbound.borrow(), Inbound::Done)
    }

    /// The answer's head goes out: a 100 (Continue) must not follow it.
    pub(super) fn answer_begins(&self) {
        if self.owed.get() == OWED {
            self.owed.set(0);
        }
    }

    /// Ready when the client has left: the end of its stream is taken for its leaving. Until the request's content has been
    /// read, whoever reads the content notices, unless the endpoint takes none for a while.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>, read_ahead: usize) -> Poll<()> {
        if !self.content_read() {
            self.watcher.replace(Some(cx.waker().clone()));
            if matches!(*self.inbound.borrow(), Inbound::Broken | Inbound::Reset) {
                return Poll::Ready(());
            }
            if self.awaited.get() {
                return Poll::Pending;
            }
            ready!(self.poll_left_unread(cx));
            self.give_up_content();
            return Poll::Ready(());
        }
        let mut buffer = self.buffer.borrow_mut();
        while buffer.len() < read_ahead {
            if !matches!(ready!(self.poll_more(cx, &mut buffer, HEAD_READ)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
        drop(buffer);
        self.poll_left_unread(cx)
    }

    /// Ready when the client has left behind bytes that nobody reads.
    fn poll_left_unread(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.held_up.borrow_mut().get_or_insert_default().poll_left(cx, &self.io.borrow())
    }

    /// Writes what the kernel takes of `parts`; ready with the number of bytes that went out, at least one.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<Result<usize, Error>> {
        let mut io = self.io.borrow_mut();
        let io = Pin::new(&mut *io);
        let written = match parts {
            [one] => io.poll_write(cx, one),
            parts => io.poll_write_vectored(cx, parts),
        };
        match ready!(written) {
            Ok(0) | Err(_) => Poll::Ready(Err(Error::ClientGone)),
            Ok(written) => Poll::Ready(Ok(written)),
        }
    }

    /// Whether what is in a pipe can go out here.
    pub(super) fn takes_pipes(&self) -> bool {
        self.io.borrow().takes_pipes()
    }

    /// Has some of what is in `piped` go out: ready with the length of that, at least 1.
    pub(super) fn poll_write_piped(&self, cx: &mut Context<'_>, piped: &mut Piped) -> Poll<Result<usize, Error>> {
        match ready!(self.io.borrow_mut().poll_empty(cx, piped)) {
            Ok(0) | Err(_) => Poll::Ready(Err(Error::ClientGone)),
            Ok(written) => Poll::Ready(Ok(written)),
        }
    }

    /// Has what was written and is held back go out: ready with the length of some of it, 0 if there is none.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        self.io.borrow_mut().poll_drain(cx).map_err(|_| Error::ClientGone)
    }

    /// Ready when nothing that was written is held back.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while ready!(self.poll_drain(cx))? > 0 {}
        Poll::Ready(Ok(()))
    }

    /// Reads more into `buffer`, which holds no memory while there is nothing to read. 0 is the end.
    fn poll_more(&self, cx: &mut Context<'_>, buffer: &mut BytesMut, room: usize) -> Poll<io::Result<usize>> {
        let mut io = self.io.borrow_mut();
        let read = match io.poll_readable(cx) {
            Poll::Ready(Ok(())) => poll_read_into(&mut io, cx, buffer, room),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        if buffer.is_empty() && read.is_pending() {
            *buffer = BytesMut::new();
        }
        read
    }

    /// What `read` makes of the next head, of at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::ClientGone`] if the peer left first; otherwise what is wrong with the head.
    pub(super) fn poll_head<T>(
        &self,
        cx: &mut Context<'_>,
        scan: &mut HeadScan,
        limit: usize,
        read: impl Fn(&[u8]) -> T,
    ) -> Poll<Result<T, Error>> {
        let mut buffer = self.buffer.borrow_mut();
        loop {
            if !buffer.is_empty()
                && let Some(head) = scan.find_within(&buffer, limit)?
            {
                let end = head.end;
                let head = read(&buffer[head]);
                if end == buffer.len() {
                    *buffer = BytesMut::new();
                } else {
                    buffer.advance(end);
                }
                return Poll::Ready(Ok(head));
            }
            if !buffer.is_empty() {
                if !matches!(ready!(self.poll_more(cx, &mut buffer, HEAD_READ)), Ok(1..)) {
                    return Poll::Ready(Err(Error::ClientGone));
                }
                continue;
            }
            // Most heads come at once, and are read where they pass by. Only what is left over is kept.
            let passed = with_scratch(|scratch| {
                let mut read_now = ReadBuf::new(&mut scratch[..HEAD_READ]);
                let mut io = self.io.borrow_mut();
                if ready!(Pin::new(&mut *io).poll_read(cx, &mut read_now)).is_err() || read_now.filled().is_empty() {
                    return Poll::Ready(Err(Error::ClientGone));
                }
                let bytes = read_now.filled();
                let head = scan.find_within(bytes, limit)?;
                let end = head.as_ref().map_or(0, |head| head.end);
                if end < bytes.len() {
                    *buffer = BytesMut::from(&bytes[end..]);
                }
                Poll::Ready(Ok(head.map(|head| read(&bytes[head]))))
            });
            return match ready!(passed)? {
                Some(head) => Poll::Ready(Ok(head)),
                None => continue,
            };
        }
    }

    /// How much content there still is.
    pub(super) fn content_hint(&self) -> SizeHint {
        self.inbound.borrow().hint()
    }

    /// The next piece of content, or the trailers.
    pub(super) fn poll_content(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let next = self.poll_next_content(cx);
        self.asked(next.is_pending());
        next
    }

    /// The next content, which goes into `piped`: `None` if it cannot, or if so little is left that the end is near, which is
    /// `poll_content`'s to see.
    pub(super) fn poll_piped(&self, cx: &mut Context<'_>, piped: &mut Piped) -> Option<Poll<Result<usize, Error>>> {
        let Inbound::Length(missing) = *self.inbound.borrow() else { return None };
        let most = usize::try_from(missing).unwrap_or(usize::MAX).checked_sub(LENT)?;
        if most == 0 || self.owed.get() > 0 || !self.buffer.borrow().is_empty() {
            return None;
        }
        let polled = self.io.borrow_mut().poll_fill(cx, piped, most)?;
        self.asked(polled.is_pending());
        Some(polled.map(|read| match read {
            Ok(read @ 1..) => {
                self.inbound.replace(Inbound::Length(missing - read as u64));
                Ok(read)
            }
            read => Err(self.ended(read.is_err()).unwrap_or(Error::BodyIncomplete)),
        }))
    }

    /// Somebody asked for content, and waits for it if there was none.
    fn asked(&self, waits: bool) {
        self.awaited.set(waits);
        if let Some(held_up) = &mut *self.held_up.borrow_mut() {
            held_up.moves_on();
        }
    }

    fn poll_next_content(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        while self.owed.get() > 0 {
            let unsent = &CONTINUE[OWED - self.owed.get()..];
            let written = match unsent {
                [] => ready!(self.poll_flush(cx)).map(|()| 1),
                unsent => ready!(self.poll_write(cx, &[IoSlice::new(unsent)])),
            };
            match written {
                Ok(written) => self.owed.set(self.owed.get() - written),
                Err(error) => return Poll::Ready(Some(Err(self.broken(error)))),
            }
        }
        match *self.inbound.borrow() {
            Inbound::Done => return Poll::Ready(None),
            Inbound::Broken => return Poll::Ready(Some(Err(Error::BodyIncomplete))),
            Inbound::Reset => return Poll::Ready(Some(Err(Error::ClientGone))),
            _ => {}
        }
        let room = self.io.borrow().room();
        with_lent(room, |lent| self.poll_lent(cx, lent, room.min(LENT))).unwrap_or_else(|| self.poll_owned(cx, room))
    }

    /// Content in memory of its own, for who may keep it.
    fn poll_owned(&self, cx: &mut Context<'_>, room: usize) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            let mut buffer = self.buffer.borrow_mut();
            let next = self.inbound.borrow_mut().next(&mut buffer, give_away);
            if let Poll::Ready(next) = self.passed(next, &mut buffer) {
                return Poll::Ready(next);
            }
            let read = ready!(self.poll_more(cx, &mut buffer, self.room.get()));
            if let Ok(read @ 1..) = read {
                // A peer that fills what it is given gets more at once; one that sends events gets by with little.
                self.room.set(if read >= self.room.get() { BODY_READ.min(room) } else { HEAD_READ });
            } else {
                return Poll::Ready(self.ended(read.is_err()).map(Err));
            }
        }
    }

    /// Content in memory of the worker, behind what was read ahead. What cannot be understood yet is kept.
    fn poll_lent(
        &self,
        cx: &mut Context<'_>,
        lent: &mut BytesMut,
        room: usize,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            let mut buffer = self.buffer.borrow_mut();
            let worth = self.inbound.borrow().worth(room);
            let ahead = buffer.len().min(worth);
            lent.clear();
            lent.extend_from_slice(&buffer[..ahead]);
            buffer.advance(ahead);
            // What is there already is not waited with, but gets what has come since.
            let read = match ahead < worth {
                true => poll_read_room(&mut self.io.borrow_mut(), cx, &mut lent.limit(worth - ahead)),
                false => Poll::Pending,
            };
            let next = self.inbound.borrow_mut().next(lent, lend);
            if buffer.is_empty() {
                *buffer = BytesMut::from(&lent[..]);
            } else if !lent.is_empty() {
                *buffer = [&lent[..], &buffer].concat()[..].into();
            }
            if let Poll::Ready(next) = self.passed(next, &mut buffer) {
                if matches!(read, Poll::Ready(Err(_))) && !self.content_read() {
                    // The kernel tells this once.
                    self.inbound.replace(Inbound::Reset);
                    self.wake_watcher();
                }
                return Poll::Ready(next);
            }
            let read = ready!(read);
            if !matches!(read, Ok(1..)) {
                return Poll::Ready(self.ended(read.is_err()).map(Err));
            }
        }
    }

    /// What goes on of what was made of bytes; nothing as long as more are needed.
    fn passed(
        &self,
        next: Result<Option<Frame<Bytes>>, Malformed>,
        buffer: &mut BytesMut,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match next {
            Err(Malformed) => Poll::Ready(Some(Err(self.broken(Error::BadRequest("chunk"))))),
            Ok(frame) if self.content_read() => {
                if buffer.is_empty() {
                    *buffer = BytesMut::new();
                }
                self.wake_watcher();
                Poll::Ready(frame.map(Ok))
            }
            Ok(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            Ok(None) => Poll::Pending,
        }
    }

    /// Nothing more comes. What is wrong with that, if anything is.
    fn ended(&self, failed: bool) -> Option<Error> {
        if failed {
            return Some(self.broken(Error::ClientGone));
        }
        if matches!(*self.inbound.borrow(), Inbound::UntilClose) {
            self.inbound.replace(Inbound::Done);
            return None;
        }
        Some(self.broken(Error::BodyIncomplete))
    }

    /// Nobody waits for the rest of the content any more: an endpoint that still reads it must not keep the connection open,
    /// nor take what comes later for content.
    pub(super) fn give_up_content(&self) {
        if !self.content_read() {
            self.broken(Error::ClientGone);
        }
    }

    /// Takes the connection out of the hands of an endpoint that still reads the request's content.
    pub(super) fn hang_up(&self) {
        self.give_up_content();
        self.io.borrow().end_reading();
    }

    fn broken(&self, error: Error) -> Error {
        self.inbound.replace(Inbound::Broken);
        self.wake_watcher();
        error
    }

    fn wake_watcher(&self) {
        if let Some(waker) = self.watcher.take() {
            waker.wake();
        }
    }
}
