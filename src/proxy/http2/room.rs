//! Room in an endpoint's windows, which the contents of all requests on its connection share: RFC 9113 5.2.1, "flow control
//! operates at two levels: on each individual stream and on the entire connection". An endpoint that leaves one of them unread
//! can hold up all others, and only its own clock ends that one.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::stream::{Piece, Watch};
use crate::proxy::clocks::Flow;

/// How long content may wait for room, and none on the connection moves, until the connection gets no more streams.
const HELD_UP: Duration = Duration::from_secs(1);

/// What waits for room on one connection.
#[derive(Debug)]
pub(super) struct Room {
    waiting: Cell<usize>,
    /// When something got room, or was the first to wait for it.
    moved: Cell<Instant>,
}

impl Room {
    /// Nothing waits yet.
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Room { waiting: Cell::new(0), moved: Cell::new(Instant::now()) })
    }

    /// Whether new streams would probably wait, too.
    pub(super) fn is_held_up(&self) -> bool {
        self.waiting.get() > 0 && self.moved.get().elapsed() >= HELD_UP
    }
}

/// The content of one stream, which waits for room or does not.
#[derive(Debug)]
pub(super) struct Waiter {
    room: Rc<Room>,
    waits: Cell<bool>,
}

impl Waiter {
    /// Content that does not wait yet.
    pub(super) fn new(room: &Rc<Room>) -> Self {
        Waiter { room: Rc::clone(room), waits: Cell::new(false) }
    }

    fn stop(&self) {
        if self.waits.replace(false) {
            self.room.waiting.set(self.room.waiting.get() - 1);
        }
    }
}

impl Watch for Waiter {
    fn waits(&self, flow: Flow) {
        let room = &self.room;
        if flow == Flow::Sink && !self.waits.replace(true) && room.waiting.replace(room.waiting.get() + 1) == 0 {
            room.moved.set(Instant::now());
        }
    }

    fn moves(&self) {
        if self.waits.get() {
            self.stop();
            self.room.moved.set(Instant::now());
        }
    }

    fn piece(&self, bytes: Bytes) -> Piece {
        Piece::new(bytes, None)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.stop();
    }
}
