//! What the kernel knows of this process, read from /proc when metrics are asked for. By hand, because it is four files;
//! `prometheus`'s own collector brings `procfs` and three more crates.

use std::fs;
use std::time::SystemTime;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::collect::{counter, family, gauge};
use super::metrics::{
    Declared, PROCESS_CPU, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_MEMORY, PROCESS_START, PROCESS_THREADS,
    PROCESS_VIRTUAL, Type,
};

const FAMILIES: [Declared; 7] =
    [PROCESS_CPU, PROCESS_MEMORY, PROCESS_VIRTUAL, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_THREADS, PROCESS_START];

/// `USER_HZ`, the unit of times in /proc/self/stat: 100 on every architecture that Linux still builds for us.
const TICKS_PER_SECOND: f64 = 100.0;

/// Collects what the kernel knows. A value that cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process {
    descs: Vec<Desc>,
    started: f64,
}

impl Process {
    pub(super) fn new() -> Self {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Process { descs: FAMILIES.iter().map(Declared::desc).collect(), started: started.as_secs_f64() }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
        let values = [
            cpu_seconds(&stat),
            number_after(&status, "VmRSS:").map(|kib| kib * 1024.0),
            number_after(&status, "VmSize:").map(|kib| kib * 1024.0),
            open,
            number_after(&limits, "Max open files"),
            number_after(&status, "Threads:"),
            Some(self.started),
        ];
        FAMILIES
            .iter()
            .zip(values)
            .filter_map(|(declared, value)| {
                let metric = if declared.kind == Type::Counter { counter(&[], value?) } else { gauge(&[], value?) };
                Some(family(declared, vec![metric]))
            })
            .collect()
    }
}

/// The first number after `key` at the beginning of a line.
fn number_after(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// User and system time; fields 14 and 15 of proc_pid_stat(5), counted behind the name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hostile_names_and_missing_files() {
        let stat = "1 (a) b) c) S 0 1 1 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(
            number_after("Max open files            1024                 4096  files", "Max open files"),
            Some(1024.0)
        );
        assert_eq!(number_after("VmRSS:\t  300 kB", "VmRSS:"), Some(300.0));
        assert_eq!(number_after("", "VmRSS:"), None);
    }

    #[test]
    fn tells_something_of_this_process() {
        let families = Process::new().collect();
        let names: Vec<_> = families.iter().map(MetricFamily::name).collect();
        assert!(names.contains(&"process_resident_memory_bytes"), "{names:?}");
        assert!(families.iter().all(|family| family.get_metric().len() == 1));
    }
}
