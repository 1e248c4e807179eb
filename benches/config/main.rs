//! `make bench-config`: what configuration costs, in time and memory. Prints tables, and with `--write` keeps them in
//! docs/benchmarks.md. Not a test: nothing here passes or fails.

// Programs are timed by the clock on the wall, not by one that tests can pause.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod admission;
mod balance;
#[path = "../../tests/apiserver/control_plane.rs"]
#[allow(dead_code, unreachable_pub)]
mod control_plane;
mod footprint;
mod guard;
#[path = "../../tests/apiserver/guarded.rs"]
#[allow(dead_code, unreachable_pub)]
mod guarded;
mod issuer;
mod measure;
#[path = "../../tests/apiserver/objects.rs"]
#[allow(dead_code, unreachable_pub)]
mod objects;
mod policy;
mod program;
mod rate;
mod record;
mod router;
mod samples;
mod served;
mod token;
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
    if only("balance") {
        balance::run(&mut report);
    }
    if only("admission") {
        admission::run(&mut report);
    }
    if only("rate") {
        rate::run(&mut report);
    }
    if only("guard") {
        guard::run(&mut report);
    }
    if only("token") {
        token::run(&mut report);
    }
    if only("policy") {
        policy::run(&mut report);
    }
    if only("record") {
        record::run(&mut report);
    }
    if only("standalone") {
        served::standalone(&mut report);
    }
    if only("gateway") {
        served::gateway(&mut report);
    }
    report.finish(arguments.iter().any(|argument| argument == "--write"));
}
