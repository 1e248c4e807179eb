//! A token bucket with one owner, for what one stream sends: the rule of [`super::buckets`] without anybody to share it with.

use std::time::Duration;

use super::Rate;
use crate::resilience::Moment;

/// A bucket, which is full at first.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    rate: Rate,
    /// When it is full.
    full: u64,
}

impl Pace {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        Pace { rate, full: 0 }
    }

    /// Whole tokens that are there.
    pub fn room(&self, now: Moment) -> u64 {
        self.rate.left(self.full, now.nanos()).tokens
    }

    /// Takes tokens, whether they are there or not; what is missing has to come before there are any again.
    pub fn take(&mut self, tokens: u64, now: Moment) {
        self.full = self.full.max(now.nanos()).saturating_add(self.rate.token.saturating_mul(tokens));
    }

    /// How long it takes until so many are there, or as many as ever are.
    pub fn wait(&self, tokens: u64, now: Moment) -> Duration {
        let wanted = self.rate.token.saturating_mul(tokens).min(self.rate.depth);
        let missing = self.full.saturating_sub(now.nanos());
        Duration::from_nanos(missing.saturating_add(wanted).saturating_sub(self.rate.depth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn tokens_are_taken_owed_and_waited_for() {
        let now = Moment::from_nanos(3_600_000_000_000);
        let mut pace = Pace::new(Rate::new(10, SECOND, 5));
        assert_eq!((pace.room(now), pace.wait(5, now), pace.wait(6, now)), (5, Duration::ZERO, Duration::ZERO));
        pace.take(5, now);
        assert_eq!((pace.room(now), pace.wait(1, now), pace.wait(99, now)), (0, SECOND / 10, SECOND / 2));
        pace.take(10, now);
        assert_eq!((pace.room(now), pace.wait(1, now)), (0, SECOND * 11 / 10), "ten are owed");
        assert_eq!(pace.room(now + SECOND), 0);
        assert_eq!(pace.room(now + SECOND * 11 / 10), 1);
        assert_eq!(pace.room(now + 9 * SECOND), 5, "never more than fit");
        pace.take(u64::MAX, now);
        assert_eq!(pace.room(now + SECOND), 0);
    }
}
