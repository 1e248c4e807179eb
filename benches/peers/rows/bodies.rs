//! Larger bodies, either way.

use std::time::Duration;

use anyhow::Result;
use tokio::io::AsyncWriteExt;

use super::Values;
use crate::Bench;
use crate::load::http1::{Connection, closed_loop, get};
use crate::peers::Peer;

const CLIENTS: usize = 16;
const READ: usize = 256 * 1024;
const GIB: usize = 1 << 30;

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

/// Processor time for each GiB of one download, in milliseconds.
pub(super) async fn download(bench: &Bench, peer: &Peer) -> Result<Values> {
    let bytes = bench.args.count(GIB);
    let processes = peer.processes();
    let began = processes.processor()?;
    let mut connection = Connection::open(peer.ports.http1, READ).await?;
    connection.ask(&get("bench.example.com", &format!("/bytes/{bytes}"))).await?;
    per_gib(processes.processor()? - began, bytes)
}

/// The same of one upload.
pub(super) async fn upload(bench: &Bench, peer: &Peer) -> Result<Values> {
    let bytes = bench.args.count(GIB);
    let processes = peer.processes();
    let began = processes.processor()?;
    let mut connection = Connection::open(peer.ports.http1, READ).await?;
    let head = format!("POST /upload HTTP/1.1\r\nHost: bench.example.com\r\nContent-Length: {bytes}\r\n\r\n");
    connection.stream.write_all(head.as_bytes()).await?;
    let piece = vec![b'x'; READ];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len());
        connection.stream.write_all(&piece[..now]).await?;
        left -= now;
    }
    // The answer to the upload.
    connection.ask(&[]).await?;
    per_gib(processes.processor()? - began, bytes)
}

fn per_gib(spent: Duration, bytes: usize) -> Result<Values> {
    Ok(vec![spent.as_secs_f64() * 1e3 * GIB as f64 / bytes as f64])
}
