//! Watches over what is known of endpoints: lets those in again whose time is over, has them compared with each other, and
//! tells of each change, with one line in the log, and an event where there is a cluster.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::resilience::{Census, Moment, Registry, State, Transition};
use crate::snapshot::duration;
use crate::status::{Notice, Object};
use crate::telemetry::{Metrics, Standing};
use crate::translate::Key;

/// How late a change may come, and be told.
const INTERVAL: Duration = Duration::from_millis(100);
/// Notices that wait to become events.
pub(super) const MAX_NOTICES: usize = 1024;

/// Watches, for ever.
pub(super) async fn run(registry: Registry, metrics: Metrics, told: mpsc::Sender<Notice>) -> Infallible {
    let asked = registry.clone();
    metrics.ask_standing(move || asked.census().into_iter().map(standing).collect());
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = clock::now();
        registry.sweep(now);
        let untold = registry.untold();
        for transition in &untold.transitions {
            log(transition, now);
            if let Some(notice) = notice(transition) {
                // Too many, or nobody takes them: the log has them all.
                let _ = told.try_send(notice);
            }
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

/// What an event says of it.
fn notice(transition: &Transition) -> Option<Notice> {
    let Transition { cluster, endpoint, change } = transition;
    let key = |text: &str| text.split_once('/').map(|(namespace, name)| Key::new(namespace, name));
    let object = match cluster.as_str().strip_prefix("upstream ") {
        Some(upstream) => Object::Upstream(key(upstream)?),
        None => Object::Service(key(cluster.as_str().rsplit_once(':')?.0)?),
    };
    let reason = match change.to {
        State::Healthy => "EndpointHealthy",
        State::Unhealthy => "EndpointUnhealthy",
        State::Admitted => "EndpointAdmitted",
        State::Ejected => "EndpointEjected",
        State::Closed => "CircuitClosed",
        State::Open => "CircuitOpen",
        State::HalfOpen => "CircuitHalfOpen",
        State::ForcedOpen => "CircuitForcedOpen",
        State::Disabled => "CircuitDisabled",
        State::MetricsOnly => "CircuitMetricsOnly",
    };
    let who = endpoint.map_or_else(|| cluster.to_string(), |endpoint| format!("{endpoint} of {cluster}"));
    let mut note = format!("{who} is {} now, no longer {}: {}", change.to, change.from, change.why);
    if !change.detail.is_empty() {
        note += &format!(", {}", change.detail);
    }
    Some(Notice { object, reason, warning: change.to.is_bad(), note, lasting: false })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::resilience::{Change, Why};
    use crate::snapshot::ClusterName;

    #[test]
    fn a_notice_names_the_object_and_what_happened() {
        let change = Change {
            from: State::Admitted,
            to: State::Ejected,
            why: Why::Failures,
            detail: "5 in a row".to_owned(),
            at: Moment::default(),
            until: None,
        };
        let endpoint = Some(([127, 0, 0, 1], 80).into());
        let of = |cluster| {
            notice(&Transition { cluster: ClusterName::new(cluster), endpoint, change: change.clone() }).unwrap()
        };
        let told = of("shop/llm:80");
        assert_eq!(told.object, Object::Service(Key::new("shop", "llm")));
        assert_eq!((told.reason, told.warning), ("EndpointEjected", true));
        assert_eq!(told.note, "127.0.0.1:80 of shop/llm:80 is ejected now, no longer admitted: failures, 5 in a row");
        assert_eq!(of("upstream shop/legacy").object, Object::Upstream(Key::new("shop", "legacy")));
    }
}
