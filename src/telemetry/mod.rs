//! What the process tells about itself: metrics (all declared in one file), the access log, and the program's own log.
//! Nothing here knows the rest of the crate; facts come in as plain values.

mod exchange;
mod record;

pub use exchange::{End, Exchange, Kind, Protocol};
pub use record::{ActiveGuard, ConnectionGuard, Recorder, Telemetry};
