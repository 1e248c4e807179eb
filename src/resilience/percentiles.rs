//! How long answers take to come: the time within which so many percent of the latest ones were there. What is concluded from that
//! is others' business.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// Answers that are told by which others have been slow.
const ENOUGH: u32 = 100;
/// Answers after which those before the last so many are forgotten.
const GENERATION: u32 = 500;
/// The finest difference, in microseconds.
const UNIT: u64 = 16;
/// Steps from a time to twice that: no step is longer than an eighth of the time.
const STEPS: usize = 8;
/// Times from here on are one: a little more than two minutes.
const MOST: u64 = (1 << 23) - 1;
const SLOTS: usize = slot(MOST) + 1;

/// The times that the last 500 to 1000 answers took to come, in steps. For all threads, without a lock: those that come while a
/// generation ends may be lost.
#[derive(Debug)]
pub struct Percentiles {
    generations: [Generation; 2],
    /// Which of them grows.
    grows: AtomicUsize,
}

#[derive(Debug)]
struct Generation {
    answers: AtomicU32,
    slots: [AtomicU32; SLOTS],
}

impl Default for Percentiles {
    fn default() -> Self {
        Percentiles { generations: Default::default(), grows: AtomicUsize::new(0) }
    }
}

impl Default for Generation {
    fn default() -> Self {
        Generation { answers: AtomicU32::new(0), slots: [const { AtomicU32::new(0) }; SLOTS] }
    }
}

impl Percentiles {
    /// An answer took so long to come, or at least so long.
    pub fn observe(&self, took: Duration) {
        let units = took.as_micros() / u128::from(UNIT);
        let grows = self.grows.load(Ordering::Relaxed);
        let Generation { answers, slots } = &self.generations[grows];
        slots[slot(u64::try_from(units).map_or(MOST, |units| units.min(MOST)))].fetch_add(1, Ordering::Relaxed);
        // One of the threads that come finds it full.
        if answers.fetch_add(1, Ordering::Relaxed) + 1 == GENERATION {
            let oldest = &self.generations[1 - grows];
            oldest.answers.store(0, Ordering::Relaxed);
            oldest.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
            self.grows.store(1 - grows, Ordering::Relaxed);
        }
    }

    /// The time within which so many percent of the answers were there, or up to an eighth more; `None` if too few are known.
    pub fn within(&self, percent: u32) -> Option<Duration> {
        let [one, other] = &self.generations;
        let answers = one.answers.load(Ordering::Relaxed) + other.answers.load(Ordering::Relaxed);
        if answers < ENOUGH {
            return None;
        }
        let may_be_later = u64::from(answers) * u64::from(100_u32.saturating_sub(percent)) / 100;
        let mut later = 0;
        let slots = one.slots.iter().zip(&other.slots).enumerate().rev();
        for (number, (one, other)) in slots {
            later += u64::from(one.load(Ordering::Relaxed)) + u64::from(other.load(Ordering::Relaxed));
            if later > may_be_later {
                return Some(end(number));
            }
        }
        None
    }
}

/// The slot of a time in units: the first eight have one each, and so has each eighth of what lies between two powers of two above.
const fn slot(units: u64) -> usize {
    if units < STEPS as u64 {
        return units as usize;
    }
    let doublings = units.ilog2() - STEPS.ilog2();
    (doublings as usize + 1) * STEPS + (units >> doublings) as usize % STEPS
}

/// The time that none in a slot reaches.
fn end(slot: usize) -> Duration {
    let units = match slot / STEPS {
        0 => slot as u64 + 1,
        doublings => ((STEPS + slot % STEPS + 1) as u64) << (doublings - 1),
    };
    Duration::from_micros(units * UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_follow_each_other_without_a_gap() {
        let mut from = 0;
        for number in 0..SLOTS {
            let end = (end(number).as_micros() / u128::from(UNIT)) as u64;
            assert_eq!((slot(from), slot(end - 1)), (number, number), "{from}..{end}");
            assert!(end - from <= (from / STEPS as u64).max(1), "{from}..{end}");
            from = end;
        }
        assert_eq!(from, MOST + 1);
    }

    proptest! {
        /// Of answers that are all remembered, at least so many percent came within the time that is told, and not so many within
        /// what is more than an eighth, and a unit, below it.
        #[test]
        fn so_many_percent_are_there_and_hardly_more(
            micros in prop::collection::vec(0_u64..100_000_000, ENOUGH as usize..2 * GENERATION as usize),
            percent in 50_u32..100,
        ) {
            let known = Percentiles::default();
            micros.iter().for_each(|micros| known.observe(Duration::from_micros(*micros)));
            let told = known.within(percent).map_or(0, |told| told.as_micros() as u64);
            let percent_within = |bound: u64| micros.iter().filter(|micros| **micros < bound).count() * 100;
            let wanted = percent as usize * micros.len();
            prop_assert!(percent_within(told) >= wanted, "{told}");
            prop_assert!(percent_within((told - told / 9).saturating_sub(UNIT)) < wanted, "{told}");
        }
    }

    #[test]
    fn nothing_is_concluded_from_few_answers() {
        let known = Percentiles::default();
        for _ in 1..ENOUGH {
            known.observe(Duration::from_millis(1));
            assert_eq!(known.within(50), None);
        }
        known.observe(Duration::from_millis(1));
        assert!(known.within(50).is_some());
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let (fast, slow) = (Duration::from_millis(1), Duration::from_secs(1000));
        let known = Percentiles::default();
        (0..10 * GENERATION).for_each(|_| known.observe(slow));
        assert!(known.within(99).is_some_and(|told| told > Duration::from_secs(100)), "{:?}", known.within(99));
        (0..2 * GENERATION).for_each(|_| known.observe(fast));
        assert!(known.within(99).is_some_and(|told| told < 2 * fast), "{:?}", known.within(99));
        // One in twenty is more than one percent at once, and never more than five.
        for answer in 0..2 * GENERATION {
            known.observe(if answer % 20 == 19 { slow } else { fast });
        }
        assert!(known.within(96).is_some_and(|told| told > fast * 1000));
        assert!(known.within(95).is_some_and(|told| told < 2 * fast));
    }

    #[test]
    fn threads_share_what_they_know() {
        let known = Percentiles::default();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let known = &known;
                scope.spawn(move || (0..10_000).for_each(|_| known.observe(Duration::from_millis(thread))));
            }
        });
        let told = known.within(99);
        assert!(told.is_some_and(|told| (1000..=4500).contains(&told.as_micros())), "{told:?}");
    }
}
