//! HTTP/2 from clients, and gRPC.

use anyhow::Result;

use super::Values;
use crate::Bench;
use crate::load::http2::{closed_loop, get, unary};
use crate::peers::Peer;

pub(super) async fn to_http1(bench: &Bench, peer: &Peer) -> Result<Values> {
    Ok(closed_loop(peer.ports.http2, &get(super::requests::SMALL, 130)).cost(bench, peer).await?.figures())
}

pub(super) async fn grpc(bench: &Bench, peer: &Peer) -> Result<Values> {
    Ok(closed_loop(peer.ports.grpc, &unary()).cost(bench, peer).await?.figures())
}
