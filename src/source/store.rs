//! The objects read so far, and the tick that says that some changed.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::translate::Resources;

/// Shared by the watches that fill it and the loop that translates it. Level-triggered: the tick says that something
/// changed, never what.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    resources: Mutex<Resources>,
    changed: Notify,
    ticks: watch::Sender<()>,
}

impl Store {
    /// Changes the resources; ticks if `change` returns true.
    pub fn update(&self, change: impl FnOnce(&mut Resources) -> bool) {
        let changed = change(&mut self.0.resources.lock().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.0.changed.notify_one();
            self.0.ticks.send_replace(());
        }
    }

    /// Reads the resources. Changes wait meanwhile.
    pub fn read<T>(&self, read: impl FnOnce(&Resources) -> T) -> T {
        read(&self.0.resources.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a tick; any number of ticks since the last wait count as one. For one waiter.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Hears of ticks from now on, for further waiters.
    pub fn ticks(&self) -> watch::Receiver<()> {
        self.0.ticks.subscribe()
    }
}
