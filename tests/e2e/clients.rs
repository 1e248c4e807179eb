//! What the clients of `load` and `streams` share: a thread of their own, so that nothing else the tests do slows them, until they are
//! told to stop; and their way to Floodway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, join_all};
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

/// Longer than any answer takes, and than a stream is ever silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Where clients connect to, and whom they ask for.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
}

/// What came of clients.
pub(crate) trait Tally: Default + Send + 'static {
    fn with(self, other: Self) -> Self;
}

/// The running clients. They stop when this is dropped.
pub(crate) struct Clients<T> {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<T>>,
}

/// What the clients know, and whoever waits for them.
pub(crate) struct Shared {
    pub(crate) target: Target,
    /// Requests that were served, or streams that are open.
    pub(crate) count: AtomicU64,
    began: Instant,
    stop: AtomicBool,
}

impl<T: Tally> Clients<T> {
    /// Runs the clients that `each` makes.
    pub(crate) fn run(
        target: &Target,
        each: impl FnOnce(Arc<Shared>) -> Vec<LocalBoxFuture<'static, T>> + Send + 'static,
    ) -> Clients<T> {
        let (target, began) = (target.clone(), Instant::now());
        let shared = Arc::new(Shared { target, began, count: AtomicU64::new(0), stop: AtomicBool::new(false) });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new()
                .block_on(&runtime, async move { join_all(each(theirs)).await.into_iter().fold(T::default(), T::with) })
        });
        Clients { shared, thread: Some(thread) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.shared.count.load(Relaxed)
    }

    pub(crate) async fn stop(mut self) -> T {
        self.shared.stop.store(true, Relaxed);
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap()
    }
}

impl<T> Drop for Clients<T> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

impl Shared {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Seconds since the beginning.
    pub(crate) fn at(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// A connection, tried until patience ends. Those that could not be made at once are counted.
    pub(crate) async fn connect(&self, refused: &mut u64) -> Option<TcpStream> {
        let began = Instant::now();
        while !self.stopped() && began.elapsed() < PATIENCE {
            if let Ok(Ok(stream)) = timeout(Duration::from_secs(1), TcpStream::connect(self.target.address)).await {
                let _ = stream.set_nodelay(true);
                return Some(stream);
            }
            *refused += 1;
            sleep(Duration::from_millis(50)).await;
        }
        None
    }
}

/// HTTP/1.1 over a connection.
pub(crate) async fn http1(stream: TcpStream) -> SendRequest<Empty<Bytes>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(connection);
    sender
}
