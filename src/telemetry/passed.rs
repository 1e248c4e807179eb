//! Connections that a sidecar passes on as bytes: what is counted of them. They are no exchanges, because nobody here knows what is
//! said on them.

use super::Recorder;

/// How such a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PassedEnd {
    /// Both sides have ended it.
    Complete,
    /// A side broke off.
    Broken,
    /// Nobody could be connected to.
    ConnectFailed,
    /// Nothing moved for too long.
    Idle,
    /// The process went away.
    Drained,
}

impl PassedEnd {
    /// As labels have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            PassedEnd::Complete => "complete",
            PassedEnd::Broken => "broken",
            PassedEnd::ConnectFailed => "connect_failed",
            PassedEnd::Idle => "idle",
            PassedEnd::Drained => "drained",
        }
    }
}

impl Recorder {
    /// A connection is passed on, until [`Recorder::passed`].
    pub fn passes(&self) {
        self.shard.passed_open.add(1);
    }

    /// Bytes of one went on.
    pub fn passed_bytes(&self, to_client: bool, count: usize) {
        self.shard.passed_bytes[usize::from(to_client)].add(count as u64);
    }

    /// One has ended; `why` it was not served is from a closed set.
    pub fn passed(&self, why: &'static str, end: PassedEnd) {
        self.shard.passed_open.subtract(1);
        self.shard.passed.cell((why, end)).add(1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::{AccessLog, Telemetry};
    use super::*;

    #[test]
    fn listeners_are_told_apart_and_each_name_is_declared_once() {
        let (process, [inbound, outbound]) =
            Telemetry::with_listeners(&AccessLog::Off, ["inbound", "outbound"]).unwrap();
        let (inbound, outbound) = (inbound.recorder(), outbound.recorder());
        inbound.opened();
        outbound.opened();
        outbound.opened();
        outbound.passes();
        outbound.passed_bytes(true, 7);
        outbound.passes();
        outbound.passed("unknown", PassedEnd::Idle);
        let text = process.metrics().text();
        for line in [
            "floodway_connections_total{listener=\"inbound\"} 1",
            "floodway_connections_total{listener=\"outbound\"} 2",
            "floodway_passthrough_connections_open{listener=\"outbound\"} 1",
            "floodway_passthrough_connections_total{outcome=\"idle\",why=\"unknown\",listener=\"outbound\"} 1",
            "floodway_passthrough_bytes_total{direction=\"sent\",listener=\"outbound\"} 7",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
        assert_eq!(text.matches("# TYPE floodway_connections_total ").count(), 1);
        assert_eq!(text.matches("# TYPE process_threads ").count(), 1);
        assert!(!text.contains("floodway_passthrough_connections_open{listener=\"inbound\"}"), "{text}");
        assert!(!text.contains("floodway_leader"), "{text}");
    }
}
