//! Floodway in a real Kubernetes of one node, which these tests bring up in namespaces of their own and take down again: `make e2e`.
//! Root, Linux and what `outside::prerequisites` names are needed, so a plain `cargo test` runs none of it.
//!
//! The program runs itself three times: `outside` makes the namespaces and cleans up, whatever happens inside; inside it brings up the
//! node and runs the scenarios; and in pods it is the application behind Floodway.
#![allow(clippy::unwrap_used)]

mod app;
mod cgroups;
mod clients;
mod cluster;
#[path = "../apiserver/control_plane.rs"]
#[allow(dead_code)]
mod control_plane;
mod figures;
#[path = "../apiserver/guarded.rs"]
#[allow(dead_code)]
mod guarded;
#[path = "../apiserver/http1.rs"]
#[allow(dead_code)]
mod http1;
mod image;
mod load;
mod node;
#[path = "../apiserver/objects.rs"]
#[allow(dead_code)]
mod objects;
mod outside;
mod pods;
mod scenarios;
mod streams;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["app", rest @ ..] => app::run(rest),
        ["inside", dir, wanted @ ..] => scenarios::run(PathBuf::from(dir), wanted),
        _ if std::env::var_os("FLOODWAY_E2E").is_none() => {
            println!("End-to-end tests: not run; they bring up a Kubernetes of their own. `make e2e` runs them.");
            ExitCode::SUCCESS
        }
        wanted => outside::run(wanted),
    }
}
