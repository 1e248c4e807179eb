//! Requests to end: the first begins the drain, the second cuts what is left, as with the programs of Kubernetes itself.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Failure;

/// Each message is one request to end.
pub(super) type Signals = mpsc::Receiver<()>;

/// Signals closer together than this are one request that came twice: a terminal sends Ctrl-C to everything that it runs, and
/// what started this process may pass it on, too. Nobody presses keys so fast.
const SAME: Duration = Duration::from_millis(100);

/// SIGTERM and SIGINT of this process. SIGHUP is taken and ignored, so that a closed terminal ends nothing.
pub(super) fn of_the_process() -> Result<Signals, Failure> {
    let register = |kind| signal(kind).map_err(|error| anyhow::Error::new(error).context("cannot listen for signals"));
    let mut terminate = register(SignalKind::terminate())?;
    let mut interrupt = register(SignalKind::interrupt())?;
    let mut hangup = register(SignalKind::hangup())?;
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => continue,
            }
            if sender.send(()).await.is_err() {
                return;
            }
            tokio::time::sleep(SAME).await;
            // Forgets what came meanwhile.
            let _ = (terminate.recv().now_or_never(), interrupt.recv().now_or_never());
        }
    });
    Ok(receiver)
}
