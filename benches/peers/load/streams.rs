//! Many streams at once: opened, and kept.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::http1::{Connection, get};
use crate::backend::socket;

/// How a connection becomes what is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Opening {
    /// One request was answered.
    KeptAlive,
    /// An event stream whose first event came.
    Events,
    /// An event stream that gets its part of what is sent at an even pace.
    PacedEvents,
    /// A WebSocket that has echoed one message.
    Socket,
}

/// Opens so many connections, some at a time.
pub(crate) async fn open(address: SocketAddr, count: usize, opening: Opening) -> Result<Vec<TcpStream>> {
    let opened = stream::iter(0..count).map(|_| opened(address, opening)).buffer_unordered(64);
    opened.try_collect().await.with_context(|| format!("opening {count} connections"))
}

async fn opened(address: SocketAddr, opening: Opening) -> Result<TcpStream> {
    let mut connection = Connection::open(address, 2048).await?;
    match opening {
        Opening::KeptAlive => connection.ask(&get("bench.example.com", "/bytes/130")).await?,
        Opening::Events => events(&mut connection, "/events/idle").await?,
        Opening::PacedEvents => events(&mut connection, "/events/paced").await?,
        Opening::Socket => {
            let request = format!(
                "GET /socket HTTP/1.1\r\nHost: bench.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
                socket::KEY
            );
            connection.stream.write_all(request.as_bytes()).await?;
            let status = connection.head().await?.status;
            if status != 101 || !connection.unused().is_empty() {
                bail!("status {status} to a WebSocket");
            }
            echoed(&mut connection.stream).await?;
        }
    }
    Ok(connection.stream)
}

async fn events(connection: &mut Connection, path: &str) -> Result<()> {
    connection.stream.write_all(&get("bench.example.com", path)).await?;
    let status = connection.head().await?.status;
    if status != 200 {
        bail!("status {status} to an event stream");
    }
    while !connection.unused().windows(2).any(|end| end == b"\n\n") {
        connection.more().await?;
    }
    Ok(())
}

/// Sends a message and reads it back.
pub(crate) async fn echoed(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&socket::message()).await?;
    let mut buffer = [0; 512];
    let answer = socket::frame(stream, &mut buffer, socket::FROM_SERVER).await?;
    if answer[4..].iter().any(|byte| *byte != b'x') {
        bail!("another message than was sent");
    }
    Ok(())
}
