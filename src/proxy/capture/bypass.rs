//! A connection that is passed on as bytes, to where it was meant to go: both ways, with an end of one side as a half-close and a break
//! as a break. Nothing is held but what the other side has not taken yet. No table is needed for it.

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
use crate::proxy::listener;
use crate::proxy::timer::Timer;
use crate::proxy::worker::Worker;
use crate::settings::Settings;
use crate::telemetry::PassedEnd;

/// Silence after which a connection is given up. Long, because what is spoken is not known, and pools of connections to databases rest;
/// peers that vanished are found by TCP long before.
const IDLE: Duration = Duration::from_secs(60 * 60);

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
    let Passed { mut client, early, to, why } = passed;
    worker.recorder.passes();
    // Whoever cuts it drops it.
    let mut counted = Counted { worker: &worker, why, end: PassedEnd::Drained };
    let connecting = timeout(worker.settings.defaults.connect, TcpStream::connect(to));
    let mut server = match connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
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
        breaks(&client);
        breaks(&server);
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
    /// Whether no more will come.
    ended: bool,
    /// Whether the other side knows.
    told: bool,
    moved: bool,
}

impl Half {
    fn new(rest: Bytes, to_client: bool) -> Self {
        Half { to_client, rest, ended: false, told: false, moved: false }
    }

    /// Moves what can be moved; ready once everything was and the other side knows.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        into: &mut TcpStream,
        worker: &Worker,
    ) -> Poll<io::Result<()>> {
        while !self.told {
            if !self.rest.is_empty() {
                let written = ready!(Pin::new(&mut *into).poll_write(cx, &self.rest))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.rest.advance(written);
                self.went(written, worker);
            } else if self.ended {
                // Whoever has left already needs not be told.
                match ready!(Pin::new(&mut *into).poll_shutdown(cx)) {
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => return Poll::Ready(Err(error)),
                    _ => self.told = true,
                }
            } else {
                self.rest = Bytes::new();
                ready!(worker.with_scratch(|scratch| self.pass(cx, from, into, scratch, worker)))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a piece and passes it on; what is not taken of it stays.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        into: &mut TcpStream,
        scratch: &mut [u8],
        worker: &Worker,
    ) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let piece = buffer.filled();
        if piece.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(into).poll_write(cx, piece) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.went(written, worker);
        self.rest = Bytes::copy_from_slice(&piece[written..]);
        Poll::Ready(Ok(()))
    }

    fn went(&mut self, bytes: usize, worker: &Worker) {
        self.moved = true;
        worker.recorder.passed_bytes(self.to_client, bytes);
    }
}
