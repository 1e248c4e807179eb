//! Timing, and the report.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Processor time of one call: the median of five rounds, each long enough for the clock. Not the time on the wall, so
/// that a busy machine spoils the figures less.
pub(crate) fn time<T>(mut call: impl FnMut() -> T) -> Duration {
    const ROUND: Duration = Duration::from_millis(100);
    let mut calls = 1_u32;
    loop {
        let start = processor();
        for _ in 0..calls {
            black_box(call());
        }
        if processor() - start >= ROUND || calls >= 1 << 24 {
            break;
        }
        calls *= 2;
    }
    let mut rounds: Vec<Duration> = (0..5)
        .map(|_| {
            let start = processor();
            for _ in 0..calls {
                black_box(call());
            }
            (processor() - start) / calls
        })
        .collect();
    rounds.sort_unstable();
    rounds[rounds.len() / 2]
}

/// The same, while so many threads do it in all. Each makes a call of its own.
pub(crate) fn contended<T, F: FnMut() -> T>(threads: usize, make: impl Fn() -> F + Sync) -> Duration {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| {
                let mut call = make();
                while !over.load(Ordering::Relaxed) {
                    black_box(call());
                }
            });
        }
        let time = time(make());
        over.store(true, Ordering::Relaxed);
        time
    })
}

/// Time that this thread has spent on a processor.
fn processor() -> Duration {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(times.split(' ').next().unwrap().parse().unwrap())
}

/// Three digits and a unit.
pub(crate) fn shown(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    match nanos {
        0.0..1e3 => format!("{nanos:.0} ns"),
        1e3..1e6 => format!("{:.1} µs", nanos / 1e3),
        1e6..1e9 => format!("{:.2} ms", nanos / 1e6),
        _ => format!("{:.2} s", nanos / 1e9),
    }
}

/// Resident memory of a process, or of this one (`self`), in bytes.
pub(crate) fn resident(pid: &str) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// A size in /proc/PID/status, in bytes.
pub(crate) fn status_bytes(pid: &str, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Tables, as Markdown.
#[derive(Default)]
pub(crate) struct Report(String);

impl Report {
    pub(crate) fn table(&mut self, title: &str, columns: &[&str]) {
        let line = format!("\n### {title}\n\n| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
        self.add(&line);
    }

    pub(crate) fn row(&mut self, cells: &[&str]) {
        self.add(&format!("| {} |\n", cells.join(" | ")));
    }

    fn add(&mut self, text: &str) {
        print!("{text}");
        self.0.push_str(text);
    }

    /// Tells about the machine, and keeps the report if asked to.
    pub(crate) fn finish(self, write: bool) {
        const MARK: &str = "<!-- Below this line: written by `make bench-config`. -->\n";
        let about = about();
        println!("\n{about}");
        if write {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md");
            let page = fs::read_to_string(path).unwrap();
            let kept = &page[..page.find(MARK).unwrap() + MARK.len()];
            fs::write(path, format!("{kept}\n{about}{}", self.0)).unwrap();
        }
    }
}

fn about() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rustc = std::process::Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{date}; {cores} cores of {}, {} GiB of memory, Linux {}; {rustc}, release profile; floodway {}.",
        model.trim_start_matches([' ', '\t', ':']),
        kib.div_ceil(1024 * 1024),
        kernel.trim(),
        env!("CARGO_PKG_VERSION"),
    );
    text
}
