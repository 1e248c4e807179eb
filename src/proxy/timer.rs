//! Lazy timers: whoever waits says by when, and the timer is moved only when it fires too early or would fire too late. A
//! stream that moves a thousand times a second stores when it last moved and costs the timer nothing.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer, reused for whatever its owner waits for next.
#[derive(Debug, Default)]
pub(super) struct Timer(RefCell<Option<Pin<Box<Sleep>>>>);

impl Timer {
    /// Ready once `deadline` has passed; until then the task is woken at it at the latest.
    pub(super) fn poll_at(&self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let mut slot = self.0.borrow_mut();
        let sleep = slot.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn fires_at_the_deadline_it_was_last_asked_for() {
        let timer = Timer::default();
        let start = Instant::now();
        for (asked, seconds) in [(10, 10), (70, 70), (75, 75)] {
            let deadline = start + Duration::from_secs(asked);
            poll_fn(|cx| timer.poll_at(cx, deadline)).await;
            assert_eq!(start.elapsed(), Duration::from_secs(seconds));
        }
        let late = start + Duration::from_secs(1000);
        poll_fn(|cx| {
            assert!(timer.poll_at(cx, late).is_pending());
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| timer.poll_at(cx, start + Duration::from_secs(80))).await;
        assert_eq!(start.elapsed(), Duration::from_secs(80), "an earlier deadline moves the timer");
    }
}
