//! The HTTP/2 side of the backend: answers every gRPC call with the same message, whatever is called.

use anyhow::{Result, bail};
use tokio::net::TcpStream;

use crate::frames::{DATA, END_HEADERS, END_STREAM, Framed, HEADERS, PREFACE, literal};

/// Of a call and its answer, in bytes.
pub(crate) const MESSAGE: usize = 100;

/// A message with its prefix: not compressed, four bytes of length.
pub(crate) fn message() -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(MESSAGE as u32).to_be_bytes());
    message.resize(message.len() + MESSAGE, b'x');
    message
}

pub(super) async fn serve(stream: TcpStream) -> Result<()> {
    let mut framed = Framed::new(stream);
    // :status: 200, by the static table.
    let mut head = vec![0x88];
    literal(&mut head, "content-type", "application/grpc");
    let mut trailers = Vec::new();
    literal(&mut trailers, "grpc-status", "0");
    let message = message();
    loop {
        let Some(bytes) = framed.more().await? else { return Ok(()) };
        if bytes.len() < PREFACE.len() {
            continue;
        }
        if bytes[..PREFACE.len()] != *PREFACE {
            bail!("not HTTP/2");
        }
        break framed.skip(PREFACE.len());
    }
    loop {
        while let Some(frame) = framed.next()? {
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                framed.frame(HEADERS, END_HEADERS, frame.stream, &head);
                framed.frame(DATA, 0, frame.stream, &message);
                framed.frame(HEADERS, END_HEADERS | END_STREAM, frame.stream, &trailers);
            }
        }
        if framed.more().await?.is_none() {
            return Ok(());
        }
    }
}
