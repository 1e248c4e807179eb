//! HTTP/2 framing as both ends of the load speak it (RFC 9113): prepared blocks of header fields, and frames that are read by
//! their heads alone. A proxy between them sees ordinary HTTP/2; the load spends next to nothing on it.

use anyhow::{Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// What brings the window of a connection from its first 65,535 bytes to the largest there is. No load receives as much.
const WIDEST: u32 = 0x7fff_ffff - 65_535;

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A connection that reads frames, and gathers what is to be written.
pub(crate) struct Framed<S = TcpStream> {
    stream: S,
    read: Vec<u8>,
    /// What of it was not used yet.
    begin: usize,
    end: usize,
    pub(crate) out: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Framed<S> {
    pub(crate) fn new(stream: S) -> Self {
        let mut framed = Framed { stream, read: vec![0; 64 * 1024], begin: 0, end: 0, out: Vec::new() };
        // MAX_CONCURRENT_STREAMS
        framed.frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 4, 0]);
        framed.frame(WINDOW_UPDATE, 0, 0, &WIDEST.to_be_bytes());
        framed
    }

    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    /// Waits for bytes behind those that are there. None: the peer has gone.
    pub(crate) async fn more(&mut self) -> Result<Option<&[u8]>> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
            self.stream.flush().await?;
            self.out.clear();
        }
        self.read.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        let read = self.stream.read(&mut self.read[self.end..]).await?;
        self.end += read;
        Ok((read > 0).then_some(&self.read[..self.end]))
    }

    /// Skips bytes that were read.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.begin += bytes;
    }

    /// The next frame that is there as a whole. What belongs to the connection is dealt with here.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>> {
        while let Some(head) = self.read[self.begin..self.end].first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if self.end - self.begin < 9 + length {
                break;
            }
            let payload = self.begin + 9..self.begin + 9 + length;
            self.begin = payload.end;
            match kind {
                SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => {
                    let payload = self.read[payload].to_vec();
                    self.frame(PING, ACK, 0, &payload);
                }
                HEADERS if flags & END_HEADERS == 0 => bail!("header fields in more than one frame"),
                // Of header fields the first byte is looked at, which is the status.
                DATA | HEADERS | RST_STREAM | GOAWAY => {
                    let payload = self.read[payload].to_vec();
                    return Ok(Some(Frame { kind, flags, stream, payload }));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// A field whose name is in the static table (RFC 7541, appendix A), to be remembered by the peer.
pub(crate) fn remembered(block: &mut Vec<u8>, name: u8, value: &str) {
    block.extend_from_slice(&[0x40 | name, value.len() as u8]);
    block.extend_from_slice(value.as_bytes());
}

/// Any field, to be remembered by the peer.
pub(crate) fn remembered_anew(block: &mut Vec<u8>, name: &str, value: &str) {
    block.extend_from_slice(&[0x40, name.len() as u8]);
    block.extend_from_slice(name.as_bytes());
    block.push(value.len() as u8);
    block.extend_from_slice(value.as_bytes());
}

/// Any field, written out each time.
pub(crate) fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    let at = block.len();
    remembered_anew(block, name, value);
    block[at] = 0;
}
