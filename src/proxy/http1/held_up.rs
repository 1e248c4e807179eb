//! Content of a client that nobody takes, and whether the client is still there meanwhile.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::io::{Io, Lookout};
use crate::proxy::timer::Timer;

/// How long nobody takes content until its client is looked at.
const HELD_UP: Duration = Duration::from_millis(100);

/// Content that nobody takes at the moment, for example because the endpoint does not read.
#[derive(Debug, Default)]
pub(super) struct HeldUp {
    since: Option<Instant>,
    timer: Timer,
    lookout: Option<Lookout>,
}

impl HeldUp {
    /// Ready when the client has left. Looks for it only after a while, because most content moves on before.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>, io: &Io) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.lookout.is_none() {
            ready!(self.timer.poll_at(cx, since + HELD_UP));
            self.lookout = io.lookout().inspect_err(|error| tracing::debug!(%error, "cannot look out")).ok();
        }
        self.lookout.as_ref().map_or(Poll::Pending, |lookout| lookout.poll_left(cx))
    }

    /// Somebody takes it.
    pub(super) fn moves_on(&mut self) {
        self.since = None;
        self.lookout = None;
    }
}
