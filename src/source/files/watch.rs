//! Says that something in a folder may have changed, and how far writers have come with files, by the events of the file
//! system. Events are a courtesy: they may be late, doubled or missing.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// The most paths that are remembered; beyond, all are forgotten, and everything is looked at.
const MAX_PATHS: usize = 10_000;

/// How far a writer has come with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Content was written, and more may follow.
    Begun,
    /// It was closed, or renamed to where it is.
    Done,
}

/// What events said since the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Paths within the folder that something happened to, and of files that were written to how far their writer has come.
    pub(super) paths: HashMap<PathBuf, Option<Step>>,
    /// Whether something else may have happened.
    pub(super) more: bool,
}

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
    seen: Mutex<Seen>,
}

impl Watch {
    pub(super) fn new(dir: PathBuf) -> Self {
        Watch { dir, events: Arc::default(), watcher: None, failed: false }
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&self) {
        self.events.changed.notified().await;
    }

    /// What has happened. It is told once, except for writers who have not come to an end: ask before files are looked at,
    /// so that whatever happens afterwards is seen by the next look.
    pub(super) fn seen(&self) -> Seen {
        let mut seen = self.events.seen();
        let told = seen.clone();
        seen.more = false;
        seen.paths.retain(|_, step| *step == Some(Step::Begun));
        told
    }

    /// Sees to it that the watch is on what the path means now.
    pub(super) fn renew(&mut self) {
        let Ok(metadata) = std::fs::metadata(&self.dir) else {
            self.watcher = None;
            self.events.seen().more = true;
            return;
        };
        let identity = (metadata.dev(), metadata.ino());
        if self.watcher.as_ref().is_some_and(|(_, watched)| *watched == identity) {
            return;
        }
        self.watcher = None;
        self.events.seen().more = true;
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
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, root: &Path, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) if !event.need_rescan() => {
                let step = match event.kind {
                    EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Step::Done),
                    // Our own reading must not look like a change.
                    EventKind::Access(_) => return,
                    EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Step::Done),
                    EventKind::Modify(ModifyKind::Data(_)) => Some(Step::Begun),
                    _ => None,
                };
                // A name that changed or went, in whatever way: what was known was of another file.
                let forgets = matches!(
                    event.kind,
                    EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From | RenameMode::Any))
                );
                for path in event.paths {
                    self.note(root, &path, step, forgets);
                }
            }
            Ok(_) | Err(_) => *self.seen() = Seen { more: true, ..Seen::default() },
        }
        self.changed.notify_one();
    }

    fn note(&self, root: &Path, path: &Path, step: Option<Step>, forgets: bool) {
        let mut seen = self.seen();
        match path.strip_prefix(root) {
            Ok(path) if seen.paths.len() < MAX_PATHS => {
                let known = seen.paths.entry(path.to_owned()).or_insert(step);
                if step.is_some() || forgets {
                    *known = step;
                }
            }
            _ => *seen = Seen { more: true, ..Seen::default() },
        }
    }
}
