//! Waits before something is tried again: they grow, and chance spreads them so that not everybody comes back at once. Chance
//! comes in as a number from 0 to 1.

use std::time::Duration;

use crate::snapshot::Backoff;

impl Backoff {
    /// The bound of a wait, the first of which has number 1.
    pub fn bound(&self, number: u32) -> Duration {
        let factor = f64::from(self.factor_percent) / 100.0;
        let grown = self.base.as_secs_f64() * factor.powf(f64::from(number.saturating_sub(1)));
        // What is too large for a duration is larger than the bound of all.
        Duration::try_from_secs_f64(grown).map_or(self.max, |grown| grown.min(self.max))
    }

    /// A wait between nothing and its bound ("full jitter" of the AWS Architecture Blog, "Exponential Backoff And Jitter").
    pub fn wait(&self, number: u32, chance: f64) -> Duration {
        self.bound(number).mul_f64(chance.clamp(0.0, 1.0))
    }
}

/// A time that differs from `time` by up to so many percent.
pub fn around(time: Duration, percent: u32, chance: f64) -> Duration {
    let spread = f64::from(percent) / 100.0;
    time.mul_f64((1.0 + spread * (2.0 * chance.clamp(0.0, 1.0) - 1.0)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn backoff(base: u64, factor_percent: u32, max: u64) -> Backoff {
        Backoff { base: Duration::from_millis(base), factor_percent, max: Duration::from_millis(max) }
    }

    /// Resilience4j, `IntervalFunctionTest`.
    #[test]
    fn exponential_waits_rise_strictly() {
        let backoff = backoff(100, 150, u64::MAX / 1_000_000);
        for number in 1..50 {
            assert!(backoff.bound(number) < backoff.bound(number + 1), "{number}");
        }
        assert_eq!(backoff.bound(1), Duration::from_millis(100));
        assert_eq!(backoff.bound(3), Duration::from_millis(225));
    }

    /// Resilience4j, `IntervalFunctionTest`: 100 ms, doubled, at most 100 s.
    #[test]
    fn capped_waits_reach_the_cap_and_stay_there() {
        let backoff = backoff(100, 200, 100_000);
        assert_eq!(backoff.bound(10), Duration::from_millis(51_200));
        for number in [12, 13, 1000, u32::MAX] {
            assert_eq!(backoff.bound(number), Duration::from_secs(100), "{number}");
        }
    }

    /// Resilience4j, `IntervalFunctionTest`: 100 ms, randomised by 0.5.
    #[test]
    fn times_stay_around_what_they_are_made_of() {
        for step in 0..=100 {
            let time = around(Duration::from_millis(100), 50, f64::from(step) / 100.0);
            assert!((50..=150).contains(&time.as_millis()), "{time:?}");
        }
        assert_eq!(around(Duration::from_millis(100), 50, 0.0), Duration::from_millis(50));
        assert_eq!(around(Duration::from_millis(100), 50, 1.0), Duration::from_millis(150));
    }

    #[test]
    fn chance_takes_from_a_wait_as_much_as_it_likes() {
        let backoff = backoff(100, 200, 1000);
        assert_eq!(backoff.wait(1, 0.0), Duration::ZERO);
        assert_eq!(backoff.wait(3, 0.5), Duration::from_millis(200));
        assert_eq!(backoff.wait(9, 1.0), Duration::from_secs(1));
    }
}
