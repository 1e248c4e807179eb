//! One writer, many readers, one swap. A snapshot equal to the one in force is not published.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Cache};
use tokio::sync::watch;

use super::Snapshot;

/// The writing end. Held by the control plane.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwapOption<Snapshot>>,
    told: watch::Sender<()>,
}

/// The reading end. Each worker has its own; reading costs one atomic load when nothing changed.
#[derive(Clone, Debug)]
pub struct Reader {
    current: Cache<Arc<ArcSwapOption<Snapshot>>, Option<Arc<Snapshot>>>,
    told: watch::Receiver<()>,
}

/// A publisher that has not published yet, and a reader of it.
pub fn channel() -> (Publisher, Reader) {
    let shared = Arc::new(ArcSwapOption::empty());
    let (told, changes) = watch::channel(());
    (Publisher { current: Arc::clone(&shared), told }, Reader { current: Cache::new(shared), told: changes })
}

impl Publisher {
    /// Makes `snapshot` the one in force for every request that begins from now on. Returns whether it differed from
    /// the last one; an equal snapshot changes nothing.
    pub fn publish(&self, snapshot: Snapshot) -> bool {
        let differs = self.current.load().as_deref() != Some(&snapshot);
        if differs {
            self.current.store(Some(Arc::new(snapshot)));
            self.told.send_replace(());
        }
        differs
    }

    /// The snapshot in force, if one was published.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }
}

impl Reader {
    /// The snapshot in force, if one was published.
    pub fn current(&mut self) -> Option<&Arc<Snapshot>> {
        self.current.load().as_ref()
    }

    /// Waits until another snapshot is in force than the one that was waited for last. A publisher that is gone publishes
    /// none.
    pub async fn changed(&mut self) {
        if self.told.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
