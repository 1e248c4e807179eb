//! Event streams that get events at an even pace, each with the time at which it was sent.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::load::pace::Pace;

/// An event, with the time in nanoseconds since the clock's beginning as twenty digits, and as long as a token of a
/// language model in its envelope.
fn event(clock: Instant) -> String {
    let nanos = clock.elapsed().as_nanos();
    let data = format!("data: {nanos:020} {}\n\n", "x".repeat(100));
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Streams that are open.
#[derive(Default)]
pub(crate) struct Streams(Mutex<Vec<TcpStream>>);

impl Streams {
    pub(crate) fn join(&self, stream: TcpStream) {
        self.0.lock().unwrap().push(stream);
    }

    /// Sends an event to one stream after the other, so many each second altogether, for a time. How many were sent.
    /// Leaves no stream behind.
    pub(crate) async fn send(&self, clock: Instant, per_second: f64, time: Duration) -> io::Result<u64> {
        let streams = std::mem::take(&mut *self.0.lock().unwrap());
        let mut pace = Pace::new(per_second, time);
        let mut sent = 0;
        while pace.next().await.is_some() {
            let event = event(clock);
            // What does not fit in the socket's buffer was not read for a long time.
            if streams[sent as usize % streams.len()].try_write(event.as_bytes())? != event.len() {
                return Err(io::Error::other("a stream is not read"));
            }
            sent += 1;
        }
        // What is under way still arrives.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(sent)
    }
}
