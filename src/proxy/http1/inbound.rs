//! How far the content of a message has been read, and what bytes that were read are of it. Where they come from is `conn`'s.

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::chunked::{Chunked, Decoded, Malformed, Then};
use super::head::Framing;
use crate::proxy::lent::PIECE;

/// What is still to come of a message.
#[derive(Debug)]
pub(super) enum Inbound {
    /// Nothing.
    Done,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    /// It broke off, which was told.
    Broken,
    /// The peer reset the connection, which is still to be told.
    Reset,
}

impl Inbound {
    /// All content of a message.
    pub(super) fn all(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Inbound::Done,
            Framing::Length(length) => Inbound::Length(length),
            Framing::Chunked => Inbound::Chunked(Chunked::default()),
            Framing::UntilClose => Inbound::UntilClose,
        }
    }

    pub(super) fn hint(&self) -> SizeHint {
        match *self {
            Inbound::Done => SizeHint::with_exact(0),
            Inbound::Length(missing) => SizeHint::with_exact(missing),
            Inbound::Chunked(_) | Inbound::UntilClose | Inbound::Broken | Inbound::Reset => SizeHint::default(),
        }
    }

    /// How many bytes are worth having at once, of at most `room`: all, if that ends it, and one more. A read that is filled
    /// leaves the runtime in the belief that there is something to read, and a connection of which that is believed is not
    /// used again.
    pub(super) fn worth(&self, room: usize) -> usize {
        match *self {
            Inbound::Length(missing) if missing <= room as u64 => missing as usize + 1,
            _ => room.min(PIECE),
        }
    }

    /// The next content in `bytes`, which `split` takes from their front, or the trailers. `None` if there is nothing before
    /// more bytes come; or nothing at all, if it is done.
    pub(super) fn next(
        &mut self,
        bytes: &mut BytesMut,
        split: fn(&mut BytesMut, usize) -> Bytes,
    ) -> Result<Option<Frame<Bytes>>, Malformed> {
        match self {
            Inbound::Length(_) | Inbound::UntilClose if bytes.is_empty() => Ok(None),
            Inbound::Done | Inbound::Broken | Inbound::Reset => Ok(None),
            Inbound::UntilClose => Ok(Some(Frame::data(split(bytes, bytes.len())))),
            Inbound::Length(missing) => {
                let length = usize::try_from(*missing).unwrap_or(usize::MAX).min(bytes.len());
                *missing -= length as u64;
                if *missing == 0 {
                    *self = Inbound::Done;
                }
                Ok(Some(Frame::data(split(bytes, length))))
            }
            Inbound::Chunked(chunks) => {
                let Decoded { content, used, then } = chunks.decode(bytes)?;
                bytes.advance(content.start);
                let framing = used - content.end;
                let data = (!content.is_empty()).then(|| Frame::data(split(bytes, content.len())));
                // Bytes that were all content have been given away.
                if framing > 0 {
                    bytes.advance(framing);
                }
                if then != Then::More {
                    *self = Inbound::Done;
                }
                Ok(match then {
                    Then::Trailers(fields) => Some(Frame::trailers(fields)),
                    Then::More | Then::End => data,
                })
            }
        }
    }
}

/// Takes the first `length` bytes. All of them at once need no shared buffer.
pub(super) fn give_away(bytes: &mut BytesMut, length: usize) -> Bytes {
    if length == bytes.len() { std::mem::take(bytes).freeze() } else { bytes.split_to(length).freeze() }
}

/// Takes the first `length` bytes of a buffer that is used again once nobody has any of them.
pub(super) fn lend(bytes: &mut BytesMut, length: usize) -> Bytes {
    bytes.split_to(length).freeze()
}
