//! Drain: one trigger, many watchers. A watcher learns that draining began and that its deadline passed.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining { deadline: Instant },
}

/// Starts the drain. Held by `app`.
#[derive(Debug)]
pub struct DrainTrigger(watch::Sender<Phase>);

/// Learns of the drain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DrainWatcher(watch::Receiver<Phase>);

/// A trigger and its first watcher.
pub fn channel() -> (DrainTrigger, DrainWatcher) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (DrainTrigger(sender), DrainWatcher(receiver))
}

impl DrainTrigger {
    /// Begins the drain: what still runs after `grace` is cut. A second call can only shorten the time.
    pub fn begin(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.0.send_if_modified(|phase| match *phase {
            Phase::Draining { deadline: earlier } if earlier <= deadline => false,
            _ => {
                *phase = Phase::Draining { deadline };
                true
            }
        });
    }
}

impl DrainWatcher {
    /// Whether the drain has begun.
    pub fn draining(&self) -> bool {
        matches!(*self.0.borrow(), Phase::Draining { .. })
    }

    /// Waits until the drain begins. A trigger that was dropped never begins one.
    pub async fn begun(&mut self) {
        self.deadline().await;
    }

    /// Waits until the drain begins; returns its deadline.
    pub async fn deadline(&mut self) -> Instant {
        self.deadline_before(None).await
    }

    /// Waits until a further signal brings the deadline forward; returns the new one.
    pub async fn shortened(&mut self, deadline: Instant) -> Instant {
        self.deadline_before(Some(deadline)).await
    }

    async fn deadline_before(&mut self, known: Option<Instant>) -> Instant {
        let mut found = None;
        let news = self.0.wait_for(|phase| match *phase {
            Phase::Draining { deadline } if known.is_none_or(|known| deadline < known) => {
                found = Some(deadline);
                true
            }
            _ => false,
        });
        let ended = news.await.is_err();
        match found {
            Some(deadline) if !ended => deadline,
            _ => std::future::pending().await,
        }
    }

    /// Waits until the deadline of the drain has passed, also if a second signal brings it forward.
    pub async fn expired(&mut self) {
        let mut deadline = self.deadline().await;
        loop {
            deadline = tokio::select! {
                () = tokio::time::sleep_until(deadline) => return,
                sooner = self.shortened(deadline) => sooner,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    /// Lets the other tasks run until none of them can go on, without letting time pass.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_watcher_learns_of_the_beginning_and_of_the_end() {
        let (trigger, watcher) = channel();
        let mut early = watcher.clone();
        let waiting = tokio::spawn(async move { early.begun().await });
        settle().await;
        assert!(!watcher.draining() && !waiting.is_finished());
        let start = Instant::now();
        trigger.begin(GRACE);
        settle().await;
        assert!(watcher.draining() && waiting.is_finished());
        // One that is cloned later learns it, too.
        let mut late = watcher.clone();
        late.begun().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        late.expired().await;
        assert_eq!(start.elapsed(), GRACE);
        late.expired().await;
        assert_eq!(start.elapsed(), GRACE, "stays over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_brings_the_end_forward_and_never_puts_it_off() {
        for (second, expected) in [(Duration::from_secs(5), 15), (Duration::from_secs(300), 30), (Duration::ZERO, 10)] {
            let (trigger, mut watcher) = channel();
            let start = Instant::now();
            trigger.begin(GRACE);
            let expired = tokio::spawn(async move { watcher.expired().await });
            tokio::time::sleep(Duration::from_secs(10)).await;
            trigger.begin(second);
            assert!(expired.await.is_ok());
            assert_eq!(start.elapsed(), Duration::from_secs(expected), "{second:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_trigger_ends_no_drain_and_begins_none() {
        let (trigger, mut watcher) = channel();
        let start = Instant::now();
        trigger.begin(GRACE);
        drop(trigger);
        watcher.expired().await;
        assert_eq!(start.elapsed(), GRACE);

        let (trigger, mut watcher) = channel();
        drop(trigger);
        let begun = tokio::time::timeout(Duration::from_secs(3600), watcher.expired()).await;
        assert!(begun.is_err() && !watcher.draining());
    }
}
