//! An even pace, finer than timers tick: the thread does not sleep between two turns.

use std::time::{Duration, Instant};

pub(crate) struct Pace {
    began: Instant,
    turn: u64,
    turns: u64,
    interval: Duration,
}

impl Pace {
    pub(crate) fn new(per_second: f64, time: Duration) -> Self {
        let turns = (per_second * time.as_secs_f64()) as u64;
        Pace { began: Instant::now(), turn: 0, turns, interval: Duration::from_secs_f64(1.0 / per_second) }
    }

    /// Waits for the next turn; when it was due, which is what latencies count from. Turns that are late are not left out.
    pub(crate) async fn next(&mut self) -> Option<Instant> {
        if self.turn == self.turns {
            return None;
        }
        let due = self.began + self.interval.mul_f64(self.turn as f64);
        self.turn += 1;
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        Some(due)
    }
}
