//! A connection that is passed on as bytes, to where it was meant to go: both ways, with an end of one side as a half-close and a break
//! as a break. Nothing is held but what the other side has not taken yet: in a buffer, or in a pipe of the kernel while there is much of
//! it. No table is needed for it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Passed;
use crate::proxy::io::Io;
use crate::proxy::listener;
use crate::proxy::pipes::Piped;
use crate::proxy::timer::Timer;
use crate::proxy::worker::Worker;
use crate::settings::Settings;
use crate::telemetry::PassedEnd;

/// Silence after which a connection is given up. Long, because what is spoken is not known, and pools of connections to databases rest;
/// peers that vanished are found by TCP long before.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// A piece of at least this length is taken for one of many, which pass unseen from then on, as long as the worker has pipes.
const BULK: usize = 32 * 1024;
/// How much passes unseen until others have their turn.
const TURN: usize = 2 * 1024 * 1024;

/// Counts a connection that is passed on, until dropped.
struct Counted<'a> {
    worker: &'a Worker,
    why: &'static str,
    end: PassedEnd,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.worker.recorder.passed(self.why, self.end);
    }
}

/// Carries a connection to its end.
pub(super) async fn carry(passed: Passed, worker: Rc<Worker>) {
    let Passed { client, early, to, why } = passed;
    worker.recorder.passes();
    // Whoever cuts it drops it.
    let mut counted = Counted { worker: &worker, why, end: PassedEnd::Drained };
    let connecting = timeout(worker.settings.defaults.connect, TcpStream::connect(to));
    let server = match connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(server) => server,
        Err(error) => {
            tracing::debug!(%to, %error, "a connection that is passed on leads nowhere");
            counted.end = PassedEnd::ConnectFailed;
            return breaks(&client);
        }
    };
    if let Err(error) = prepare(&server, &worker.settings) {
        tracing::debug!(%to, %error, "cannot set an option of a connection");
    }
    let room = worker.settings.limits.stream_buffer_bytes;
    let (mut client, mut server) = (Io::new(client, room), Io::new(server, room));
    let (mut up, mut down) = (Half::new(early, false), Half::new(Bytes::new(), true));
    let (timer, mut moved) = (Timer::default(), Instant::now());
    counted.end = poll_fn(|cx| {
        let (mut there, mut back) = (true, true);
        for (half, pending) in [(&mut up, &mut there), (&mut down, &mut back)] {
            let (from, into) = if half.to_client { (&mut server, &mut client) } else { (&mut client, &mut server) };
            match half.poll(cx, from, into, &worker) {
                Poll::Ready(Ok(())) => *pending = false,
                Poll::Ready(Err(_)) => return Poll::Ready(PassedEnd::Broken),
                Poll::Pending => {}
            }
            if std::mem::take(&mut half.moved) {
                moved = Instant::now();
            }
        }
        if !there && !back {
            return Poll::Ready(PassedEnd::Complete);
        }
        timer.poll_at(cx, moved + IDLE).map(|()| PassedEnd::Idle)
    })
    .await;
    if counted.end == PassedEnd::Broken {
        client.reset_on_close(true);
        server.reset_on_close(true);
    }
}

/// Has the drop that follows look like a break: whoever was connected to would see one, too.
fn breaks(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// What the client's side has from its listener.
fn prepare(server: &TcpStream, settings: &Settings) -> io::Result<()> {
    server.set_nodelay(true)?;
    listener::bound_unsent(server, settings.limits.stream_buffer_bytes)?;
    let interval = settings.listeners.tcp_keep_alive;
    if !interval.is_zero() {
        SockRef::from(server).set_tcp_keepalive(&TcpKeepalive::new().with_time(interval).with_interval(interval))?;
    }
    Ok(())
}

/// One way.
struct Half {
    to_client: bool,
    /// What was read and not taken yet.
    rest: Bytes,
    /// The same, of which nobody here saw anything.
    piped: Option<Piped>,
    /// Whether the last piece was a large one.
    bulk: bool,
    /// Whether no more will come.
    ended: bool,
    /// Whether the other side knows.
    told: bool,
    moved: bool,
}

impl Half {
    fn new(rest: Bytes, to_client: bool) -> Self {
        Half { to_client, rest, piped: None, bulk: false, ended: false, told: false, moved: false }
    }

    /// Moves what can be moved; ready once everything was and the other side knows.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Io, into: &mut Io, worker: &Worker) -> Poll<io::Result<()>> {
        let mut turn = TURN;
        while !self.told {
            if !self.rest.is_empty() {
                let written = ready!(Pin::new(&mut *into).poll_write(cx, &self.rest))?;
                self.took(written, worker)?;
                self.rest.advance(written);
            } else if let Some(piped) = &mut self.piped {
                let written = ready!(into.poll_empty(cx, piped))?;
                let is_empty = piped.is_empty();
                self.took(written, worker)?;
                turn = turn.saturating_sub(written);
                if is_empty {
                    self.piped = None;
                }
                if turn == 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            } else if self.ended {
                // Whoever has left already needs not be told.
                match ready!(Pin::new(&mut *into).poll_shutdown(cx)) {
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => return Poll::Ready(Err(error)),
                    _ => self.told = true,
                }
            } else if let Some(filled) = self.fill(cx, from) {
                ready!(filled)?;
            } else {
                self.rest = Bytes::new();
                ready!(worker.with_scratch(|scratch| self.pass(cx, from, into, scratch, worker)))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Has what came go into a pipe, if it is one of many large pieces and there is a pipe for it.
    fn fill(&mut self, cx: &mut Context<'_>, from: &mut Io) -> Option<Poll<io::Result<()>>> {
        if !self.bulk {
            return None;
        }
        let mut piped = Piped::take()?;
        let filled = from.poll_fill(cx, &mut piped, usize::MAX)?;
        Some(filled.map_ok(|length| {
            self.rest = Bytes::new();
            self.bulk = length >= BULK;
            self.ended = length == 0;
            self.piped = (length > 0).then_some(piped);
        }))
    }

    /// Reads a piece and passes it on; what is not taken of it stays.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Io,
        into: &mut Io,
        scratch: &mut [u8],
        worker: &Worker,
    ) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let piece = buffer.filled();
        self.bulk = piece.len() >= BULK;
        if piece.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(into).poll_write(cx, piece) {
            Poll::Ready(written) => {
                let written = written?;
                self.took(written, worker)?;
                written
            }
            Poll::Pending => 0,
        };
        self.rest = Bytes::copy_from_slice(&piece[written..]);
        Poll::Ready(Ok(()))
    }

    /// So much was taken, which is not nothing.
    fn took(&mut self, bytes: usize, worker: &Worker) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.moved = true;
        worker.recorder.passed_bytes(self.to_client, bytes);
        Ok(())
    }
}
