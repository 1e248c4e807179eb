//! Tests against a real etcd and kube-apiserver, with the real `floodway gateway` program. `tests/tools/build.sh` makes
//! the two available; without them every test here fails and says so.
#![allow(clippy::unwrap_used, dead_code)]

mod control_plane;
mod crds;
mod guarded;
mod objects;
