//! What the process tells about itself: metrics (all declared in one file), the access log, and the program's own log.
//! Nothing here knows the rest of the crate; facts come in as plain values.

mod access;
mod asked;
mod breakers;
mod cells;
mod certificates;
mod collect;
mod exchange;
mod injections;
mod line;
pub mod log;
mod metrics;
mod part;
mod passed;
mod process;
mod rate_limits;
mod record;
mod standing;
#[cfg(test)]
mod tests;
mod usage;

pub use access::AccessLog;
pub use breakers::BreakerCount;
pub use cells::Live;
pub use certificates::Expiry;
pub use exchange::{End, Exchange, Kind, Parted, Protocol, Tls};
pub use injections::Injections;
pub use metrics::{ALL, Declared, Metrics, Type};
pub use passed::PassedEnd;
pub use rate_limits::{Counted, RateLimited};
pub use record::{Recorder, Telemetry};
pub use standing::Standing;
pub use usage::{Queue, Usage};
