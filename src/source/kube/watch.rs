//! One watch: list, watch, and on any failure list again with a growing, jittered pause. Meanwhile the last good objects
//! stay in the store.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::Api;
use kube::runtime::watcher::{self, Config, watcher};
use tokio::time::Instant;

use super::item::Item;
use super::kinds::Kind;
use super::narrow::{Scope, Selection};
use super::report::{Next, Report};
use super::table::{Outcome, Table};

/// How lists and watches are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As one of a few: with the newest objects, in pages, and a watch of a minute, since that (and five seconds more) is how long a
    /// connection that died without a word stays unnoticed.
    OneOfFew,
    /// As one of thousands: with what the API server has in memory, which may be a moment behind and catches up, so that etcd is not asked
    /// at all. Such lists come whole. Watches last as long as client-go's do at least: pings notice a dead connection (`client`).
    OneOfMany,
}

impl Manner {
    /// Seconds after which the API server ends a watch, which is normal.
    pub(super) fn seconds(self) -> u32 {
        match self {
            Manner::OneOfFew => 60,
            Manner::OneOfMany => 290,
        }
    }

    fn config<K: Kind>(self, selection: &Selection) -> Config {
        let mut config = Config::default().timeout(self.seconds());
        config = match self {
            Manner::OneOfFew => config.page_size(PAGE),
            // With a limit, the request would not say that any version will do.
            Manner::OneOfMany => Config { page_size: None, ..config.any_semantic() },
        };
        config.field_selector = K::FIELDS.map(str::to_owned);
        config.label_selector = match (K::LABELS, selection) {
            (Some(always), Selection::Labels(now)) => Some(format!("{always},{now}")),
            (None, Selection::Labels(now)) => Some(now.clone()),
            (always, _) => always.map(str::to_owned),
        };
        config
    }

    /// How long it is waited, at most, after a failure.
    fn longest_pause(self) -> Duration {
        match self {
            Manner::OneOfFew => Pause::LONGEST,
            Manner::OneOfMany => 3 * Pause::LONGEST,
        }
    }
}

/// Objects per page of a list: what is held of a page is its JSON text and everything it says, managed fields included.
const PAGE: u32 = 100;
/// How long somebody who may not read what can be done without waits before asking again, where there are thousands like them.
const REFUSED: Duration = Duration::from_secs(300);

/// Watches until dropped.
pub(super) async fn run<K: Kind>(
    api: Api<Item<K>>,
    mut table: Table<K>,
    report: Report,
    mut scope: Scope,
    manner: Manner,
) {
    let mut pause = Pause::new(manner.longest_pause());
    loop {
        let asked = scope.asked::<K>().await;
        if asked.selection == Selection::Nothing {
            table.clear();
            report.unreadable(0);
            scope.complete::<K>(&asked);
            report.nothing_to_read();
            scope.another::<K>(&asked).await;
            continue;
        }
        let config = manner.config::<K>(&asked.selection);
        let listed = || scope.complete::<K>(&asked);
        tokio::select! {
            never = follow(&api, &config, &mut table, &report, (manner, &mut pause), listed) => match never {},
            // What is known stays until the new list is there, and what is not in that goes.
            () = scope.another::<K>(&asked) => {}
        }
    }
}

/// Lists and watches, for ever; tells whenever a list is complete.
async fn follow<K: Kind>(
    api: &Api<Item<K>>,
    config: &Config,
    table: &mut Table<K>,
    report: &Report,
    (manner, pause): (Manner, &mut Pause),
    complete: impl Fn(),
) -> Infallible {
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
                            complete();
                            report.listed();
                        }
                    }
                    // After the effect: nobody waits for a metric.
                    report.unreadable(table.unreadable());
                    report.heard();
                }
                Some(Err(error)) => break error,
                None => break watcher::Error::NoResourceVersion,
            }
        };
        let next = report.failed(&error);
        if listed.is_some_and(|since| since.elapsed() > Pause::LONGEST) {
            *pause = Pause::new(manner.longest_pause());
        }
        let wait = match (next, manner) {
            (Next::WithoutIt, Manner::OneOfMany) => REFUSED.mul_f64(0.5 + fastrand::f64()),
            _ => pause.next(fastrand::f64()),
        };
        tokio::time::sleep(wait).await;
    }
}

/// The pause before the next attempt: doubles from a fifth of a second to the longest, of which a random half is waited,
/// so that many do not come back at once.
#[derive(Debug)]
pub(super) struct Pause {
    attempts: u32,
    longest: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Pause::new(Pause::LONGEST)
    }
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(10);

    fn new(longest: Duration) -> Self {
        Pause { attempts: 0, longest }
    }

    /// The next pause; `chance` is from 0 to 1.
    pub(super) fn next(&mut self, chance: f64) -> Duration {
        let whole = Pause::FIRST.saturating_mul(1 << self.attempts.min(10)).min(self.longest);
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
        let mut patient = Pause::new(Manner::OneOfMany.longest_pause());
        assert_eq!((0..20).map(|_| patient.next(1.0)).max(), Some(Duration::from_secs(30)));
        assert_eq!(Pause::default().next(0.0), Duration::from_millis(100));
    }
}
