//! The clocks of one exchange: what is waited for, since when, and which bound that has. Nothing is re-armed while bytes
//! flow: whoever moves them notes when, and the timer looks when it fires. What the clocks end is `exchange`'s to say.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use crate::snapshot::Timeouts;

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No endpoint is involved.
    Local,
    /// The request is on its way, or was sent and its answer's head is awaited.
    Requesting,
    /// The head is there, its content is awaited under a bound of its own.
    FirstByte,
    /// The answer is on its way.
    Streaming,
}

/// What the content of one direction waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Whoever sends it.
    Source,
    /// Whoever takes it.
    Sink,
    /// Nothing: it has come to its end.
    Done,
}

/// The bounds in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    head: Duration,
    first_byte: Option<Duration>,
    idle: Duration,
    pub(super) stall: Duration,
    request: Option<Duration>,
}

impl From<&Timeouts> for Bounds {
    fn from(timeouts: &Timeouts) -> Self {
        let &Timeouts { connect: _, response_head: head, first_byte, idle, stall, request } = timeouts;
        Bounds { head, first_byte, idle, stall, request }
    }
}

impl Bounds {
    /// Those of an exchange that no route has bounds for.
    pub(super) fn without_route(idle: Duration, stall: Duration) -> Self {
        Bounds { head: idle, first_byte: None, idle, stall, request: None }
    }
}

/// The clocks.
#[derive(Debug)]
pub(super) struct Clocks {
    /// When the exchange began.
    pub(super) started: Instant,
    /// How long the client itself waits for its end.
    pub(super) patience: Cell<Option<Duration>>,
    /// When the attempt at an endpoint is over, so that another one is made.
    pub(super) attempt_until: Cell<Option<Instant>>,
    phase: Cell<Phase>,
    upload: Cell<Flow>,
    download: Cell<Flow>,
    /// When the request's content last moved.
    up: Cell<Instant>,
    /// When the answer last moved.
    down: Cell<Instant>,
}

impl Clocks {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Clocks {
            started: now,
            patience: Cell::new(None),
            attempt_until: Cell::new(None),
            phase: Cell::new(Phase::Local),
            upload: Cell::new(Flow::Source),
            download: Cell::new(Flow::Source),
            up: Cell::new(now),
            down: Cell::new(now),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// When anything last moved.
    pub(super) fn last_moved(&self) -> Instant {
        self.up.get().max(self.down.get())
    }

    pub(super) fn moved_up(&self, now: Instant) {
        self.up.set(now);
    }

    /// Returns how long nothing had moved.
    pub(super) fn moved_down(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.down.replace(now))
    }

    /// What the request's content waits for now. Returns what it waited for.
    pub(super) fn upload(&self, flow: Flow) -> Flow {
        self.upload.replace(flow)
    }

    /// What the answer waits for now. Returns what it waited for.
    pub(super) fn download(&self, flow: Flow) -> Flow {
        self.download.replace(flow)
    }

    /// The clock that runs out next, as things stand.
    pub(super) fn next(&self, bounds: Bounds) -> (Instant, Error) {
        let (up, down) = (self.up.get(), self.down.get());
        let upload = self.upload.get();
        // The bounds of who takes and of who sends differ: an endpoint is not idle while it may not send.
        let next = match self.phase.get() {
            _ if self.download.get() == Flow::Sink => (down + bounds.stall, Error::ClientStalled),
            Phase::Local => (up.max(down) + bounds.idle, Error::Idle),
            Phase::Requesting => match upload {
                Flow::Source => (up + bounds.idle, Error::UploadIdle),
                Flow::Sink => (up + bounds.stall, Error::UpstreamStalled),
                Flow::Done => (up + bounds.head, Error::HeadTimeout),
            },
            Phase::FirstByte => (down + bounds.first_byte.unwrap_or(bounds.idle), Error::FirstByteTimeout),
            Phase::Streaming if upload == Flow::Sink => {
                sooner((up + bounds.stall, Error::UpstreamStalled), (up.max(down) + bounds.idle, Error::Idle))
            }
            Phase::Streaming => (up.max(down) + bounds.idle, Error::Idle),
        };
        let next = match self.attempt_until.get() {
            Some(until) => sooner((until, Error::TryTimeout), next),
            None => next,
        };
        match [bounds.request, self.patience.get()].into_iter().flatten().min() {
            Some(limit) => sooner((self.started + limit, Error::RequestTimeout), next),
            None => next,
        }
    }

    /// When to give an endpoint up that sent something at `heard` last, whether that was content or only its head, for
    /// answers in which something else moves. What the client sends shows that it may have its reasons.
    pub(super) fn give_up(&self, heard: Instant, begun: bool, bounds: Bounds) -> (Instant, Error) {
        match bounds.first_byte {
            Some(bound) if !begun => (heard + bound, Error::FirstByteTimeout),
            _ => (heard.max(self.up.get()) + bounds.idle, Error::Idle),
        }
    }

    /// When to look at the clocks again although none has run out: the request's content may be sent by another task, and
    /// what it waits for change without a word.
    pub(super) fn look_after(&self, bounds: Bounds) -> Option<Duration> {
        let sent_meanwhile = self.phase.get() != Phase::Local && self.upload.get() != Flow::Done;
        sent_meanwhile.then(|| bounds.head.min(bounds.stall))
    }
}

/// The one that is due first; at the same time, the first one.
pub(super) fn sooner(one: (Instant, Error), other: (Instant, Error)) -> (Instant, Error) {
    if other.0 < one.0 { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        head: Duration::from_secs(1),
        first_byte: Some(Duration::from_secs(2)),
        idle: Duration::from_secs(3),
        stall: Duration::from_secs(4),
        request: None,
    };

    /// Clocks of an exchange whose request moved 10 seconds after its beginning, and whose answer moved 1 second later.
    fn clocks(phase: Phase, upload: Flow, download: Flow) -> Clocks {
        let clocks = Clocks::start();
        clocks.enter(phase);
        clocks.upload(upload);
        clocks.download(download);
        clocks.moved_up(clocks.started + Duration::from_secs(10));
        clocks.moved_down(clocks.started + Duration::from_secs(11));
        clocks
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_decides_which_bound_holds_and_since_when() {
        use Flow::*;
        for (phase, upload, download, after, error) in [
            (Phase::Local, Source, Source, 14, Error::Idle),
            (Phase::Local, Done, Sink, 15, Error::ClientStalled),
            (Phase::Requesting, Source, Source, 13, Error::UploadIdle),
            (Phase::Requesting, Sink, Source, 14, Error::UpstreamStalled),
            (Phase::Requesting, Done, Source, 11, Error::HeadTimeout),
            (Phase::FirstByte, Done, Source, 13, Error::FirstByteTimeout),
            (Phase::FirstByte, Done, Sink, 15, Error::ClientStalled),
            (Phase::Streaming, Done, Source, 14, Error::Idle),
            (Phase::Streaming, Source, Source, 14, Error::Idle),
            (Phase::Streaming, Sink, Source, 14, Error::UpstreamStalled),
            (Phase::Streaming, Done, Sink, 15, Error::ClientStalled),
        ] {
            let clocks = clocks(phase, upload, download);
            let expected = (clocks.started + Duration::from_secs(after), error);
            assert_eq!(clocks.next(BOUNDS), expected, "{phase:?}, upload: {upload:?}, download: {download:?}");
            let total = Bounds { request: Some(Duration::from_secs(5)), ..BOUNDS };
            let expected = (clocks.started + Duration::from_secs(5), Error::RequestTimeout);
            assert_eq!(clocks.next(total), expected, "{phase:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn content_that_another_task_sends_is_looked_after() {
        for (phase, upload, looked_after) in [
            (Phase::Local, Flow::Source, false),
            (Phase::Requesting, Flow::Source, true),
            (Phase::Streaming, Flow::Sink, true),
            (Phase::Requesting, Flow::Done, false),
        ] {
            let clocks = clocks(phase, upload, Flow::Source);
            assert_eq!(clocks.look_after(BOUNDS).is_some(), looked_after, "{phase:?}, {upload:?}");
        }
    }
}
