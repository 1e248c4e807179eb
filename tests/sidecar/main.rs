//! A sidecar beside an app: what comes to it, what it asks of others, and what is passed on. Where connections were to go, the tests
//! say in the place of the kernel, so that nobody needs a privilege.
#![allow(clippy::unwrap_used)]

mod captured;
#[path = "../capture/elsewhere.rs"]
mod elsewhere;
mod ending;
mod grpc;
mod guarded;
mod kernel;
mod local;
#[path = "../apiserver/network.rs"]
#[allow(dead_code)]
mod network;
mod outbound;
mod passed;
mod probes;
mod support;
