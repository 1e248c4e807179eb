//! Messages of netlink, byte by byte (netlink(7), linux/netlink.h): a head, then attributes, which may hold attributes. Numbers are in
//! the order of this machine; those that belong to packets are in that of networks, and written by whoever knows it.

/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_CREATE`, `NLM_F_APPEND`
const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
/// Everything begins at a multiple of this.
const ALIGNMENT: usize = 4;

/// Several messages, one after the other.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    /// Where the last one begins.
    last: usize,
    /// The number of the next one.
    sequence: u32,
}

impl Messages {
    /// Adds one: `struct nlmsghdr { u32 len; u16 type; u16 flags; u32 seq; u32 pid; }`, then `struct nfgenmsg { u8 family; u8 version; be16
    /// res_id; }` of nfnetlink, then what `fill` adds.
    pub(super) fn add(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.last = start;
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        fill(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.sequence += 1;
    }

    /// Asks for an acknowledgement of the last one; returns its number.
    pub(super) fn acknowledge(&mut self) -> u32 {
        // The flags, behind the length and the type.
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            for (flags, ack) in flags.iter_mut().zip(ACK.to_ne_bytes()) {
                *flags |= ack;
            }
        }
        self.sequence.wrapping_sub(1)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Attributes: `struct nlattr { u16 len; u16 type; }`, then the content, then zeros up to where the next one may begin.
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    fn attribute(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(self.0);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |bytes| bytes.extend(value));
    }

    /// A number in the order of networks, as nf_tables has all of its own.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A text that ends with a zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |bytes| {
            bytes.extend(value.as_bytes());
            bytes.push(0);
        });
    }

    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.attribute(kind | NESTED, |bytes| fill(&mut Attributes(bytes)));
    }
}
