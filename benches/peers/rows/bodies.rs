//! Larger bodies, either way.

use anyhow::Result;

use super::Values;
use crate::Bench;
use crate::load::http1::{closed_loop, get};
use crate::peers::Peer;

const CLIENTS: usize = 16;
const READ: usize = 256 * 1024;

pub(super) async fn kib64(bench: &Bench, peer: &Peer) -> Result<Values> {
    answers(bench, peer, "/bytes/65536").await
}

pub(super) async fn mib1(bench: &Bench, peer: &Peer) -> Result<Values> {
    answers(bench, peer, "/bytes/1048576").await
}

async fn answers(bench: &Bench, peer: &Peer, path: &str) -> Result<Values> {
    let requests = vec![get("bench.example.com", path)];
    Ok(closed_loop(peer.ports.http1, CLIENTS, requests, READ).cost(bench, peer).await?.figures())
}
