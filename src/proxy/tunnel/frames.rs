//! Follows the frames of a WebSocket (RFC 6455 5.2) through the bytes of one direction: where each begins and ends, and which
//! message it belongs to. Looks at headers only, keeps no payload and changes nothing; what is done at a boundary, and what
//! becomes of the bytes, is `direction`'s to say.

use crate::snapshot::WebSocket;

/// RFC 6455 5.2: two bytes, up to eight more of length, and four of masking key.
const MAX_HEADER: usize = 14;
/// The payload of a ping of ours, so that its pong fits where headers are collected.
pub(super) const TOKEN: usize = 8;
/// RFC 6455 5.5: "All control frames MUST have a payload length of 125 bytes or less".
const MAX_CONTROL: u64 = 125;

/// RFC 6455 11.8.
pub(super) mod opcode {
    pub(in crate::proxy::tunnel) const CONTINUATION: u8 = 0x0;
    pub(in crate::proxy::tunnel) const TEXT: u8 = 0x1;
    pub(in crate::proxy::tunnel) const BINARY: u8 = 0x2;
    pub(in crate::proxy::tunnel) const CLOSE: u8 = 0x8;
    pub(in crate::proxy::tunnel) const PING: u8 = 0x9;
    pub(in crate::proxy::tunnel) const PONG: u8 = 0xa;
}

/// What may not be told by looking at a header. Counted; the sides themselves decide what they make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// 5.2, RSV1 to RSV3: "MUST be 0 unless an extension is negotiated that defines meanings for non-zero values".
    ReservedBits,
    /// 5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_".
    Opcode,
    /// 5.1: "a client MUST mask all frames that it sends to the server"; "A server MUST NOT mask any frames".
    Mask,
    /// 5.5: "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented".
    Control,
    /// 5.2: "the minimal number of bytes MUST be used to encode the length"; "the most significant bit MUST be 0".
    Length,
    /// 5.4: a message's later frames continue it, and "the fragments of one message MUST NOT be interleaved between the
    /// fragments of another message".
    Continuation,
    /// 5.5.1: "The application MUST NOT send any more data frames after sending a Close frame".
    AfterClose,
}

impl Violation {
    /// As the label of a metric has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Violation::ReservedBits => "reserved_bits",
            Violation::Opcode => "opcode",
            Violation::Mask => "mask",
            Violation::Control => "control",
            Violation::Length => "length",
            Violation::Continuation => "continuation",
            Violation::AfterClose => "after_close",
        }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The bytes end before anything else is found.
    Nothing,
    /// A frame with this opcode ended.
    Frame(u8),
    /// The pong to a ping of ours ended; it began so many bytes ago.
    OwnPong(usize),
    /// A header ended that announces more than is allowed. Its payload is followed, if it comes.
    TooLarge,
    /// These are not the frames of a WebSocket. Nothing will be found from here on.
    Violation(Violation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At a boundary, or in a header.
    Header,
    /// So many bytes of payload are to come.
    Payload(u64),
    /// Not followed any more.
    Lost,
}

/// One direction's frames.
#[derive(Debug)]
pub(super) struct Frames {
    state: State,
    /// The header as far as it came; for a pong that may be the answer to a ping of ours, its payload, too.
    header: [u8; MAX_HEADER],
    collected: u8,
    masked: bool,
    extended: bool,
    /// A message has begun, and not with its last frame.
    fragmented: bool,
    closed: bool,
    /// Bytes of the frame so far.
    into: u64,
    /// Payload of the message in its earlier frames.
    message: u64,
    max_frame: u64,
    max_message: u64,
    token: Option<[u8; TOKEN]>,
    ended: Ended,
}

/// How many have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) frames: u64,
    pub(super) messages: u64,
}

impl Frames {
    /// Frames as clients send them, masked, or as servers do. With an extension, reserved bits have a meaning.
    pub(super) fn new(masked: bool, extended: bool, limits: &WebSocket) -> Self {
        Frames {
            state: State::Header,
            header: [0; MAX_HEADER],
            collected: 0,
            masked,
            extended,
            fragmented: false,
            closed: false,
            into: 0,
            message: 0,
            max_frame: limits.max_frame.unwrap_or(u64::MAX),
            max_message: limits.max_message.unwrap_or(u64::MAX),
            token: None,
            ended: Ended::default(),
        }
    }

    /// No frames at all: something else than a WebSocket passes. From clients if `masked`.
    pub(super) fn none(masked: bool) -> Self {
        Frames { state: State::Lost, ..Frames::new(masked, false, &WebSocket::default()) }
    }

    /// Whether frames are masked in this direction.
    pub(super) fn masked(&self) -> bool {
        self.masked
    }

    /// Bytes since the last boundary between frames, where a control frame may be put: RFC 6455 5.4, "Control frames MAY be
    /// injected in the middle of a fragmented message". `None` if boundaries are not known any more.
    pub(super) fn since_boundary(&self) -> Option<u64> {
        (self.state != State::Lost).then_some(self.into)
    }

    /// Whether no message has begun without having ended.
    #[cfg(test)]
    pub(super) fn between_messages(&self) -> bool {
        self.into == 0 && !self.fragmented && self.state != State::Lost
    }

    /// How many of the last bytes wait for what follows them: the beginning of a header, while it may announce too much or
    /// begin the pong to a ping of ours. Nobody can make use of half a header.
    pub(super) fn undecided(&self) -> usize {
        let judged = self.token.is_some() || self.max_frame.min(self.max_message) != u64::MAX;
        if judged && self.state == State::Header { usize::from(self.collected) } else { 0 }
    }

    /// Whether a close frame has ended.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// From here on pongs with this payload answer pings of ours.
    pub(super) fn expect_pongs(&mut self, token: [u8; TOKEN]) {
        self.token = Some(token);
    }

    /// From here on nothing is too large.
    pub(super) fn lift_limits(&mut self) {
        (self.max_frame, self.max_message) = (u64::MAX, u64::MAX);
    }

    /// How many ended since this was last asked.
    pub(super) fn take_ended(&mut self) -> Ended {
        std::mem::take(&mut self.ended)
    }

    /// Follows `bytes` until something is found, and shortens them by what was followed.
    pub(super) fn follow(&mut self, bytes: &mut &[u8]) -> Found {
        if self.state == State::Lost {
            *bytes = &[];
            return Found::Nothing;
        }
        if self.state == State::Header
            && let Some(found) = self.header(bytes)
        {
            return found;
        }
        let State::Payload(left) = self.state else { return Found::Nothing };
        let here = left.min(bytes.len() as u64);
        *bytes = &bytes[here as usize..];
        self.into += here;
        self.state = State::Payload(left - here);
        if here == left { Found::Frame(self.end()) } else { Found::Nothing }
    }

    /// Collects a header and judges it. `None` once its payload follows.
    fn header(&mut self, bytes: &mut &[u8]) -> Option<Found> {
        // Most headers come whole, with more behind them: one copy of known length, of which only the header counts.
        let whole = match bytes.first_chunk() {
            Some(ahead) if self.collected == 0 => {
                self.header = *ahead;
                true
            }
            _ => false,
        };
        if whole {
            self.advance(bytes, 2);
        } else if !self.collect(bytes, 2) {
            return Some(Found::Nothing);
        }
        if let Err(violation) = self.judge() {
            return Some(self.lose(violation));
        }
        let header = self.header_length();
        if whole {
            self.advance(bytes, header - 2);
        } else if !self.collect(bytes, header) {
            return Some(Found::Nothing);
        }
        let Some(length) = self.length() else { return Some(self.lose(Violation::Length)) };
        if let Some(token) = self.token
            && self.opcode() == opcode::PONG
            && length == TOKEN as u64
        {
            if !self.collect(bytes, header + TOKEN) {
                return Some(Found::Nothing);
            }
            let ours = self.payload(header) == token;
            let found = if ours { Found::OwnPong(self.into as usize) } else { Found::Frame(opcode::PONG) };
            self.end();
            self.ended.frames -= u64::from(ours);
            return Some(found);
        }
        self.state = State::Payload(length);
        self.collected = 0;
        if self.is_data() && (length > self.max_frame || self.message.saturating_add(length) > self.max_message) {
            return Some(Found::TooLarge);
        }
        None
    }

    /// Takes bytes until `wanted` are collected; whether they are.
    fn collect(&mut self, bytes: &mut &[u8], wanted: usize) -> bool {
        let have = usize::from(self.collected);
        let more = wanted.saturating_sub(have).min(bytes.len());
        self.header[have..have + more].copy_from_slice(&bytes[..more]);
        self.advance(bytes, more);
        have + more >= wanted
    }

    fn advance(&mut self, bytes: &mut &[u8], by: usize) {
        *bytes = &bytes[by..];
        self.collected += by as u8;
        self.into += by as u64;
    }

    fn judge(&self) -> Result<(), Violation> {
        let [first, second, ..] = self.header;
        if first & 0x70 != 0 && !self.extended {
            return Err(Violation::ReservedBits);
        }
        if (second & 0x80 != 0) != self.masked {
            return Err(Violation::Mask);
        }
        match self.opcode() {
            opcode::CONTINUATION | opcode::TEXT | opcode::BINARY => {
                if self.closed {
                    return Err(Violation::AfterClose);
                }
                if (self.opcode() == opcode::CONTINUATION) != self.fragmented {
                    return Err(Violation::Continuation);
                }
            }
            opcode::CLOSE | opcode::PING | opcode::PONG => {
                if !self.last() || u64::from(second & 0x7f) > MAX_CONTROL {
                    return Err(Violation::Control);
                }
            }
            _ => return Err(Violation::Opcode),
        }
        Ok(())
    }

    fn lose(&mut self, violation: Violation) -> Found {
        self.state = State::Lost;
        Found::Violation(violation)
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0f
    }

    fn last(&self) -> bool {
        self.header[0] & 0x80 != 0
    }

    fn is_data(&self) -> bool {
        self.opcode() < opcode::CLOSE
    }

    /// Bytes of length after the first two bytes.
    fn extra_length(&self) -> usize {
        match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn header_length(&self) -> usize {
        2 + self.extra_length() + if self.masked { 4 } else { 0 }
    }

    /// The length of the payload; `None` if it is not written as it must be.
    fn length(&self) -> Option<u64> {
        let extra = self.extra_length();
        let long = self.header[2..2 + extra].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        match extra {
            0 => Some(u64::from(self.header[1] & 0x7f)),
            2 => (long > MAX_CONTROL).then_some(long),
            _ => (u64::from(u16::MAX) < long && long <= i64::MAX as u64).then_some(long),
        }
    }

    /// The collected payload behind a header of this length (RFC 6455 5.3: "octet i of the original data XOR'ed with octet at
    /// index i modulo 4 of the masking key").
    fn payload(&self, header: usize) -> [u8; TOKEN] {
        std::array::from_fn(|index| {
            let key = if self.masked { self.header[header - 4 + index % 4] } else { 0 };
            self.header[header + index] ^ key
        })
    }

    /// A frame has ended; its opcode.
    fn end(&mut self) -> u8 {
        if self.is_data() {
            let length = self.into - self.header_length() as u64;
            self.fragmented = !self.last();
            self.message = if self.fragmented { self.message.saturating_add(length) } else { 0 };
            self.ended.messages += u64::from(!self.fragmented);
        }
        self.closed |= self.opcode() == opcode::CLOSE;
        self.ended.frames += 1;
        (self.state, self.collected, self.into) = (State::Header, 0, 0);
        self.opcode()
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
