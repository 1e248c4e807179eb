//! Points in time that fit an atomic: nanoseconds since an hour before the first that was ever asked for. Not a clock: whoever knows the time says
//! it, so that everything here can be tested without waiting.

use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// So many nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Moment(nanos)
    }

    /// Nanoseconds after the origin.
    pub const fn nanos(self) -> u64 {
        self.0
    }
}

impl From<Instant> for Moment {
    fn from(instant: Instant) -> Self {
        // Others may have asked the clock a little before whoever is the first here.
        let origin = *ORIGIN.get_or_init(|| instant.checked_sub(Duration::from_secs(3600)).unwrap_or(instant));
        Moment(nanos(instant.saturating_duration_since(origin)))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, after: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(after)))
    }
}

/// The time between two moments; nothing if they are in the wrong order.
impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Enough for 584 years.
fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(time.subsec_nanos()))
}
