//! WebSocket frames written and read by hand, for what no client sends.

use tokio::io::AsyncReadExt as _;

use super::support::*;

pub const END: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const KEY: [u8; 4] = [7, 77, 177, 250];

/// The header of a frame with a payload of this length.
pub fn header(first: u8, masked: bool, length: u64) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut header = match length {
        0..126 => vec![first, bit | length as u8],
        126..65536 => [&[first, bit | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, bit | 127][..], &length.to_be_bytes()].concat(),
    };
    header.extend(if masked { &KEY[..] } else { &[] });
    header
}

fn mask(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

/// A frame as the client sends it, masked, or as the endpoint does.
pub fn frame(first: u8, by_client: bool, payload: &[u8]) -> Vec<u8> {
    let payload_sent = if by_client { mask(payload, KEY) } else { payload.to_vec() };
    [header(first, by_client, payload.len() as u64), payload_sent].concat()
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    pub first: u8,
    pub key: Option<[u8; 4]>,
    pub payload: Vec<u8>,
}

/// The next frame.
pub async fn next(side: &mut Raw) -> Came {
    let read = async {
        let [first, second] = [side.0.read_u8().await?, side.0.read_u8().await?];
        let length = match second & 0x7f {
            126 => u64::from(side.0.read_u16().await?),
            127 => side.0.read_u64().await?,
            short => u64::from(short),
        };
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            side.0.read_exact(&mut key).await?;
        }
        let mut payload = vec![0; length as usize];
        side.0.read_exact(&mut payload).await?;
        std::io::Result::Ok(Came { first, key: (second & 0x80 != 0).then_some(key), payload: mask(&payload, key) })
    };
    within(read).await.unwrap()
}

/// The payload of a close frame.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}
