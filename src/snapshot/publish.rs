//! One writer, many readers, one swap. A snapshot equal to the one in force is not published.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Cache};

use super::Snapshot;

/// The writing end. Held by the control plane.
#[derive(Debug)]
pub struct Publisher(Arc<ArcSwapOption<Snapshot>>);

/// The reading end. Each worker has its own; reading costs one atomic load when nothing changed.
#[derive(Clone, Debug)]
pub struct Reader(Cache<Arc<ArcSwapOption<Snapshot>>, Option<Arc<Snapshot>>>);

/// A publisher that has not published yet, and a reader of it.
pub fn channel() -> (Publisher, Reader) {
    let shared = Arc::new(ArcSwapOption::empty());
    (Publisher(Arc::clone(&shared)), Reader(Cache::new(shared)))
}

impl Publisher {
    /// Makes `snapshot` the one in force for every request that begins from now on. Returns whether it differed from
    /// the last one; an equal snapshot changes nothing.
    pub fn publish(&self, snapshot: Snapshot) -> bool {
        let differs = self.0.load().as_deref() != Some(&snapshot);
        if differs {
            self.0.store(Some(Arc::new(snapshot)));
        }
        differs
    }

    /// The snapshot in force, if one was published.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.0.load_full()
    }
}

impl Reader {
    /// The snapshot in force, if one was published.
    pub fn current(&mut self) -> Option<&Arc<Snapshot>> {
        self.0.load().as_ref()
    }
}
