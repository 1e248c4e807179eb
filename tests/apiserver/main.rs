//! Tests against a real etcd and kube-apiserver, with the real `floodway gateway` program. `tests/tools/build.sh` makes
//! the two available; without them every test here fails and says so.
#![allow(clippy::unwrap_used)]

mod certificates;
mod control_plane;
mod crds;
mod doctor;
mod doctor_injector;
mod doctor_redis;
mod gateway;
mod guarded;
#[path = "../chart/helm.rs"]
#[allow(dead_code)]
mod helm;
mod http1;
mod injector;
mod install;
mod kubectl;
mod narrow;
mod network;
mod objects;
mod planted;
#[path = "../proxy/redis_server.rs"]
#[allow(dead_code, unreachable_pub)]
mod redis_server;
mod secrets;
mod sidecar;
mod source;
mod status;
mod traffic;

/// The program that is tried: another build of it, if the environment names one.
fn program() -> std::ffi::OsString {
    std::env::var_os("FLOODWAY").unwrap_or_else(|| env!("CARGO_BIN_EXE_floodway").into())
}
