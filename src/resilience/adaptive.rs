//! A limit that follows latency: more requests at once while answers begin as fast as ever, fewer once they queue. The
//! algorithm is `Gradient2Limit` of Netflix's concurrency-limits, with its constants.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Moment;
use crate::snapshot;

/// Answers that a window needs before it says anything.
const MIN_SAMPLES: u32 = 10;
/// Where a limit begins.
const INITIAL: f64 = 20.0;
/// Requests that may queue at the upstream: how fast the limit grows.
const QUEUE: f64 = 4.0;
/// How much of a change is made at a time.
const SMOOTHING: f64 = 0.2;
/// Windows over which latency is long-term.
const LONG_TERM: f64 = 600.0;
/// Windows of which the long-term latency is the mean, at first.
const WARM_UP: u32 = 10;

/// The estimate by itself: plain arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gradient {
    settings: snapshot::Adaptive,
    limit: f64,
    /// In seconds.
    long: f64,
    windows: u32,
}

impl Gradient {
    /// A first guess.
    pub(super) fn new(settings: snapshot::Adaptive) -> Self {
        let mut gradient = Gradient { settings, limit: INITIAL, long: 0.0, windows: 0 };
        gradient.limit = gradient.within(INITIAL);
        gradient
    }

    fn within(&self, limit: f64) -> f64 {
        limit.clamp(self.settings.min.into(), self.settings.max.max(self.settings.min).into())
    }

    /// How many requests there may be at once.
    pub(super) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Learns how long answers took to begin in a window, on average, and how many requests there were at most.
    pub(super) fn update(&mut self, latency: Duration, most: u32) {
        let short = latency.as_secs_f64().max(1e-6);
        self.windows = self.windows.saturating_add(1);
        self.long += match self.windows {
            windows @ ..=WARM_UP => (short - self.long) / f64::from(windows),
            _ => (short - self.long) * 2.0 / (LONG_TERM + 1.0),
        };
        // Long behind a time that was slow: it comes back faster.
        if self.long / short > 2.0 {
            self.long *= 0.95;
        }
        // Too few requests to learn from.
        if f64::from(most) < self.limit / 2.0 {
            return;
        }
        let tolerance = f64::from(self.settings.tolerance_percent) / 100.0;
        let gradient = (tolerance * self.long / short).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + QUEUE;
        self.limit = self.within(self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING);
    }
}

/// The same for all threads: whoever finds a window at its end draws the conclusions.
#[derive(Debug, Default)]
pub(super) struct Adaptive {
    on: AtomicBool,
    answers: AtomicU32,
    micros: AtomicU64,
    most: AtomicU32,
    ends: AtomicU64,
    gradient: Mutex<Option<Gradient>>,
}

impl Adaptive {
    /// Takes other settings, and returns the limit, if there is to be one. An estimate is kept within them.
    pub(super) fn configure(&self, settings: Option<&snapshot::Adaptive>) -> Option<u32> {
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        self.on.store(settings.is_some(), Ordering::Relaxed);
        *gradient = settings.map(|settings| match gradient.take() {
            Some(mut known) => {
                known.settings = settings.clone();
                known.limit = known.within(known.limit);
                known
            }
            None => Gradient::new(settings.clone()),
        });
        gradient.as_ref().map(Gradient::limit)
    }

    /// Learns of an answer that took so long to begin, while there were so many requests. Returns the limit when a window
    /// ends with it.
    pub(super) fn observe(&self, latency: Duration, requests: u32, now: Moment) -> Option<u32> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let answers = self.answers.fetch_add(1, Ordering::Relaxed) + 1;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX / 2);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.most.fetch_max(requests, Ordering::Relaxed);
        if answers < MIN_SAMPLES || now.nanos() < self.ends.load(Ordering::Relaxed) {
            return None;
        }
        // Somebody else is at it.
        let mut gradient = self.gradient.try_lock().ok()?;
        let gradient = gradient.as_mut()?;
        if now.nanos() < self.ends.load(Ordering::Relaxed) {
            return None;
        }
        self.ends.store((now + gradient.settings.window).nanos(), Ordering::Relaxed);
        let answers = self.answers.swap(0, Ordering::Relaxed).max(1);
        let micros = self.micros.swap(0, Ordering::Relaxed);
        let most = self.most.swap(0, Ordering::Relaxed);
        gradient.update(Duration::from_micros(micros / u64::from(answers)), most);
        Some(gradient.limit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Duration = Duration::from_millis(10);

    fn settings(min: u32, max: u32) -> snapshot::Adaptive {
        snapshot::Adaptive { min, max, tolerance_percent: 150, window: Duration::from_secs(1) }
    }

    /// A server that serves so many at once; the others wait in its queue.
    fn latency(at_once: u32, requests: u32) -> Duration {
        SERVICE * requests.max(at_once) / at_once
    }

    /// Windows with as many requests as there may be, and no more than `demand`.
    fn run(gradient: &mut Gradient, windows: u32, at_once: u32, demand: u32) {
        for _ in 0..windows {
            let requests = gradient.limit().min(demand);
            gradient.update(latency(at_once, requests), requests);
        }
    }

    #[test]
    fn the_limit_settles_a_little_above_what_the_server_does_at_once() {
        let mut gradient = Gradient::new(settings(1, 1000));
        run(&mut gradient, 150, 50, 1000);
        assert!((50..=110).contains(&gradient.limit()), "{}", gradient.limit());
    }

    #[test]
    fn it_follows_a_server_that_loses_and_regains_its_strength() {
        let mut gradient = Gradient::new(settings(1, 1000));
        run(&mut gradient, 150, 50, 1000);
        let before = gradient.limit();
        run(&mut gradient, 30, 10, 1000);
        let weak = gradient.limit();
        assert!((10..=40).contains(&weak) && weak < before, "{weak}");
        run(&mut gradient, 150, 50, 1000);
        assert!(gradient.limit() >= 50, "{}", gradient.limit());
    }

    #[test]
    fn it_learns_nothing_from_few_requests() {
        let mut gradient = Gradient::new(settings(1, 1000));
        run(&mut gradient, 100, 50, 5);
        assert_eq!(gradient.limit(), INITIAL as u32);
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut gradient = Gradient::new(settings(15, 30));
        run(&mut gradient, 100, 1000, 1000);
        assert_eq!(gradient.limit(), 30);
        run(&mut gradient, 30, 1, 1000);
        assert_eq!(gradient.limit(), 15);
        assert_eq!(Gradient::new(settings(40, 50)).limit(), 40);
    }

    #[test]
    fn a_window_ends_with_its_time_and_enough_answers() {
        let adaptive = Adaptive::default();
        let at = |millis| Moment::default() + Duration::from_millis(millis);
        assert_eq!(adaptive.observe(SERVICE, 20, at(0)), None, "off");
        assert_eq!(adaptive.configure(Some(&settings(1, 100))), Some(20));
        for _ in 1..MIN_SAMPLES {
            assert_eq!(adaptive.observe(SERVICE, 20, at(5000)), None, "too few answers");
        }
        assert_eq!(adaptive.observe(SERVICE, 20, at(5000)), Some(20), "grown by less than one");
        for _ in 0..5 {
            for _ in 1..MIN_SAMPLES {
                adaptive.observe(SERVICE, 20, at(5500));
            }
        }
        assert_eq!(adaptive.observe(SERVICE, 20, at(5999)), None, "not over");
        assert_eq!(adaptive.observe(SERVICE, 20, at(6000)), Some(21));
        assert_eq!(adaptive.configure(Some(&settings(1, 10))), Some(10), "within the new bounds");
        assert_eq!(adaptive.configure(None), None);
        assert_eq!(adaptive.observe(SERVICE, 20, at(9000)), None);
    }
}
