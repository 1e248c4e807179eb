//! What Floodway itself says in a WebSocket: pings and closes, as frames. When it says them is `manners`' to say.

use bytes::Bytes;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::frames::{TOKEN, opcode};
use crate::proxy::error::Error;
use crate::proxy::exchange::Farewell;

/// RFC 6455 7.4.1: "an endpoint is 'going away', such as a server going down or a browser having navigated away from a page".
const GOING_AWAY: u16 = 1001;
/// RFC 6455 7.4.1: "an endpoint is terminating the connection because it has received a message that violates its policy".
const VIOLATES_POLICY: u16 = 1008;
/// RFC 6455 7.4.1: "an endpoint is terminating the connection because it has received a message that is too big for it to
/// process".
const TOO_BIG: u16 = 1009;
/// RFC 6455 7.4.1: "it encountered an unexpected condition that prevented it from fulfilling the request".
const UNEXPECTED: u16 = 1011;
/// IANA, WebSocket Close Code Number Registry: "Service Restart". Clients may come back at once.
const SERVICE_RESTART: u16 = 1012;

/// Something to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A ping, and what its pong will have in it.
    Ping([u8; TOKEN]),
    /// A close, with its code and, for people who debug, our word for the reason.
    Close(u16, &'static str),
}

impl Word {
    /// The close that tells a side why the WebSocket ends. A farewell that asks clients to come back makes no sense to the
    /// endpoint: to it, we are a client that goes away.
    pub(super) fn close(why: Error, to_endpoint: bool) -> Word {
        let restarts = [Farewell::Draining.error(), Farewell::EndpointGone.error()];
        let code = match why {
            Error::MessageTooLarge => TOO_BIG,
            Error::TooFast => VIOLATES_POLICY,
            Error::ClientSilent | Error::UpstreamSilent => UNEXPECTED,
            Error::TokenRanOut(code) if !to_endpoint => code,
            why if restarts.contains(&why) && !to_endpoint => SERVICE_RESTART,
            _ => GOING_AWAY,
        };
        Word::Close(code, why.reason())
    }

    /// As a frame of the side that we speak for.
    pub(super) fn frame(self, masked: bool) -> Bytes {
        let (opcode, payload) = match self {
            Word::Ping(token) => (opcode::PING, token.to_vec()),
            Word::Close(code, reason) => (opcode::CLOSE, [&code.to_be_bytes()[..], reason.as_bytes()].concat()),
        };
        debug_assert!(payload.len() <= 125, "the payload of a control frame");
        let mut frame = vec![0x80 | opcode, payload.len() as u8 | if masked { 0x80 } else { 0 }];
        let key: [u8; 4] = if masked { random() } else { [0; 4] };
        if masked {
            frame.extend(key);
        }
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame.into()
    }
}

/// Bytes that nobody can foretell: RFC 6455 5.3, "the masking key MUST be derived from a strong source of entropy".
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // The system has none to give, which no system that runs does.
        fastrand::fill(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_each_side_can_use() {
        for (why, client, endpoint) in [
            (Error::MaxAge, 1001, 1001),
            (Error::RouteRemoved, 1001, 1001),
            (Error::TokenRanOut(4401), 4401, 1001),
            (Error::Draining, 1012, 1001),
            (Error::EndpointGone, 1012, 1001),
            (Error::MessageTooLarge, 1009, 1009),
            (Error::TooFast, 1008, 1008),
            (Error::ClientSilent, 1011, 1011),
        ] {
            assert_eq!(Word::close(why, false), Word::Close(client, why.reason()));
            assert_eq!(Word::close(why, true), Word::Close(endpoint, why.reason()));
        }
    }

    #[test]
    fn frames_are_masked_towards_endpoints_alone() {
        assert_eq!(&Word::Close(1001, "x").frame(false)[..], b"\x88\x03\x03\xe9x");
        let ping = Word::Ping(*b"12345678");
        assert_eq!(&ping.frame(false)[..], b"\x89\x0812345678");
        let (one, other) = (ping.frame(true), ping.frame(true));
        assert_ne!(one, other, "a fresh key for every frame");
        let unmasked: Vec<u8> = one[6..].iter().zip(one[2..6].iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!((&one[..2], &unmasked[..]), (&b"\x89\x88"[..], &b"12345678"[..]));
    }
}
