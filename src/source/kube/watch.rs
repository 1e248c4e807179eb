//! One watch: list, watch, and on any failure list again with a growing, jittered pause. Meanwhile the last good objects
//! stay in the store.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::Api;
use kube::runtime::watcher::{self, Config, watcher};
use tokio::time::Instant;

use super::item::Item;
use super::kinds::Kind;
use super::report::Report;
use super::table::{Outcome, Table};

/// After this time the API server ends a watch, which is normal. It is also how long (and five seconds more) a silent
/// connection stays unnoticed.
pub(super) const WATCH_SECONDS: u32 = 60;
/// Objects per page of a list: what is held of a page is its JSON text and everything it says, managed fields included.
const PAGE: u32 = 100;

/// Watches until dropped.
pub(super) async fn run<K: Kind>(api: Api<Item<K>>, mut table: Table<K>, report: Report) {
    let mut pause = Pause::default();
    let mut config = Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    config.label_selector = K::LABELS.map(str::to_owned);
    config.field_selector = K::FIELDS.map(str::to_owned);
    loop {
        // Not resumed where it broke: only a new list shows that the source is back, and a list that changes nothing
        // costs no translation.
        let mut events = pin!(watcher(api.clone(), config.clone()));
        let mut listed = None;
        let error = loop {
            match events.next().await {
                Some(Ok(event)) => {
                    match table.handle(event) {
                        Outcome::Applied => {}
                        Outcome::Skipped(key, malformed) => report.skipped(&key, &malformed),
                        Outcome::Listed => {
                            listed = Some(Instant::now());
                            report.listed();
                        }
                    }
                    // After the effect: nobody waits for a metric.
                    report.heard();
                }
                Some(Err(error)) => break error,
                None => break watcher::Error::NoResourceVersion,
            }
        };
        report.failed(&error);
        if listed.is_some_and(|since| since.elapsed() > Pause::LONGEST) {
            pause = Pause::default();
        }
        tokio::time::sleep(pause.next(fastrand::f64())).await;
    }
}

/// The pause before the next attempt: doubles from a fifth of a second to ten seconds, of which a random half is waited,
/// so that many replicas do not come back at once.
#[derive(Debug, Default)]
pub(super) struct Pause {
    attempts: u32,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(10);

    /// The next pause; `chance` is from 0 to 1.
    pub(super) fn next(&mut self, chance: f64) -> Duration {
        let whole = Pause::FIRST.saturating_mul(1 << self.attempts.min(10)).min(Pause::LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pause = Pause::default();
        let pauses: Vec<u128> = (0..8).map(|_| pause.next(1.0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(Pause::default().next(0.0), Duration::from_millis(100));
    }
}
