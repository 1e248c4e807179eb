//! Says that something in a folder may have changed, by the events of the file system. Events are a courtesy: they may
//! be late, doubled or missing.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// A watch on a folder.
pub(super) struct Watch {
    dir: PathBuf,
    changed: Arc<Notify>,
    /// The watcher, and which folder it is on: a path may come to mean another.
    watcher: Option<(RecommendedWatcher, (u64, u64))>,
    failed: bool,
}

impl Watch {
    pub(super) fn new(dir: PathBuf) -> Self {
        Watch { dir, changed: Arc::default(), watcher: None, failed: false }
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Sees to it that the watch is on what the path means now.
    pub(super) fn renew(&mut self) {
        let Ok(metadata) = std::fs::metadata(&self.dir) else {
            self.watcher = None;
            return;
        };
        let identity = (metadata.dev(), metadata.ino());
        if self.watcher.as_ref().is_some_and(|(_, watched)| *watched == identity) {
            return;
        }
        self.watcher = None;
        match self.start() {
            Ok(watcher) => {
                self.watcher = Some((watcher, identity));
                self.failed = false;
            }
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::warn!(dir = %self.dir.display(), %error, "cannot watch the folder; looking every two seconds");
            }
            Err(_) => {}
        }
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let changed = Arc::clone(&self.changed);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading must not look like a change.
            let read_only = event.is_ok_and(|event| match event.kind {
                EventKind::Access(kind) => kind != AccessKind::Close(AccessMode::Write),
                _ => false,
            });
            if !read_only {
                changed.notify_one();
            }
        })?;
        watcher.watch(&self.dir, RecursiveMode::Recursive)?;
        Ok(watcher)
    }
}
