//! Event streams that get events at an even pace, each with the time at which it was sent.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::net::TcpStream;

use crate::load::pace::Pace;

/// Digits of the time in an event.
pub(crate) const DIGITS: usize = 20;
/// What stands before them.
pub(crate) const MARK: &[u8] = b"data: ";

/// An event, with the time in nanoseconds since the clock began, and about as long as a token of a language model in its
/// envelope.
fn event(clock: Instant) -> String {
    let nanos = clock.elapsed().as_nanos();
    let data = format!("data: {nanos:020} {}\n\n", "x".repeat(100));
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Streams that are open.
#[derive(Default)]
pub(crate) struct Streams(Mutex<Vec<TcpStream>>);

impl Streams {
    pub(super) fn join(&self, stream: TcpStream) {
        self.0.lock().unwrap().push(stream);
    }

    /// Hands the open streams over.
    pub(crate) fn take(&self) -> Vec<TcpStream> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Sends an event to one stream after the other, so many each second altogether, for a time. How late each was, in
/// nanoseconds; the time that an event tells is when it was sent.
pub(crate) async fn send(streams: &[TcpStream], clock: Instant, per_second: f64, time: Duration) -> Result<Vec<u64>> {
    let mut pace = Pace::new(per_second, time);
    let mut late = Vec::new();
    while let Some(due) = pace.next().await {
        let event = event(clock);
        // What does not fit into the socket's buffer was not read for a long time.
        if streams[late.len() % streams.len()].try_write(event.as_bytes())? != event.len() {
            bail!("a stream is not read");
        }
        late.push(due.elapsed().as_nanos() as u64);
    }
    Ok(late)
}
