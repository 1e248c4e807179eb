//! Figures that scenarios find, printed at the end and, if asked for, kept in docs/benchmarks.md.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

const BEGIN: &str = "<!-- Begin: written by `make e2e`. -->";
const END: &str = "<!-- End: written by `make e2e`. -->";

#[derive(Default)]
pub(crate) struct Figures(RefCell<Vec<(String, String)>>);

impl Figures {
    pub(crate) fn add(&self, what: impl Into<String>, value: impl Into<String>) {
        self.0.borrow_mut().push((what.into(), value.into()));
    }

    pub(crate) fn print(&self) {
        for (what, value) in self.0.borrow().iter() {
            println!("  {what}: {value}");
        }
    }

    /// Puts the table into the document, in place of the last one.
    pub(crate) fn write(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
        let text = fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("docs/benchmarks.md has the marks");
        let (_, after) = rest.split_once(END).expect("docs/benchmarks.md has the marks");
        let mut table = format!("\n\n{}\n\n| | |\n|---|---|\n", circumstances());
        for (what, value) in self.0.borrow().iter() {
            let _ = writeln!(table, "| {what} | {value} |");
        }
        fs::write(&path, format!("{before}{BEGIN}{table}\n{END}{after}")).unwrap();
    }
}

/// When, and on what.
fn circumstances() -> String {
    let today = Command::new("date").args(["-u", "+%F"]).output().unwrap().stdout;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let today = String::from_utf8_lossy(&today).trim().to_owned();
    format!("{today}; {processors} processors, Linux {}.", kernel.trim())
}
