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
        if self.0.wait_for(|phase| *phase != Phase::Serving).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the deadline of the drain has passed, also if a second signal brings it forward.
    pub async fn expired(&mut self) {
        loop {
            self.begun().await;
            let Phase::Draining { deadline } = *self.0.borrow_and_update() else { continue };
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return,
                changed = self.0.changed() => {
                    if changed.is_err() {
                        tokio::time::sleep_until(deadline).await;
                        return;
                    }
                }
            }
        }
    }
}
