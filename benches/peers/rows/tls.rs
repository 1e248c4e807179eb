//! TLS with clients: what a new connection costs, and a request on one that is kept.

use anyhow::Result;

use super::Values;
use super::requests::SMALL;
use crate::Bench;
use crate::load::http1::get;
use crate::load::tls::{Sessions, closed_loop, handshakes, http2_loop};
use crate::load::{Cost, http2};
use crate::peers::Peer;

const CLIENTS: usize = 64;
const READ: usize = 4096;

pub(super) async fn full(bench: &Bench, peer: &Peer) -> Result<Values> {
    Ok(figures(&handshakes(peer.ports.https, Sessions::New).cost(bench, peer).await?))
}

pub(super) async fn resumed(bench: &Bench, peer: &Peer) -> Result<Values> {
    Ok(figures(&handshakes(peer.ports.https, Sessions::Resumed).cost(bench, peer).await?))
}

fn figures(cost: &Cost) -> Values {
    [cost.figures(), vec![1e6 / cost.micros]].concat()
}

pub(super) async fn http1(bench: &Bench, peer: &Peer) -> Result<Values> {
    let request = get(crate::certificate::NAME, SMALL);
    Ok(closed_loop(peer.ports.https, CLIENTS, request, READ).cost(bench, peer).await?.figures())
}

pub(super) async fn over_http2(bench: &Bench, peer: &Peer) -> Result<Values> {
    Ok(http2_loop(peer.ports.https, &http2::get(SMALL, 130)).cost(bench, peer).await?.figures())
}
