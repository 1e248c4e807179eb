//! How much of its weight an endpoint has that is eased in.

use super::super::Moment;
use crate::snapshot::SlowStart;

/// The part of its weight of an endpoint that has been there since `since`: Envoy's
/// `max(min_percent, (time / window) ^ (1 / aggression))`.
pub fn part(settings: &SlowStart, since: Moment, now: Moment) -> f64 {
    let passed = now - since;
    if passed >= settings.window {
        return 1.0;
    }
    let even = passed.as_secs_f64() / settings.window.as_secs_f64();
    let grown = match settings.aggression_percent {
        100 => even,
        percent => even.powf(100.0 / f64::from(percent.max(1))),
    };
    grown.max(f64::from(settings.min_percent) / 100.0).min(1.0)
}
