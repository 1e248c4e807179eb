//! Whether the sides of a WebSocket are alive: when each was last heard, when it was asked, and how long it may take to
//! answer. No bytes, no timer; `mod` tells what was heard and does what is due.

use tokio::time::Instant;

use super::frames::TOKEN;
use super::words;
use crate::snapshot::{Ping, PingTarget};

/// A side of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Endpoint,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// This side has been silent: it is to be pinged.
    Ask(Side),
    /// This side was pinged and has not answered.
    Silent(Side),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heart {
    /// Nobody asks for it.
    Unminded,
    /// Heard then, and not asked since.
    Heard(Instant),
    /// To be asked, as soon as its connection takes a ping. A side that takes nothing has a clock of its own.
    ToAsk,
    /// Asked then, and not heard since.
    Asked(Instant),
}

/// Both sides' signs of life.
#[derive(Debug)]
pub(super) struct Pulse {
    ping: Ping,
    /// What our pings carry, so that their pongs are known. RFC 6455 5.5.3: a pong has "identical Application data".
    pub(super) token: [u8; TOKEN],
    hearts: [Heart; 2],
    /// The other side has asked it, and it was not heard since. Its pong answers for ours, too: RFC 6455 5.5.3, it "MAY elect
    /// to send a Pong frame for only the most recently processed Ping frame", so that a ping of ours in between could take
    /// the other side's pong away.
    owes: [bool; 2],
}

impl Pulse {
    /// Both sides were heard `now`.
    pub(super) fn new(ping: Ping, now: Instant) -> Self {
        let heart = |target| match ping.target {
            PingTarget::Both => Heart::Heard(now),
            minded if minded == target => Heart::Heard(now),
            _ => Heart::Unminded,
        };
        let hearts = [heart(PingTarget::Client), heart(PingTarget::Endpoint)];
        Pulse { ping, token: words::random(), hearts, owes: [false; 2] }
    }

    /// Something came from a side: "A Pong frame sent in response to a Ping" (RFC 6455 5.5.3) shows no more than that.
    pub(super) fn heard(&mut self, side: Side, now: Instant) {
        if self.hearts[side as usize] != Heart::Unminded {
            self.hearts[side as usize] = Heart::Heard(now);
        }
        self.owes[side as usize] = false;
    }

    /// The other side's ping went to this side.
    pub(super) fn owes(&mut self, side: Side) {
        self.owes[side as usize] = true;
    }

    /// Our ping went to this side.
    pub(super) fn asked(&mut self, side: Side, now: Instant) {
        if self.hearts[side as usize] == Heart::ToAsk {
            self.hearts[side as usize] = Heart::Asked(now);
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.hearts.iter().filter_map(|heart| self.due(*heart)).min()
    }

    fn due(&self, heart: Heart) -> Option<Instant> {
        match heart {
            Heart::Unminded | Heart::ToAsk => None,
            Heart::Heard(at) => Some(at + self.ping.interval),
            Heart::Asked(at) => Some(at + self.ping.timeout),
        }
    }

    /// What is due now.
    pub(super) fn beat(&mut self, now: Instant) -> Option<Beat> {
        for side in [Side::Client, Side::Endpoint] {
            let heart = self.hearts[side as usize];
            if self.due(heart).is_none_or(|due| due > now) {
                continue;
            }
            if let Heart::Asked(_) = heart {
                return Some(Beat::Silent(side));
            }
            if self.owes[side as usize] {
                self.hearts[side as usize] = Heart::Asked(now);
            } else {
                self.hearts[side as usize] = Heart::ToAsk;
                return Some(Beat::Ask(side));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const INTERVAL: Duration = Duration::from_secs(30);
    const TIMEOUT: Duration = Duration::from_secs(10);

    fn pulse(target: PingTarget) -> (Pulse, Instant) {
        let now = Instant::now();
        (Pulse::new(Ping { interval: INTERVAL, timeout: TIMEOUT, target }, now), now)
    }

    #[test]
    fn asks_after_silence_and_gives_up_after_more_of_it() {
        let (mut pulse, start) = pulse(PingTarget::Client);
        assert_eq!(pulse.next(), Some(start + INTERVAL));
        let heard = start + INTERVAL / 2;
        pulse.heard(Side::Client, heard);
        pulse.heard(Side::Endpoint, heard);
        assert_eq!(pulse.beat(start + INTERVAL), None, "it was heard meanwhile");
        assert_eq!(pulse.next(), Some(heard + INTERVAL));
        let mut now = heard + INTERVAL;
        assert_eq!(pulse.beat(now), Some(Beat::Ask(Side::Client)));
        assert_eq!(pulse.next(), None, "until the ping is with it");
        pulse.asked(Side::Client, now);
        assert_eq!((pulse.beat(now), pulse.next()), (None, Some(now + TIMEOUT)));
        pulse.heard(Side::Client, now + TIMEOUT / 2);
        now += TIMEOUT / 2 + INTERVAL;
        assert_eq!(pulse.beat(now), Some(Beat::Ask(Side::Client)));
        pulse.asked(Side::Client, now);
        assert_eq!(pulse.beat(now + TIMEOUT), Some(Beat::Silent(Side::Client)));
    }

    #[test]
    fn both_sides_have_a_clock_of_their_own() {
        let (mut pulse, start) = pulse(PingTarget::Both);
        pulse.heard(Side::Client, start + INTERVAL / 2);
        assert_eq!(pulse.beat(start + INTERVAL), Some(Beat::Ask(Side::Endpoint)));
        pulse.asked(Side::Endpoint, start + INTERVAL);
        assert_eq!(pulse.beat(start + INTERVAL), None);
        assert_eq!(pulse.beat(start + INTERVAL + INTERVAL / 2), Some(Beat::Ask(Side::Client)));
    }

    #[test]
    fn a_ping_of_the_other_side_asks_in_our_place() {
        let (mut pulse, start) = pulse(PingTarget::Client);
        pulse.owes(Side::Client);
        let now = start + INTERVAL;
        assert_eq!((pulse.beat(now), pulse.next()), (None, Some(now + TIMEOUT)));
        assert_eq!(pulse.beat(now + TIMEOUT), Some(Beat::Silent(Side::Client)));
        pulse.heard(Side::Client, now);
        assert_eq!(pulse.beat(now + INTERVAL), Some(Beat::Ask(Side::Client)), "the debt is paid");
    }
}
