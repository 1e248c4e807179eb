//! Small requests, as fast as they are answered.

use anyhow::Result;

use super::Values;
use crate::Bench;
use crate::load::http1::{closed_loop, get, get_with};
use crate::peers::Peer;
use crate::template::{HOSTS, host};

const CLIENTS: usize = 64;
const READ: usize = 4096;
pub(super) const SMALL: &str = "/bytes/130";

pub(super) async fn http1(bench: &Bench, peer: &Peer) -> Result<Values> {
    let requests = vec![get("bench.example.com", SMALL)];
    Ok(closed_loop(peer.ports.http1, CLIENTS, requests, READ).cost(bench, peer).await?.figures())
}

/// To all hosts in turn.
pub(super) async fn http1_logged(bench: &Bench, peer: &Peer) -> Result<Values> {
    let requests = (0..HOSTS).map(|index| get(&host(index), SMALL)).collect();
    let cost = closed_loop(peer.ports.http1, CLIENTS, requests, READ).cost(bench, peer).await?;
    peer.check_log()?;
    Ok(cost.figures())
}

/// To an upstream that is guarded and to one that is not.
pub(super) async fn guarded(bench: &Bench, peer: &Peer) -> Result<Values> {
    with_and_without(bench, peer, get("guarded.example.com", SMALL)).await
}

/// Under a policy, with what it asks for, and under none.
pub(super) async fn policed(bench: &Bench, peer: &Peer) -> Result<Values> {
    let said = format!("Origin: https://shop.example.com\r\nAuthorization: Bearer {}\r\n", bench.issuer.1);
    with_and_without(bench, peer, get_with("policed.example.com", SMALL, &said)).await
}

/// A request that costs more and the plain one, of the same process, so that nothing else differs; twice each, with the turns such that
/// neither gains by a machine that becomes faster or slower.
async fn with_and_without(bench: &Bench, peer: &Peer, dear: Vec<u8>) -> Result<Values> {
    let plain = get("bench.example.com", SMALL);
    let mut micros = [0.0, 0.0];
    for which in [0, 1, 1, 0] {
        let requests = vec![[&dear, &plain][which].clone()];
        micros[which] += closed_loop(peer.ports.http1, CLIENTS, requests, READ).cost(bench, peer).await?.micros / 2.0;
    }
    let [with, without] = micros;
    Ok(vec![with / without, with, without])
}
