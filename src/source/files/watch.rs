//! Says that something in a folder may have changed, and how far writers have come with files, by the events of the file
//! system. Events are a courtesy: they may be late, doubled or missing.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::folder;

/// The most files whose writers are remembered; beyond, all are forgotten.
const MAX_STEPS: usize = 10_000;

/// How far a writer has come with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Content was written, and more may follow.
    Begun,
    /// It was closed, or renamed to where it is.
    Done,
}

/// Of files that were written to, by their path within the folder.
pub(super) type Steps = HashMap<PathBuf, Step>;

/// A watch on a folder.
pub(super) struct Watch {
    dir: PathBuf,
    events: Arc<Events>,
    /// The watcher, and which folder it is on: a path may come to mean another.
    watcher: Option<(RecommendedWatcher, (u64, u64))>,
    failed: bool,
}

/// What the thread that takes events leaves behind.
#[derive(Default)]
struct Events {
    changed: Notify,
    steps: Mutex<Steps>,
}

impl Watch {
    pub(super) fn new(dir: PathBuf) -> Self {
        Watch { dir, events: Arc::default(), watcher: None, failed: false }
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&self) {
        self.events.changed.notified().await;
    }

    /// What is known of writers. Who has come to an end is told once: ask before the files are read, so that whatever
    /// is written afterwards is seen by the next look.
    pub(super) fn steps(&self) -> Steps {
        let mut steps = self.events.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let known = steps.clone();
        steps.retain(|_, step| *step == Step::Begun);
        known
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
        let events = Arc::clone(&self.events);
        // Events name whole paths.
        let root = std::path::absolute(&self.dir)?;
        let mut watcher = notify::recommended_watcher(move |event| events.take(&root, event))?;
        watcher.watch(&self.dir, RecursiveMode::Recursive)?;
        Ok(watcher)
    }
}

impl Events {
    fn take(&self, root: &Path, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.steps.lock().unwrap_or_else(PoisonError::into_inner).clear(),
            Ok(event) => {
                let step = match event.kind {
                    EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Step::Done),
                    // Our own reading must not look like a change.
                    EventKind::Access(_) => return,
                    EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Step::Done),
                    EventKind::Modify(ModifyKind::Data(_)) => Some(Step::Begun),
                    _ => None,
                };
                // Names that changed, in whatever way, and files that went: what was known was of others.
                let forgets = matches!(
                    event.kind,
                    EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::Any))
                );
                if step.is_some() || forgets {
                    self.note(root, &event.paths, step);
                }
            }
            Err(_) => {}
        }
        self.changed.notify_one();
    }

    fn note(&self, root: &Path, paths: &[PathBuf], step: Option<Step>) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        for path in paths.iter().filter_map(|path| path.strip_prefix(root).ok()).filter(|path| folder::is_listed(path))
        {
            match step {
                Some(step) => {
                    if steps.len() >= MAX_STEPS {
                        steps.clear();
                    }
                    steps.insert(path.to_owned(), step);
                }
                None => drop(steps.remove(path)),
            }
        }
    }
}
