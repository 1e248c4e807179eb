//! Watches over what is known of endpoints: lets those in again whose time is over, has them compared with each other, and
//! tells of each change, with one line in the log.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::resilience::{Census, Moment, Registry, Transition};
use crate::snapshot::duration;
use crate::telemetry::{Metrics, Standing};

/// How late a change may come, and be told.
const INTERVAL: Duration = Duration::from_millis(100);

/// Watches, for ever.
pub(super) async fn run(registry: Registry, metrics: Metrics) -> Infallible {
    let asked = registry.clone();
    metrics.ask_standing(move || asked.census().into_iter().map(standing).collect());
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Moment::from(Instant::now().into_std());
        registry.sweep(now);
        let untold = registry.untold();
        for transition in &untold.transitions {
            log(transition, now);
        }
        if untold.lost > 0 {
            tracing::warn!(lost = untold.lost, "more endpoints changed than can be told");
        }
    }
}

fn standing(census: Census) -> Standing {
    let Census { cluster, endpoints, changes } = census;
    Standing {
        upstream: cluster.to_string(),
        endpoints: endpoints.to_vec(),
        changes: changes.into_iter().map(|(to, why, count)| (to.word(), why.word(), count)).collect(),
    }
}

fn log(transition: &Transition, now: Moment) {
    let Transition { cluster, endpoint, change } = transition;
    let endpoint = endpoint.map(tracing::field::display);
    let lasts = change.until.map(|until| duration::format(until - now));
    let detail = Some(change.detail.as_str()).filter(|detail| !detail.is_empty());
    let (from, to, why) = (change.from.word(), change.to.word(), change.why.word());
    if change.to.is_bad() {
        tracing::warn!(%cluster, endpoint, from, to, why, detail, lasts, "upstream changed");
    } else {
        tracing::info!(%cluster, endpoint, from, to, why, detail, lasts, "upstream changed");
    }
}
