//! Memory of objects and of the table made of them, each measured in a process of its own: growth of resident memory.

use std::process::Command;

use floodway::translate::Translator;

use crate::measure::{Report, resident};
use crate::samples::{ENDPOINTS, resources};
use crate::translate::context;

/// The argument of a child process.
pub(crate) const CHILD: &str = "--footprint";

pub(crate) fn run(report: &mut Report) {
    report.table(
        &format!("Memory per route with its Service and {ENDPOINTS} endpoints (glibc allocator)"),
        &["Routes", "Objects read", "Routing table and what the translator remembers"],
    );
    for count in ["1000", "10000"] {
        let output = Command::new(std::env::current_exe().unwrap()).args([CHILD, count]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (objects, table) = text.trim().split_once(' ').unwrap();
        report.row(&[count, &format!("{objects} bytes"), &format!("{table} bytes")]);
    }
}

/// Prints bytes per route of the objects and of what is made of them.
pub(crate) fn child(count: usize) {
    // So that code and the first pages of the heap do not count.
    drop(Translator::new(context()).translate(&resources(10)));
    let before = resident("self");
    let resources = resources(count);
    let read = resident("self");
    let mut translator = Translator::new(context());
    let translation = translator.translate(&resources);
    let translated = resident("self");
    println!("{} {}", (read - before) / count as u64, (translated - read) / count as u64);
    drop((resources, translator, translation));
}
