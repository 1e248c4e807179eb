//! When a burst of changes is over: the same for a folder that is read again and for objects that are translated again.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// Silence after which a burst is over.
const QUIET: Duration = Duration::from_millis(1);
/// Bounds of how long a burst may put off what follows it. Within them, that takes at most a fifth of the time.
const BURST: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(50));

/// Waits after a change until there are no more, or until it has lasted too long for what follows, which took `cost` the
/// last time. `changed` waits for a further change.
pub async fn over<F: Future<Output = ()>>(cost: Duration, changed: impl Fn() -> F) {
    let latest = Instant::now() + (4 * cost).clamp(BURST.0, BURST.1);
    while timeout_at(latest.min(Instant::now() + QUIET), changed()).await.is_ok() {
        if Instant::now() >= latest {
            break;
        }
    }
}
