//! `make bench-config`: what configuration costs, in time and memory. Prints tables, and with `--write` keeps them in
//! docs/benchmarks.md. Not a test: nothing here passes or fails.

#![allow(clippy::unwrap_used, missing_docs)]

mod footprint;
mod measure;
mod objects;
mod record;
mod router;
mod translate;

use measure::Report;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [footprint::CHILD, routes] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return footprint::child(routes.parse().unwrap());
    }
    let only = |name: &str| {
        let named: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
        named.is_empty() || named.iter().any(|named| *named == name)
    };
    let mut report = Report::default();
    if only("translate") {
        translate::run(&mut report);
        footprint::run(&mut report);
    }
    if only("router") {
        router::run(&mut report);
    }
    if only("record") {
        record::run(&mut report);
    }
    report.finish(arguments.iter().any(|argument| argument == "--write"));
}
