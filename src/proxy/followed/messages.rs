//! Where messages begin and end in gRPC content. Pure; what is done between messages is `Followed`'s to say.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::Units;
use crate::proxy::exchange::Farewell;
use crate::snapshot::Streaming;

/// A flag for compression, and four bytes for the message's length: gRPC over HTTP/2, "Length-Prefixed-Message →
/// Compressed-Flag Message-Length Message", "Message-Length → {length of Message} # encoded as 4 byte unsigned integer (big
/// endian)".
const PREFIX: usize = 5;

/// Follows the messages of an answer, however its bytes are cut into pieces.
#[derive(Debug, Default)]
pub(super) struct MessageScan {
    /// What came of a prefix that has not come whole.
    prefix: [u8; PREFIX],
    came: u8,
    /// What is missing of the message.
    missing: u32,
    ended: u64,
}

impl MessageScan {
    /// Goes over the rest of a message. How long that is, or `None` if its end has not come.
    fn message(&mut self, bytes: &[u8]) -> Option<usize> {
        let came = usize::from(self.came);
        let head = bytes.len().min(PREFIX - came);
        if head > 0 {
            self.prefix[came..came + head].copy_from_slice(&bytes[..head]);
            self.came += head as u8;
        }
        if usize::from(self.came) < PREFIX {
            return None;
        }
        if came < PREFIX {
            let [_, length @ ..] = self.prefix;
            self.missing = u32::from_be_bytes(length);
        }
        let rest = (bytes.len() - head).min(self.missing as usize);
        self.missing -= rest as u32;
        if self.missing > 0 {
            return None;
        }
        self.came = 0;
        self.ended += 1;
        Some(head + rest)
    }
}

impl Units for MessageScan {
    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some(length) = self.message(bytes) {
            bytes = &bytes[length..];
        }
    }

    fn pass_to_gap(&mut self, bytes: &[u8]) -> Option<usize> {
        self.message(bytes)
    }

    fn in_gap(&self) -> bool {
        self.came == 0
    }

    fn take_ended(&mut self) -> u64 {
        std::mem::take(&mut self.ended)
    }

    /// gRPC status codes: `UNAVAILABLE` (14), "The service is currently unavailable. This is most likely a transient condition,
    /// which can be corrected by retrying with a backoff." Clients that retry on anything retry on this.
    fn last_words(why: Farewell, _: Option<&Streaming>) -> Option<Frame<Bytes>> {
        let status = match why {
            // "UNAUTHENTICATED": who comes back with the same token is not let in.
            Farewell::TokenExpired(_) => "16",
            _ => "14",
        };
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status));
        if let Ok(message) = HeaderValue::try_from(why.error().to_string()) {
            trailers.insert(HeaderName::from_static("grpc-message"), message);
        }
        Some(Frame::trailers(trailers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend_from_slice(&u32::try_from(length).expect("small").to_be_bytes());
        message.resize(PREFIX + length, b'x');
        message
    }

    #[test]
    fn messages_end_at_the_same_places_however_they_are_split() {
        let raw = [message(0), message(3), message(300), message(0)].concat();
        let gaps = [0, 5, 13, 318, 323];
        for first in 0..=raw.len() {
            for second in first..=raw.len() {
                let mut scan = MessageScan::default();
                for piece in [&raw[..first], &raw[first..second]] {
                    scan.pass(piece);
                }
                assert_eq!(scan.in_gap(), gaps.contains(&second), "{first} {second}");
                let next = scan.pass_to_gap(&raw[second..]).map(|length| second + length);
                assert_eq!(next, gaps.into_iter().find(|&gap| gap > second), "{first} {second}");
            }
        }
        let mut scan = MessageScan::default();
        scan.pass(&raw);
        assert_eq!((scan.take_ended(), scan.take_ended()), (4, 0));
    }

    #[test]
    fn the_largest_message_is_no_trouble() {
        let mut scan = MessageScan::default();
        scan.pass(&[1, 0xff, 0xff, 0xff, 0xff]);
        let piece = vec![0; 1 << 20];
        for _ in 0..4095 {
            scan.pass(&piece);
        }
        assert_eq!(scan.pass_to_gap(&piece), Some((1 << 20) - 1));
    }
}
