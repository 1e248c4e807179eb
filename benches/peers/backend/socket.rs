//! WebSockets on both ends: frames of one length, as bytes. Only what both sides of the load need to know of RFC 6455.

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The key of RFC 6455, section 1.3, and what it says is the answer to it.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                                   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Payload of every message, in bytes.
pub(crate) const PAYLOAD: usize = 128;
/// RFC 6455, section 5.2: two bytes, two of extended length from 126 bytes on, and four of mask from clients.
pub(crate) const FROM_CLIENT: usize = 2 + 2 + 4 + PAYLOAD;
pub(crate) const FROM_SERVER: usize = 2 + 2 + PAYLOAD;
const FINAL_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const LENGTH_OF_TWO_BYTES: u8 = 126;

/// A whole message from a client, masked.
pub(crate) fn message() -> [u8; FROM_CLIENT] {
    let mut frame = [0; FROM_CLIENT];
    frame[..4].copy_from_slice(&[FINAL_BINARY, MASKED | LENGTH_OF_TWO_BYTES, 0, PAYLOAD as u8]);
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame[4..8].copy_from_slice(&mask);
    for (at, byte) in frame[8..].iter_mut().enumerate() {
        *byte = b'x' ^ mask[at % 4];
    }
    frame
}

/// Reads a frame of a known length, with no other behind it. The buffer is longer, because a read that fills it would have to
/// be tried once more to learn that nothing is left.
pub(crate) async fn frame<'a>(stream: &mut TcpStream, buffer: &'a mut [u8; 512], length: usize) -> Result<&'a [u8]> {
    let mut filled = 0;
    while filled < length {
        match stream.read(&mut buffer[filled..]).await? {
            0 => bail!("the connection was closed"),
            read => filled += read,
        }
    }
    if filled > length {
        bail!("more than one frame");
    }
    Ok(&buffer[..length])
}

/// Sends messages back, unmasked, until the client goes.
pub(crate) async fn echo(mut stream: TcpStream) -> Result<()> {
    let mut buffer = [0; 512];
    let mut answer = [0; FROM_SERVER];
    answer[..4].copy_from_slice(&[FINAL_BINARY, LENGTH_OF_TWO_BYTES, 0, PAYLOAD as u8]);
    loop {
        let frame = frame(&mut stream, &mut buffer, FROM_CLIENT).await?;
        if frame[0] != FINAL_BINARY || frame[1] != MASKED | LENGTH_OF_TWO_BYTES {
            bail!("another frame than what was sent");
        }
        let (head, payload) = frame.split_at(8);
        for (at, byte) in payload.iter().enumerate() {
            answer[4 + at] = byte ^ head[4 + at % 4];
        }
        stream.write_all(&answer).await?;
    }
}
