//! A moving average that rises at once and falls slowly, so that an endpoint that became slow is seen by the next request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Moment;

/// How long a sample counts: after so much time it has 1/e of its weight. Finagle's default for `PeakEwma`.
const DECAY: Duration = Duration::from_secs(10);
/// The same in the milliseconds that samples are stamped with.
const DECAY_MILLIS: f32 = DECAY.as_millis() as f32;

/// A peak-sensitive exponentially weighted moving average of durations, as in Finagle's `PeakEwma`: a sample above the
/// average replaces it, one below pulls it down by the time that has passed since the last.
///
/// Both facts are in one word, so that workers update it without a lock: microseconds (32 bits, up to 71 minutes) and the
/// millisecond of the last sample (32 bits, which come round after 49 days).
#[derive(Debug, Default)]
pub struct Ewma(AtomicU64);

impl Ewma {
    /// The average now; `None` before the first sample.
    pub fn value(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            word => Some(Duration::from_micros(word >> 32)),
        }
    }

    /// What is left of the average now if nothing came since the last sample, in microseconds: who was slow is asked again some
    /// time. `None` before the first sample.
    pub fn micros(&self, now: Moment) -> Option<f64> {
        let word = self.0.load(Ordering::Relaxed);
        (word != 0).then(|| f64::from((word >> 32) as u32) * kept(word as u32, stamp(now)))
    }

    /// Takes a sample.
    pub fn observe(&self, sample: Duration, now: Moment) {
        let sample = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX).max(1);
        let stamp = stamp(now);
        // Lost races are lost samples' weights; the loop ends because somebody wins each round.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (average, last) = ((word >> 32) as u32, word as u32);
            let next = if sample >= average {
                sample
            } else if stamp == last {
                // No time has passed: there is nothing to write, and no other worker to disturb.
                return None;
            } else {
                let kept = kept(last, stamp);
                (f64::from(average) * kept + f64::from(sample) * (1.0 - kept)).max(1.0) as u32
            };
            Some(u64::from(next) << 32 | u64::from(stamp))
        });
    }
}

/// The millisecond of a moment.
fn stamp(now: Moment) -> u32 {
    (now.nanos() / 1_000_000) as u32
}

/// The weight that what was known at `last` still has. Another worker may have looked at the clock a little later. Single
/// precision is enough, and takes less time.
fn kept(last: u32, now: u32) -> f64 {
    let passed = now.wrapping_sub(last).cast_signed().max(0);
    f64::from((passed as f32 * (-1.0 / DECAY_MILLIS)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    #[test]
    fn rises_at_once_and_falls_with_time() {
        let ewma = Ewma::default();
        assert_eq!(ewma.value(), None);
        ewma.observe(Duration::from_millis(10), at(0));
        ewma.observe(Duration::from_millis(100), at(1));
        assert_eq!(ewma.value(), Some(Duration::from_millis(100)), "a peak counts at once");
        ewma.observe(Duration::from_millis(10), at(1));
        assert_eq!(ewma.value(), Some(Duration::from_millis(100)), "no time has passed");
        ewma.observe(Duration::ZERO, at(10_001));
        let fallen = ewma.value().map(|value| value.as_micros());
        assert_eq!(fallen, Some(36_788), "after the decay 1/e is left");
    }
}
