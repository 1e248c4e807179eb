//! Requests to end: the first begins the drain, the second cuts what is left.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Failure;

/// Each message is one request to end.
pub(super) type Signals = mpsc::Receiver<()>;

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
        }
    });
    Ok(receiver)
}
