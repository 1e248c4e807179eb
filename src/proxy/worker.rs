//! A worker: one thread with its own runtime, listeners and upstream connections. What its tasks share is here; nothing of
//! it leaves the thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use slab::Slab;
use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::capture::{Capture, Way};
use super::clients;
use super::handshake::Handshakes;
use super::listener::Listener;
use super::policy::Passwords;
use super::policy::Tokens;
use super::resting::Resting;
use super::streams::Streams;
use super::transport::Agreed;
use super::upstream::Upstreams;
use crate::drain::DrainWatcher;
use crate::ready::Pulse;
use crate::resilience::Registry;
use crate::resilience::rate::Limiters;
use crate::settings::Settings;
use crate::snapshot::{Reader, Snapshot};
use crate::tally::Tally;
use crate::telemetry::{Recorder, Telemetry};

/// How often unused upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(5);

/// What the tasks of one worker share.
#[derive(Debug)]
pub(super) struct Worker {
    /// The process's settings.
    pub settings: Arc<Settings>,
    /// Where exchanges are written down.
    pub recorder: Recorder,
    /// Connections to endpoints.
    pub upstreams: Upstreams,
    /// What is counted of requests under policies.
    pub limiters: Limiters,
    /// Who counts limits for all replicas, if anybody does.
    pub tally: Option<Tally>,
    /// Passwords that clients give.
    pub passwords: Arc<Passwords>,
    /// Streams that can be asked to end.
    pub streams: Streams,
    /// Clients' connections that rest.
    pub resting: Rc<Resting>,
    /// Tokens that were verified lately.
    pub tokens: Tokens,
    /// Whether and how far the worker is going away.
    pub leaving: Leaving,
    /// How many connections of clients the process has.
    pub connections: Arc<AtomicUsize>,
    /// What TLS is ended with.
    pub handshakes: Arc<Handshakes>,
    /// What its connections are, if they are a sidecar's.
    pub capture: Option<Capture>,
    /// Whose turn it is to have the worker sign for a handshake.
    pub signing: Semaphore,
    reader: RefCell<Reader>,
    seen: RefCell<Option<Arc<Snapshot>>>,
    date: RefCell<(u64, String)>,
}

/// The two ends of a client's connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The client's end.
    pub address: SocketAddr,
    /// By what name the routes of its requests are found.
    pub way: Way,
    /// What its handshake came to, if it speaks TLS.
    pub tls: Option<Rc<Agreed>>,
    /// Its IP address as text, which every request needs.
    name: ([u8; 45], u8),
}

impl Peer {
    /// The peer at an address, after its handshake if it speaks TLS.
    pub(super) fn new(address: SocketAddr, tls: Option<Rc<Agreed>>, way: Way) -> Self {
        let text = address.ip().to_string();
        let mut name = [0; 45];
        let length = text.len().min(name.len());
        name[..length].copy_from_slice(&text.as_bytes()[..length]);
        Peer { address, way, tls, name: (name, length as u8) }
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Its IP address as text.
    pub(super) fn name(&self) -> &[u8] {
        &self.name.0[..usize::from(self.name.1)]
    }
}

/// What a worker is made of.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) settings: Arc<Settings>,
    pub(super) reader: Reader,
    pub(super) telemetry: Telemetry,
    pub(super) drain: DrainWatcher,
    pub(super) registry: Registry,
    pub(super) tally: Option<Tally>,
    pub(super) passwords: Arc<Passwords>,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) listeners: Vec<Listener>,
    pub(super) handshakes: Arc<Handshakes>,
    pub(super) capture: Option<Capture>,
    pub(super) pulse: Pulse,
}

impl Worker {
    /// The snapshot in force. A change is noticed by whoever asks first.
    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let current = self.reader.borrow_mut().current().cloned()?;
        let mut seen = self.seen.borrow_mut();
        if !seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &current)) {
            self.upstreams.retain(&current);
            if let Some(before) = seen.replace(Arc::clone(&current)) {
                self.streams.follow(&before, &current);
            }
        }
        Some(current)
    }

    /// Uses the current date in the form of RFC 9110 5.6.7, made once a second.
    pub(super) fn with_date<T>(&self, use_date: impl FnOnce(&str) -> T) -> T {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != second || date.1.is_empty() {
            *date = (second, httpdate::fmt_http_date(now));
        }
        use_date(&date.1)
    }

    /// Uses the scratch buffer, which holds nothing between uses, and no more of it than a stream may hold.
    pub(super) fn with_scratch<T>(&self, use_scratch: impl FnOnce(&mut [u8]) -> T) -> T {
        let room = self.settings.limits.stream_buffer_bytes;
        super::lent::with_scratch(|scratch| {
            let room = room.min(scratch.len());
            use_scratch(&mut scratch[..room])
        })
    }
}

/// Runs a worker on the calling thread until it has drained, or several that share the thread and nothing else. Those that outlast
/// others drain once these have.
pub(super) fn run(seeds: Vec<Seed>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let outlasts = |seed: &Seed| seed.capture.as_ref().is_some_and(Capture::outlasts);
    let (last, first): (Vec<_>, Vec<_>) = seeds.into_iter().partition(outlasts);
    let over = Rc::new(Once::default());
    let first = first.into_iter().map(|seed| serve(seed, None));
    let last = last.into_iter().map(|seed| serve(seed, Some(Rc::clone(&over))));
    runtime.block_on(async {
        let first = async {
            let drained = try_join_all(first).await;
            over.happen();
            drained
        };
        futures_util::try_join!(first, try_join_all(last)).map(drop)
    })
}

/// Serves until it has drained; one that outlasts others, no sooner than they have.
async fn serve(seed: Seed, others: Option<Rc<Once>>) -> std::io::Result<()> {
    let Seed {
        settings,
        mut reader,
        telemetry,
        mut drain,
        registry,
        tally,
        passwords,
        connections,
        listeners,
        handshakes,
        capture,
        pulse,
    } = seed;
    let room = settings.limits.stream_buffer_bytes;
    let worker = Rc::new(Worker {
        settings,
        recorder: telemetry.recorder(),
        limiters: registry.limiters().clone(),
        upstreams: Upstreams::new(registry, room),
        tally,
        passwords,
        streams: Streams::default(),
        resting: Rc::default(),
        tokens: Tokens::default(),
        leaving: Leaving::default(),
        connections,
        handshakes,
        capture,
        signing: Semaphore::new(1),
        reader: RefCell::new(reader.clone()),
        seen: RefCell::default(),
        date: RefCell::default(),
    });
    let clients = TaskTracker::new();
    for listener in listeners {
        let Listener { socket, secure } = listener;
        let socket = TcpListener::from_std(socket)?;
        tokio::task::spawn_local(clients::accept(socket, secure, Rc::clone(&worker), clients.clone()));
    }
    tokio::task::spawn_local(pulse.keep_beating());
    let sweeping = Rc::clone(&worker);
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            sweeping.upstreams.close_idle();
            if !sweeping.leaving.drain.has_happened() {
                sweeping.upstreams.warm();
            }
        }
    });
    let yielding = Rc::clone(&worker);
    tokio::task::spawn_local(async move { yielding.upstreams.yield_connections().await });
    // Streams and unused connections learn of changes although no request asks for the snapshot.
    let following = Rc::clone(&worker);
    tokio::task::spawn_local(async move {
        loop {
            reader.changed().await;
            following.snapshot();
        }
    });
    let waking = Rc::clone(&worker);
    tokio::task::spawn_local(async move { waking.resting.wake(&waking.leaving.drain).await });
    let spread_percent = u32::from(worker.settings.drain.spread_percent);
    let mut deadline = drain.deadline().await;
    worker.leaving.drain.happen();
    clients.close();
    loop {
        let now = Instant::now();
        let spread = deadline.saturating_duration_since(now) * spread_percent / 100;
        // Those of somebody who goes away as well end by themselves.
        if others.is_none() {
            worker.streams.drain(now + spread, deadline);
        }
        let over = async {
            if let Some(others) = &others {
                others.happened().await;
            }
            clients.wait().await;
        };
        deadline = tokio::select! {
            () = over => return Ok(()),
            sooner = drain.shortened(deadline) => sooner,
            () = tokio::time::sleep_until(deadline) => {
                // With the worker's tasks go its connections and their exchanges.
                worker.leaving.cut.set(true);
                return Ok(());
            }
        };
    }
}

/// How a worker goes away. Its own copy of the process's drain, so that connections wait without sharing anything with
/// other threads.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// No new connections, no new requests on idle ones.
    pub(super) drain: Once,
    /// What is left is cut.
    pub(super) cut: Cell<bool>,
}

/// Something that happens once.
#[derive(Debug, Default)]
pub(super) struct Once {
    happened: Cell<bool>,
    waiting: RefCell<Slab<Waker>>,
}

/// Waits for something that happens once. Made once and polled often, it costs a comparison.
#[derive(Debug)]
pub(super) struct Awaiting<'a> {
    once: &'a Once,
    slot: Option<usize>,
}

impl Once {
    /// Lets it happen.
    pub(super) fn happen(&self) {
        self.happened.set(true);
        self.waiting.borrow().iter().for_each(|(_, waker)| waker.wake_by_ref());
    }

    /// Whether it has happened.
    pub(super) fn has_happened(&self) -> bool {
        self.happened.get()
    }

    /// For who waits beside other things.
    pub(super) fn awaiting(&self) -> Awaiting<'_> {
        Awaiting { once: self, slot: None }
    }

    /// Waits until it has happened.
    pub(super) async fn happened(&self) {
        let mut awaiting = self.awaiting();
        poll_fn(|cx| awaiting.poll(cx)).await;
    }
}

impl Awaiting<'_> {
    /// Ready once it has happened.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.once.has_happened() {
            return Poll::Ready(());
        }
        let mut waiting = self.once.waiting.borrow_mut();
        match self.slot.and_then(|slot| waiting.get_mut(slot)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.slot = Some(waiting.insert(cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.once.waiting.borrow_mut().remove(slot);
        }
    }
}

/// How many exchanges a connection carries, and since when it has carried none.
#[derive(Debug, Default)]
pub(super) struct Activity {
    running: Cell<usize>,
    changed: Notify,
}

/// One running exchange, until dropped.
#[derive(Debug)]
pub(super) struct Active(Rc<Activity>);

impl Activity {
    /// An exchange begins.
    pub(super) fn begin(self: &Rc<Self>) -> Active {
        self.running.set(self.running.get() + 1);
        self.changed.notify_one();
        Active(Rc::clone(self))
    }

    /// Waits until none has run for so long.
    pub(super) async fn idle_for(&self, time: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.running.get() > 0 {
                changed.await;
            } else if tokio::time::timeout(time, changed).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.changed.notify_one();
    }
}
