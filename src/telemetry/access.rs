//! The access log: each worker appends lines to a buffer of its own, and one thread empties the buffers into the
//! target. A target that is slow or stuck never holds a worker up: lines that do not fit are dropped and counted.
//!
//! Each worker has two buffers. Whichever the writer is just taking away, the other is free; so a worker only ever
//! tries locks, and never waits for one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::Duration;

use prometheus::core::{AtomicU64, GenericCounter};

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

impl std::str::FromStr for AccessLog {
    type Err = std::convert::Infallible;

    /// `off`, `stdout` (or `-`), or a path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "off" => AccessLog::Off,
            "stdout" | "-" => AccessLog::Stdout,
            path => AccessLog::File(path.into()),
        })
    }
}

/// Bytes a buffer may hold while the writer is busy.
const BUFFER: usize = 512 * 1024;
/// Bytes at which the writer is woken before its time.
const FULL: usize = 64 * 1024;
/// Time a line waits at most.
const INTERVAL: Duration = Duration::from_millis(100);
/// Time the end of the process waits for a target that is stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Buffers([Mutex<Vec<u8>>; 2]);

#[derive(Debug, Default)]
struct Shared {
    workers: Mutex<Vec<Arc<Buffers>>>,
    flushes: Mutex<Vec<SyncSender<()>>>,
    ended: AtomicBool,
}

/// The thread that writes. Ends, after writing what there is, when dropped.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Thread,
    dropped: GenericCounter<AtomicU64>,
}

/// A worker's end.
#[derive(Debug)]
pub(super) struct Sink {
    buffers: Arc<Buffers>,
    thread: Thread,
    dropped: GenericCounter<AtomicU64>,
}

impl Writer {
    /// Opens the target and starts the thread; `None` if the log is off.
    pub(super) fn open(target: &AccessLog, dropped: GenericCounter<AtomicU64>) -> io::Result<Option<Self>> {
        match target {
            AccessLog::Off => Ok(None),
            AccessLog::Stdout => Self::start(io::stdout(), dropped).map(Some),
            AccessLog::File(path) => {
                let file: File = OpenOptions::new().append(true).create(true).open(path)?;
                Self::start(file, dropped).map(Some)
            }
        }
    }

    fn start(target: impl Write + Send + 'static, dropped: GenericCounter<AtomicU64>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (writing, lost) = (Arc::clone(&shared), dropped.clone());
        let thread =
            thread::Builder::new().name("access-log".to_owned()).spawn(move || run(&writing, target, &lost))?;
        Ok(Writer { shared, thread: thread.thread().clone(), dropped })
    }

    pub(super) fn sink(&self) -> Sink {
        let buffers = Arc::new(Buffers::default());
        lock(&self.shared.workers).push(Arc::clone(&buffers));
        Sink { buffers, thread: self.thread.clone(), dropped: self.dropped.clone() }
    }

    /// Waits until everything appended before is written, but not longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        lock(&self.shared.flushes).push(done);
        self.thread.unpark();
        wait.recv_timeout(patience).is_ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush(PATIENCE);
        self.shared.ended.store(true, Relaxed);
        self.thread.unpark();
    }
}

impl Sink {
    /// Appends a line, if there is room.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        for buffer in &self.buffers.0 {
            let mut buffer = match buffer.try_lock() {
                Ok(buffer) => buffer,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            let before = buffer.len();
            if before >= BUFFER {
                continue;
            }
            write(&mut buffer);
            if before < FULL && buffer.len() >= FULL {
                self.thread.unpark();
            }
            return;
        }
        self.dropped.inc();
    }
}

fn run(shared: &Shared, mut target: impl Write, dropped: &GenericCounter<AtomicU64>) {
    let mut scratch = Vec::new();
    loop {
        // Read before the buffers are emptied, so that what was appended before either of them is written.
        let ended = shared.ended.load(Relaxed);
        let flushes = std::mem::take(&mut *lock(&shared.flushes));
        empty(shared, &mut target, &mut scratch, dropped);
        for done in flushes {
            let _ = done.send(());
        }
        if ended {
            return;
        }
        thread::park_timeout(INTERVAL);
    }
}

fn empty(shared: &Shared, target: &mut impl Write, scratch: &mut Vec<u8>, dropped: &GenericCounter<AtomicU64>) {
    // One whose worker has ended is emptied a last time.
    let mut workers = lock(&shared.workers);
    let mut last = workers.clone();
    // Under the same lock: a worker that came in between would be counted one short, and forgotten.
    workers.retain(|buffers| Arc::strong_count(buffers) > 2);
    drop(workers);
    for buffers in last.drain(..) {
        for buffer in &buffers.0 {
            std::mem::swap(&mut *lock(buffer), scratch);
            if scratch.is_empty() {
                continue;
            }
            // A target that fails (a closed pipe, a full disk) loses lines.
            if target.write_all(scratch).and_then(|()| target.flush()).is_err() {
                dropped.inc_by(scratch.iter().filter(|byte| **byte == b'\n').count() as u64);
            }
            // What a burst needed is given back after it.
            let used = scratch.len();
            scratch.clear();
            if used < scratch.capacity() / 4 {
                scratch.shrink_to(FULL);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc::Receiver;

    use super::*;

    fn dropped() -> GenericCounter<AtomicU64> {
        GenericCounter::new("dropped", "dropped").unwrap()
    }

    /// A target that takes a write only when the test lets it.
    struct Gate(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.recv().is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_time_and_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let writer = Writer::open(&AccessLog::File(path.clone()), dropped()).unwrap().unwrap();
        let sink = writer.sink();
        sink.append(|line| line.extend_from_slice(b"one\n"));
        assert!(crate::telemetry::tests::becomes(|| std::fs::read(&path).unwrap() == b"one\n"), "written unasked");
        sink.append(|line| line.extend_from_slice(b"two\n"));
        drop(sink);
        assert!(writer.flush(PATIENCE));
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        let sink = writer.sink();
        sink.append(|line| line.extend_from_slice(b"three\n"));
        drop(writer);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
    }

    #[test]
    fn a_stuck_target_costs_lines_not_time() {
        let (gate, turns) = sync_channel(0);
        let written = Arc::new(Mutex::new(Vec::new()));
        let counter = dropped();
        let writer = Writer::start(Gate(turns, Arc::clone(&written)), counter.clone()).unwrap();
        let sink = writer.sink();
        let line = [b'x'; 1023];
        let mut appended = 0;
        while counter.get() == 0 {
            sink.append(|buffer| {
                buffer.extend_from_slice(&line);
                buffer.push(b'\n');
            });
            appended += 1;
            assert!(appended < 10_000, "buffers are bounded");
        }
        assert!(!writer.flush(Duration::from_millis(1)), "stuck");
        // Let everything go: what was not dropped arrives whole.
        let opened = thread::spawn(move || while gate.send(()).is_ok() {});
        assert!(writer.flush(Duration::from_secs(10)));
        assert_eq!(written.lock().unwrap().len() as u64 / 1024, appended - counter.get());
        drop(writer);
        opened.join().unwrap();
    }

    #[test]
    fn a_broken_target_is_counted() {
        let (gate, turns) = sync_channel(0);
        drop(gate);
        let counter = dropped();
        let writer = Writer::start(Gate(turns, Arc::default()), counter.clone()).unwrap();
        let sink = writer.sink();
        sink.append(|line| line.extend_from_slice(b"a\nb\n"));
        assert!(writer.flush(PATIENCE));
        assert_eq!(counter.get(), 2);
    }

    #[test]
    fn ended_workers_are_forgotten() {
        let writer = Writer::start(io::sink(), dropped()).unwrap();
        drop(writer.sink());
        let kept = writer.sink();
        assert!(writer.flush(PATIENCE));
        assert_eq!(lock(&writer.shared.workers).len(), 1);
        drop(kept);
    }
}
