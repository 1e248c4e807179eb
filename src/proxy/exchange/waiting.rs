//! Waiting under the clocks of an exchange: whoever waits for anything asks here what is due meanwhile.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::{Due, Exchange};
use crate::proxy::clocks::{Bounds, sooner};
use crate::proxy::error::Error;

impl Exchange {
    pub(super) fn bounds(&self) -> Bounds {
        let defaults = &self.worker.settings.defaults;
        match self.forward() {
            Some(forward) => Bounds::from(&*forward.timeouts),
            None => Bounds::without_route(defaults.idle, defaults.stall),
        }
    }

    /// Ready with the clock that ran out first; looks at clocks, moves no timer while the stream moves.
    pub(in crate::proxy) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let bounds = self.bounds();
        let mut next = self.clocks.next(bounds);
        if let Some(stream) = self.stream() {
            stream.carried_by(cx.waker());
            if let Some(cut) = stream.cut_at() {
                next = sooner(next, cut);
            }
        }
        let look_after = self.clocks.look_after(bounds);
        let Some(look_after) = look_after else { return self.downstream.timer.poll_at(cx, next.0).map(|()| next.1) };
        if self.downstream.timer.poll_at(cx, next.0.min(self.last_moved() + look_after)).is_pending() {
            return Poll::Pending;
        }
        let again = Instant::now() + look_after;
        self.downstream.timer.poll_at(cx, next.0.min(again)).map(|()| next.1)
    }

    /// For whoever carries a stream and can end it politely: ready with what is due first, of the clocks, the time at which
    /// it is asked to end, and `beat`, a time of the caller's own.
    pub(in crate::proxy) fn poll_due(&self, cx: &mut Context<'_>, beat: Option<Instant>) -> Poll<Due> {
        match self.poll_expired(cx) {
            Poll::Ready(error) => Poll::Ready(Due::Expired(error)),
            Poll::Pending => self.poll_asked(cx, beat),
        }
    }

    /// The same without the clocks, for carriers whose own carrier looks at those. Nothing has to be done for a stream that
    /// is not to end and does not beat.
    pub(in crate::proxy) fn poll_asked(&self, cx: &mut Context<'_>, beat: Option<Instant>) -> Poll<Due> {
        if let Some(stream) = self.stream()
            && let Some(at) = stream.tell_at()
            && self.downstream.timer.poll_at(cx, at).is_ready()
            && let Some(why) = stream.tell()
        {
            return Poll::Ready(Due::Leave(why));
        }
        match beat {
            Some(beat) => self.downstream.timer.poll_at(cx, beat).map(|()| Due::Beat),
            None => Poll::Pending,
        }
    }

    /// Runs `work` unless a clock runs out first.
    ///
    /// # Errors
    /// The clock that ran out.
    pub(in crate::proxy) fn within<T>(
        &self,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> impl Future<Output = Result<T, Error>> {
        std::future::poll_fn(move |cx| match work.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => self.poll_expired(cx).map(Err),
        })
    }
}
