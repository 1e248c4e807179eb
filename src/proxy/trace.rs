//! To which trace a request belongs (W3C Trace Context, level 2): what a trusted proxy says of it goes on, with Floodway's own span as
//! the parent of whatever the endpoint does; what anybody else says is replaced by a trace that begins here.

use super::fields::{Fields, Known};
use crate::settings::Tracing;

/// The trace of a request, and Floodway's place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    which: Which,
    /// The id of Floodway's own span, which is not zero.
    span: u64,
}

/// Where a trace comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    /// None that is known, and none begins.
    None,
    /// A trusted proxy says it has this id, and these flags.
    Given(Box<str>, u8),
    /// It begins here, with the id of the request as its own.
    OfRequest,
    /// It begins here, with this id, because the request's is a trusted proxy's and of another form.
    Begun(Box<str>),
}

/// The flags that are known (3.2.2.5): the trace is recorded, and its id is random. Of others: "Vendors MUST set those to zero".
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// Members of a `tracestate` ("There can be a maximum of 32 list-members in a list", 3.3.1.1), and bytes of it, which are
/// to be at least 512 (3.3.1.5).
const STATE: (usize, usize) = (32, 4096);

impl Trace {
    /// No trace, for what is not even a request.
    pub(super) fn none() -> Self {
        Trace { which: Which::None, span: 1 }
    }

    /// The trace that a request says it belongs to, or a new one. `request_id` is the one that is passed on.
    pub(super) fn of(
        fields: &Fields,
        trusted: bool,
        request_id: &str,
        begins: bool,
        new: impl Fn() -> Box<str>,
    ) -> Self {
        let which = match parent(fields, trusted) {
            Some(parent) => Which::Given(parent.trace.into(), parent.flags),
            None if !begins => Which::None,
            None if is_hex(request_id, 32) && !is_zero(request_id) => Which::OfRequest,
            None => Which::Begun(new()),
        };
        Trace { which, span: fastrand::u64(1..) }
    }

    /// The id of the trace, for logs.
    pub(super) fn id<'a>(&'a self, request_id: &'a str) -> Option<&'a str> {
        match &self.which {
            Which::None => None,
            Which::OfRequest => Some(request_id),
            Which::Given(id, _) | Which::Begun(id) => Some(id),
        }
    }

    /// The id of Floodway's own span, for logs.
    pub(super) fn span(&self) -> Option<u64> {
        (self.which != Which::None).then_some(self.span)
    }

    /// Makes the fields of a request those that go on.
    pub(super) fn pass_on(&self, fields: &mut Fields, request_id: &str, settings: &Tracing) {
        let flags = match self.which {
            // A parent that could not be read goes nowhere, nor the state beside it: "If the vendor failed to parse traceparent, it
            // MUST NOT attempt to parse tracestate" (3.3).
            Which::None => return fields.remove_each(&[Known::Traceparent, Known::Tracestate]),
            Which::Given(_, flags) => {
                if fields.contains(Known::Tracestate) && !is_state(fields) {
                    fields.remove(Known::Tracestate);
                }
                flags
            }
            Which::OfRequest | Which::Begun(_) => {
                fields.remove(Known::Tracestate);
                let sampled = settings.sampled_percent >= 100 || fastrand::u8(..100) < settings.sampled_percent;
                if sampled { SAMPLED } else { 0 }
            }
        };
        fields.set("traceparent", &written(self.id(request_id).unwrap_or_default(), self.span, flags));
    }
}

/// A valid `traceparent`.
struct Parent<'a> {
    trace: &'a str,
    flags: u8,
}

/// The parent that a trusted proxy names (3.2): exactly one, in lower case, of a version that is or begins like this one.
fn parent(fields: &Fields, trusted: bool) -> Option<Parent<'_>> {
    if !trusted || fields.all(Known::Traceparent).nth(1).is_some() {
        return None;
    }
    let value = fields.text(Known::Traceparent)?;
    let mut parts = value.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let later = version != "00";
    let valid = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !valid || is_zero(trace) || is_zero(span) || !later && parts.next().is_some() {
        return None;
    }
    // Of a later version no more is known than whether it is sampled (4.3).
    let known = if later { SAMPLED } else { SAMPLED | RANDOM };
    Some(Parent { trace, flags: u8::from_str_radix(flags, 16).ok()? & known })
}

/// A `traceparent` of version 00: "Vendors MUST construct the new traceparent field according to the highest version" that they
/// know (4.3).
fn written(trace: &str, span: u64, flags: u8) -> [u8; 55] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    for (place, byte) in text[3..35].iter_mut().zip(trace.bytes()) {
        *place = byte;
    }
    write_hex(&mut text[36..52], &span.to_be_bytes());
    write_hex(&mut text[53..], &[flags]);
    text
}

/// Writes bytes as hexadecimal digits.
pub(super) fn write_hex(digits: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
}

/// Whether the `tracestate` is one (3.3.1): "If the vendor fails to parse tracestate, it MUST discard the tracestate".
fn is_state(fields: &Fields) -> bool {
    let bytes: usize = fields.all(Known::Tracestate).map(<[u8]>::len).sum();
    let is_member = |member: &[u8]| {
        let Some(at) = member.iter().position(|&byte| byte == b'=') else { return false };
        let (key, value) = (&member[..at], &member[at + 1..]);
        let mark = |byte: &u8| matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
        let letter = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
        (1..=256).contains(&key.len())
            && letter(&key[0])
            && key.iter().all(|byte| letter(byte) || mark(byte))
            && (1..=256).contains(&value.len())
            && value.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'=')
    };
    bytes <= STATE.1
        && fields.tokens(Known::Tracestate).count() <= STATE.0
        && fields.tokens(Known::Tracestate).all(is_member)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
