//! Tunnels: bytes both ways after both sides have switched protocols. An end of one side is passed on as a half-close, and
//! nothing is buffered but what the other side has not taken yet; the scratch they pass through is the worker's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;

use super::error::Error;
use super::exchange::Exchange;
use super::io::Pipe;
use super::upstream::Takeover;
use super::worker::Worker;

/// Carries a tunnel to its end. `early` is what the client sent ahead of the switch.
pub(super) async fn run(
    worker: &Worker,
    mut client: impl Pipe,
    early: Bytes,
    upstream: Takeover,
    exchange: Rc<Exchange>,
) {
    let Takeover { pipe: mut endpoint, early: ahead, in_flight: _in_flight } = upstream;
    let endpoint = &mut *endpoint;
    let mut up = Direction::new(early);
    let mut down = Direction::new(ahead);
    let result = std::future::poll_fn(|cx| {
        // Both directions move before either is judged, so that the last words of one side are not lost to the other's end.
        let up = up.poll(cx, worker, &mut client, endpoint, |bytes| exchange.received(bytes));
        let down = down.poll(cx, worker, endpoint, &mut client, |bytes| exchange.sent(bytes));
        match (up, down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (Poll::Ready(Err(broken)), _) => Poll::Ready(Err(broken.blame(Error::ClientGone, Error::UpstreamCut))),
            (_, Poll::Ready(Err(broken))) => Poll::Ready(Err(broken.blame(Error::UpstreamCut, Error::ClientGone))),
            _ => exchange.poll_expired(cx).map(Err),
        }
    })
    .await;
    match result {
        Ok(()) => exchange.complete(),
        Err(error) => {
            // A broken side must look broken to the other, too.
            client.abort();
            endpoint.abort();
            exchange.cut(error);
        }
    }
}

/// Which end of a direction broke.
#[derive(Clone, Copy, Debug)]
enum Broken {
    Source,
    Sink,
}

impl Broken {
    fn blame(self, source: Error, sink: Error) -> Error {
        match self {
            Broken::Source => source,
            Broken::Sink => sink,
        }
    }
}

/// One way through a tunnel.
#[derive(Debug)]
struct Direction {
    /// Read, but not taken by the sink yet.
    unsent: Bytes,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    SourceEnded,
    Closed,
}

impl Direction {
    fn new(unsent: Bytes) -> Self {
        Direction { unsent, state: State::Open }
    }

    /// Moves what can be moved; ready once the source has ended and the sink was told.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        source: &mut dyn Pipe,
        sink: &mut dyn Pipe,
        moved: impl Fn(usize),
    ) -> Poll<Result<(), Broken>> {
        loop {
            while !self.unsent.is_empty() {
                let written = ready!(write(sink, cx, &self.unsent)).map_err(|_| Broken::Sink)?;
                moved(written);
                self.unsent.advance(written);
                if self.unsent.is_empty() {
                    self.unsent = Bytes::new();
                }
            }
            match self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::SourceEnded => {
                    // The peer may be gone already, which is all a half-close could have told it.
                    let _ = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                    self.state = State::Closed;
                }
                State::Open => {
                    ready!(source.poll_readable(cx)).map_err(|_| Broken::Source)?;
                    let moved_now = worker.with_scratch(|scratch| {
                        let mut buffer = ReadBuf::new(scratch);
                        ready!(Pin::new(&mut *source).poll_read(cx, &mut buffer)).map_err(|_| Broken::Source)?;
                        let read = buffer.filled();
                        if read.is_empty() {
                            return Poll::Ready(Ok(0));
                        }
                        let written = match write(sink, cx, read) {
                            Poll::Ready(Ok(written)) => written,
                            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Sink)),
                            Poll::Pending => 0,
                        };
                        moved(written);
                        self.unsent = Bytes::copy_from_slice(&read[written..]);
                        Poll::Ready(Ok(read.len()))
                    });
                    if ready!(moved_now)? == 0 {
                        self.state = State::SourceEnded;
                    }
                }
            }
        }
    }
}

fn write(sink: &mut dyn Pipe, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(sink).poll_write_vectored(cx, &[IoSlice::new(bytes)])) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        result => Poll::Ready(result),
    }
}
