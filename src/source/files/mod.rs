//! Objects from a folder of YAML, reloaded as it changes. A file counts as a whole: while something in it is wrong, its
//! last good version is served, and so it is while a file is being written. `objects` reads a text, `pair` certificates and
//! keys, `folder` reads the disk, `load` joins them, `union` is what all files together say, `watch` says when and where.

mod folder;
mod load;
mod objects;
mod pair;
mod union;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::{Store, burst};
use load::Loader;
use watch::Watch;

pub use folder::{MAX_BYTES, read_bounded, yaml_files};
pub use load::{Load, Report, Severity};
pub use objects::{Found, Object, Parsed, Sound, parse};
pub use pair::{Pair, extension, pairs};

/// How often all of the folder is compared although no event came: some file systems send none.
const POLL: Duration = Duration::from_secs(2);

/// Keeps the store as the folder `dir` says, for ever. `synced` hears once the folder has been read for the first time;
/// `told` hears of each load that changed something or found something wrong.
pub async fn run(dir: PathBuf, store: Store, synced: oneshot::Sender<()>, mut told: impl FnMut(&Load)) {
    let mut synced = Some(synced);
    let mut loader = Loader::new(dir.clone());
    let mut watch = Watch::new(dir);
    let mut timed = false;
    loop {
        // A look before the read: what changes while it is read is seen by the next.
        watch.renew();
        let (mut seen, began) = (watch.seen(), Instant::now());
        seen.more |= timed;
        let read = tokio::task::spawn_blocking(move || {
            let load = loader.load(&seen, began);
            (loader, load)
        });
        let Ok((back, load)) = read.await else {
            // Only when the runtime is going away, or by a bug of ours; the last good table stays.
            tracing::error!("reading the folder of objects panicked; it is not read any more");
            return;
        };
        loader = back;
        for report in &load.reports {
            report.log();
        }
        store.update(|resources| loader.apply(resources));
        told(&load);
        if load.complete
            && let Some(synced) = synced.take()
        {
            let _ = synced.send(());
        }
        let cost = began.elapsed();
        timed = tokio::select! {
            () = watch.changed() => {
                burst::over(cost, || watch.changed()).await;
                false
            }
            () = sleep(load.again.unwrap_or(POLL).min(POLL)) => true,
        };
    }
}

#[cfg(test)]
mod tests;
