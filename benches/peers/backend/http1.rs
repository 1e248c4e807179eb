//! The HTTP/1.1 side of the backend. Requests come from proxies, so that it believes them to be well formed.

use std::io;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Shared, socket};

/// Bodies up to this length are kept whole.
const WHOLE: usize = 1 << 20;
const PIECE: usize = 256 * 1024;
/// How an event stream begins: head and first event.
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n\
                      d\r\ndata: ready\n\n\r\n";

pub(crate) async fn serve(mut stream: TcpStream, shared: &Shared) -> Result<()> {
    let mut buffer = vec![0; 4096];
    let mut filled = 0;
    let mut answer = (usize::MAX, Bytes::new());
    loop {
        let head = loop {
            if let Some(end) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") {
                break end + 4;
            }
            if filled == buffer.len() {
                bail!("a head of more than {filled} bytes");
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                read => filled += read,
            }
        };
        let target = buffer[..head].split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if let Some(length) = target.strip_prefix(b"/bytes/") {
            let length: usize = std::str::from_utf8(length)?.parse()?;
            if length > WHOLE {
                stream.write_all(head_of(length).as_bytes()).await?;
                long(&mut stream, length).await?;
            } else {
                if answer.0 != length {
                    answer = (length, whole(shared, length));
                }
                stream.write_all(&answer.1).await?;
            }
        } else if target == b"/upload" {
            let head = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
            let early = filled - head.len();
            read_body(&mut stream, &head, &buffer[head.len()..head.len() + early]).await?;
            stream.write_all(&whole(shared, 2)).await?;
            filled = 0;
            continue;
        } else if target == b"/events/idle" {
            stream.write_all(EVENTS.as_bytes()).await?;
            // The end of a client ends the stream.
            drop(buffer);
            while stream.read(&mut [0; 16]).await? > 0 {}
            return Ok(());
        } else if target == b"/events/paced" {
            stream.write_all(EVENTS.as_bytes()).await?;
            shared.paced.join(stream);
            return Ok(());
        } else if target == b"/socket" {
            stream.write_all(socket::ACCEPTED.as_bytes()).await?;
            return socket::echo(stream).await;
        } else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
        }
        buffer.copy_within(head..filled, 0);
        filled -= head;
    }
}

fn head_of(length: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\r\n"
    )
}

fn whole(shared: &Shared, length: usize) -> Bytes {
    let mut answers = shared.answers.lock().unwrap();
    let answer = answers.entry(length).or_insert_with(|| {
        let mut answer = head_of(length).into_bytes();
        answer.resize(answer.len() + length, b'x');
        answer.into()
    });
    answer.clone()
}

async fn long(stream: &mut TcpStream, mut length: usize) -> Result<()> {
    let piece = vec![b'x'; PIECE];
    while length > 0 {
        let now = length.min(piece.len());
        stream.write_all(&piece[..now]).await?;
        length -= now;
    }
    Ok(())
}

/// Reads a body to its end, by its length or in chunks.
async fn read_body(stream: &mut TcpStream, head: &str, early: &[u8]) -> Result<()> {
    let mut piece = vec![0; PIECE];
    if let Some(length) = head.split("content-length:").nth(1) {
        let length: usize = length.lines().next().unwrap_or_default().trim().parse().context("length")?;
        let mut left = length - early.len();
        while left > 0 {
            left -= match stream.read(&mut piece).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                read => read,
            };
        }
        return Ok(());
    }
    // In chunks: the last one is empty. The body has no such bytes inside.
    const LAST: &[u8] = b"\r\n0\r\n\r\n";
    let mut tail = early.to_vec();
    while !tail.ends_with(LAST) {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        tail.extend_from_slice(&piece[read.saturating_sub(LAST.len())..read]);
        tail.drain(..tail.len().saturating_sub(LAST.len()));
    }
    Ok(())
}
