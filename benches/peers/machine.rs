//! The machine: cores, open files, signals, and what to say about it in the report.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::signal::unix::{SignalKind, signal};

/// Who runs where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: usize,
    pub(crate) load: usize,
    pub(crate) backend: usize,
}

/// Reads `PROXY,LOAD[,BACKEND]`, or chooses.
pub(crate) fn cores(text: &str) -> Result<Cores, String> {
    if text == "auto" {
        let allowed = sched_getaffinity(None).map_err(|error| error.to_string())?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let proxy = *allowed.last().ok_or("no core is allowed")?;
        let load = allowed[allowed.len().saturating_sub(2)];
        if load == proxy {
            eprintln!(
                "warning: there is one core only; load and proxies disturb each other, so the figures mean little"
            );
        }
        return Ok(Cores { proxy, load, backend: load });
    }
    let named: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    match named.map_err(|_| "cores are numbers from 0")?[..] {
        [proxy, load] => Ok(Cores { proxy, load, backend: load }),
        [proxy, load, backend] => Ok(Cores { proxy, load, backend }),
        _ => Err("two or three cores".to_owned()),
    }
}

/// Keeps this thread on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core}"))
}

/// Says so if somebody else uses the cores.
pub(crate) async fn look_for_noise(cores: Cores) {
    const MOST: f64 = 0.05;
    for core in [cores.proxy, cores.load] {
        let before = busy(core);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let share = busy(core).zip(before).map(|(after, before)| (after - before) / 0.5);
        if let Some(share) = share.filter(|share| *share > MOST) {
            eprintln!(
                "warning: core {core} is {:.0} % busy with other things; the figures will be too high",
                share * 100.0
            );
        }
    }
}

/// Seconds that a core was not idle, by /proc/stat, which counts hundredths: user, nice and system, each of which is
/// other people's before we begin.
fn busy(core: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} ")))?;
    let ticks = line.split_whitespace().take(3).filter_map(|ticks| ticks.parse::<f64>().ok());
    Some(ticks.sum::<f64>() / 100.0)
}

/// Load and backend hold two sockets per stream in this process, and so does a proxy in its own.
pub(crate) fn raise_open_files(needed: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if most < needed {
        bail!(
            "{needed} open files are needed, and this process may have {most}: run 'ulimit -Hn {needed}' as root, or raise \
             'nofile' in /etc/security/limits.conf, or use a smaller --scale"
        );
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

/// Waits for a signal that asks to end.
pub(crate) async fn signalled() -> &'static str {
    let mut interrupt = signal(SignalKind::interrupt()).unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let mut hangup = signal(SignalKind::hangup()).unwrap();
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    }
}

/// Date and machine, in one line.
pub(crate) fn about() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let count = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!(
        "{}; {count} cores of {}, {} GiB of memory, Linux {}; {rustc}",
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
        model.trim_start_matches([' ', '\t', ':']),
        kib.div_ceil(1024 * 1024),
        kernel.trim(),
    )
}
