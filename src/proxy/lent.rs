//! Memory of a worker for what passes through its hands: read, looked at and written on at once, so that a connection needs none
//! while it waits.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;

/// How much passes through a worker's hands at once. A write of this size, with what frames it, becomes one packet of those that
/// Linux cuts only on their way out (64 KiB with their heads); a few bytes more, and it becomes two, of which the
/// second costs about as much as the first.
pub(super) const PIECE: usize = 65_472;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into_boxed_slice());
}

/// Uses the worker's scratch buffer, which holds nothing between uses.
pub(super) fn with_scratch<T>(use_scratch: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH_BUFFER.with_borrow_mut(|scratch| use_scratch(scratch))
}

/// The size of a buffer that is lent: a little more than a piece, because 64 KiB are a length that answers like to have.
pub(super) const LENT: usize = 64 * 1024;
/// Buffers that a worker keeps for lending. One is enough while what is written is taken at once.
const KEPT: usize = 4;

/// Buffers of a worker for content that passes at once. All content goes through the same few, so that they stay in the
/// processor's cache and cost the allocator nothing.
#[derive(Debug, Default)]
struct Lender {
    lends: Cell<bool>,
    kept: RefCell<Vec<BytesMut>>,
}

thread_local! {
    static LENDER: Lender = Lender::default();
}

/// Polls content that is written at once, and may be read into a buffer of the worker therefore. Whoever keeps some of it for
/// longer keeps that buffer from the worker, which takes another one meanwhile, and so should copy it if it is little.
pub(super) fn lending<T>(poll: impl FnOnce() -> T) -> T {
    LENDER.with(|lender| {
        let before = lender.lends.replace(true);
        let polled = poll();
        lender.lends.set(before);
        polled
    })
}

/// Fills a buffer of the worker with room for `room` bytes and one more, or [`LENT`]. `None` if content
/// shall have memory of its own.
pub(super) fn with_lent<T>(room: usize, fill: impl FnOnce(&mut BytesMut) -> T) -> Option<T> {
    LENDER.with(|lender| {
        if !lender.lends.get() {
            return None;
        }
        let room = room.min(LENT) + 1;
        let mut kept = lender.kept.borrow_mut();
        let at = match kept.iter_mut().position(|buffer| buffer.try_reclaim(room)) {
            Some(at) => at,
            None => {
                // Whoever has a part of the one that goes keeps that alone.
                kept.truncate(KEPT - 1);
                kept.push(BytesMut::with_capacity(room));
                kept.len() - 1
            }
        };
        let filled = fill(&mut kept[at]);
        kept[at].clear();
        Some(filled)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    /// A piece of so many bytes, read as content is.
    fn piece(byte: u8, length: usize) -> Option<Bytes> {
        with_lent(LENT, |buffer| {
            buffer.extend_from_slice(&vec![byte; length]);
            buffer.split().freeze()
        })
    }

    #[test]
    fn what_is_taken_at_once_passes_through_one_buffer() {
        assert!(piece(0, 1).is_none(), "nobody lends");
        let place = |length| lending(|| piece(1, length)).map(|piece| (piece.len(), piece.as_ptr().addr()));
        let first = place(LENT);
        for length in [1, LENT, 100] {
            assert_eq!(place(length), first.map(|(_, address)| (length, address)));
        }
        assert!(piece(0, 1).is_none(), "nobody lends any more");
    }

    /// Readers that stand still with what they have do not keep others from being lent a buffer, and the worker keeps no more
    /// buffers than it needs.
    #[test]
    fn who_keeps_a_piece_keeps_nobody_elses() {
        let kept: Vec<_> = (0..20).filter_map(|byte| lending(|| piece(byte, LENT))).collect();
        assert_eq!(kept.len(), 20);
        LENDER.with(|lender| assert!(lender.kept.borrow().len() <= KEPT));
        drop(lending(|| piece(99, LENT)));
        for (byte, piece) in (0..).zip(&kept) {
            assert!(piece.iter().all(|other| *other == byte), "piece {byte} was written over");
        }
    }
}
