//! What time it is, in the moments that `resilience` counts in, which has no clock of its own. Not here: the clocks of
//! exchanges, which are the runtime's (`proxy::clocks`).

use tokio::time::Instant;

use crate::resilience::Moment;

/// The moment that it is, by the runtime's clock, so that tests can pause it.
pub fn now() -> Moment {
    moment(Instant::now())
}

/// A time of the runtime's clock as a moment.
pub fn moment(time: Instant) -> Moment {
    time.into_std().into()
}
