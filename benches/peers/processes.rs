//! Processor time and memory of a proxy with all its processes, read from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The processes of one proxy: all of the process group that it leads.
#[derive(Clone, Debug)]
pub(crate) struct Processes(Vec<String>);

impl Processes {
    /// Those that exist now.
    pub(crate) fn of_group(leader: u32) -> Self {
        let leader = leader.to_string();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let named = all.filter_map(|entry| entry.file_name().into_string().ok());
        let pids = named.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        Processes(pids.filter(|pid| group_of(pid).is_some_and(|group| group == leader)).collect())
    }

    /// This process itself.
    pub(crate) fn own() -> Self {
        Processes(vec!["self".to_owned()])
    }

    /// Time on a processor so far, of all threads that still run. From schedstat, because it counts nanoseconds where
    /// utime and stime count hundredths of a second.
    pub(crate) fn processor(&self) -> Result<Duration> {
        let mut nanos = 0;
        for pid in &self.0 {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
                nanos += text.split(' ').next().unwrap_or_default().parse::<u64>().context("schedstat")?;
            }
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Resident memory in bytes. From smaps_rollup, because the figure in `status` may be some hundred pages behind.
    pub(crate) fn resident(&self) -> Result<u64> {
        let mut bytes = 0;
        for pid in &self.0 {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("smaps_rollup")?;
            let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss in smaps_rollup")?;
            bytes += line.split_whitespace().next().unwrap_or_default().parse::<u64>()? * 1024;
        }
        Ok(bytes)
    }
}

/// The fifth field of /proc/PID/stat, counted behind the name, which may contain anything.
fn group_of(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.to_owned())
}
