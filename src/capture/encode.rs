//! The rules as the kernel reads them (linux/netfilter/nf_tables.h): one transaction, in which the table is made, removed and made anew,
//! so that what an earlier run has left is replaced as a whole, and nobody sees anything between.

use std::net::IpAddr;

use ipnet::IpNet;

use super::message::{APPEND, Attributes, CREATE, Messages};
use super::plan::{Plan, Rule, Then, Which};

/// `NFNL_SUBSYS_NFTABLES`, which is in the upper half of a message's type.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`
const BEGIN: u16 = 16;
const END: u16 = 17;
/// `NFT_MSG_…`
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
const NEW_SET: u16 = (SUBSYSTEM << 8) | 9;
const NEW_SET_ELEMENTS: u16 = (SUBSYSTEM << 8) | 12;
/// `NFPROTO_…`: no family, both of IP, and each alone, as `NFT_META_NFPROTO` has them.
const UNSPECIFIED: u8 = 0;
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `NF_INET_…`
const PRE_ROUTING: u32 = 0;
const LOCAL_OUT: u32 = 3;
/// `NF_IP_PRI_NAT_DST`
const PRIORITY: i32 = -100;
/// `NF_ACCEPT`
const ACCEPT: u32 = 1;
/// `NFT_RETURN`
const RETURN: i32 = -5;
/// `NFT_REG_VERDICT`, `NFT_REG_1`
const VERDICT: u32 = 0;
const REGISTER: u32 = 1;
/// `IPPROTO_TCP`
const TCP: u8 = 6;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`
const PORT_GIVEN: u32 = 2;

/// `NFT_SET_ANONYMOUS | NFT_SET_CONSTANT`
const SET_OF_A_RULE: u32 = 1 | 2;
/// `TYPE_INET_SERVICE`, by which nft shows elements as ports.
const PORTS: u32 = 13;

/// The name of the table.
const TABLE: &str = "floodway";
/// That of a set which belongs to a rule: the kernel puts a number in. Within the transaction it is known by another one.
const SET: &str = "__set%d";

/// What is handed to the kernel.
pub(super) struct Transaction {
    /// All messages.
    pub(super) bytes: Vec<u8>,
    /// The number of the one that is acknowledged, which is the last one before the end: all or nothing comes about.
    pub(super) acknowledged: u32,
}

/// All messages of the transaction.
pub fn batch(plan: &Plan) -> Vec<u8> {
    transaction(plan).bytes
}

pub(super) fn transaction(plan: &Plan) -> Transaction {
    let mut messages = Messages::default();
    messages.add(BEGIN, 0, UNSPECIFIED, SUBSYSTEM, |_| {});
    let name = |table: &mut Attributes<'_>| table.text(1, TABLE);
    messages.add(NEW_TABLE, CREATE, INET, 0, name);
    messages.add(DELETE_TABLE, 0, INET, 0, name);
    messages.add(NEW_TABLE, CREATE, INET, 0, name);
    let chains = [("output", LOCAL_OUT, plan.outbound()), ("prerouting", PRE_ROUTING, plan.inbound())];
    let mut sets = 0;
    for (name, hook, rules) in chains {
        chain(&mut messages, name, hook);
        for rule in &rules {
            if let Rule(Which::Ports(ports), _) = rule
                && ports.len() > 1
            {
                sets += 1;
                set(&mut messages, sets, ports);
            }
            self::rule(&mut messages, name, rule, sets);
        }
    }
    let acknowledged = messages.acknowledge();
    messages.add(END, 0, UNSPECIFIED, SUBSYSTEM, |_| {});
    Transaction { bytes: messages.into_bytes(), acknowledged }
}

fn chain(messages: &mut Messages, name: &str, hook: u32) {
    messages.add(NEW_CHAIN, CREATE, INET, 0, |chain| {
        chain.text(1, TABLE); // NFTA_CHAIN_TABLE
        chain.text(3, name); // NFTA_CHAIN_NAME
        // NFTA_CHAIN_HOOK
        chain.nested(4, |place| {
            place.number(1, hook); // NFTA_HOOK_HOOKNUM
            place.bytes(2, &PRIORITY.to_be_bytes()); // NFTA_HOOK_PRIORITY
        });
        chain.number(5, ACCEPT); // NFTA_CHAIN_POLICY
        chain.text(7, "nat"); // NFTA_CHAIN_TYPE
    });
}

/// Ports that a rule is for, which comes next and goes with it.
fn set(messages: &mut Messages, id: u32, ports: &[u16]) {
    messages.add(NEW_SET, CREATE, INET, 0, |set| {
        set.text(1, TABLE); // NFTA_SET_TABLE
        set.text(2, SET); // NFTA_SET_NAME
        set.number(3, SET_OF_A_RULE); // NFTA_SET_FLAGS
        set.number(4, PORTS); // NFTA_SET_KEY_TYPE
        set.number(5, 2); // NFTA_SET_KEY_LEN
        set.number(10, id); // NFTA_SET_ID
    });
    messages.add(NEW_SET_ELEMENTS, CREATE, INET, 0, |list| {
        list.text(1, TABLE); // NFTA_SET_ELEM_LIST_TABLE
        list.text(2, SET); // NFTA_SET_ELEM_LIST_SET
        // NFTA_SET_ELEM_LIST_ELEMENTS { NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE } } }
        list.nested(3, |elements| {
            for port in ports {
                elements.nested(1, |element| element.nested(1, |key| key.bytes(1, &port.to_be_bytes())));
            }
        });
        list.number(4, id); // NFTA_SET_ELEM_LIST_SET_ID
    });
}

/// A rule, whose ports are in the set of this number if they are several.
fn rule(messages: &mut Messages, chain: &str, Rule(which, then): &Rule, set: u32) {
    messages.add(NEW_RULE, CREATE | APPEND, INET, 0, |rule| {
        rule.text(1, TABLE); // NFTA_RULE_TABLE
        rule.text(2, chain); // NFTA_RULE_CHAIN
        // NFTA_RULE_EXPRESSIONS
        rule.nested(4, |list| {
            match which {
                Which::All => protocol(list),
                Which::User(user) => {
                    meta(list, 10); // NFT_META_SKUID
                    compare(list, &user.to_ne_bytes());
                }
                Which::To(network) => destination(list, *network),
                Which::Ports(ports) => {
                    protocol(list);
                    payload(list, 2, 2, 2); // NFT_PAYLOAD_TRANSPORT_HEADER: the destination port
                    match ports.as_slice() {
                        [port] => compare(list, &port.to_be_bytes()),
                        _ => look_up(list, set),
                    }
                }
            }
            match *then {
                Then::Return => verdict(list, RETURN),
                Then::Redirect(port) => redirect(list, port),
            }
        });
    });
}

/// One expression of a rule: `NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA }`.
fn expression(list: &mut Attributes<'_>, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
    list.nested(1, |element| {
        element.text(1, name);
        element.nested(2, fill);
    });
}

/// What the kernel knows of a packet, into the register.
fn meta(list: &mut Attributes<'_>, key: u32) {
    expression(list, "meta", |meta| {
        meta.number(1, REGISTER); // NFTA_META_DREG
        meta.number(2, key); // NFTA_META_KEY
    });
}

/// Bytes of a packet, into the register.
fn payload(list: &mut Attributes<'_>, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |payload| {
        payload.number(1, REGISTER); // NFTA_PAYLOAD_DREG
        payload.number(2, base); // NFTA_PAYLOAD_BASE
        payload.number(3, offset); // NFTA_PAYLOAD_OFFSET
        payload.number(4, length); // NFTA_PAYLOAD_LEN
    });
}

/// The rule goes on if the register has this.
fn compare(list: &mut Attributes<'_>, value: &[u8]) {
    expression(list, "cmp", |cmp| {
        cmp.number(1, REGISTER); // NFTA_CMP_SREG
        cmp.number(2, 0); // NFTA_CMP_OP: NFT_CMP_EQ
        cmp.nested(3, |data| data.bytes(1, value)); // NFTA_CMP_DATA { NFTA_DATA_VALUE }
    });
}

/// The rule goes on if the register is in the set.
fn look_up(list: &mut Attributes<'_>, set: u32) {
    expression(list, "lookup", |lookup| {
        lookup.text(1, SET); // NFTA_LOOKUP_SET
        lookup.number(2, REGISTER); // NFTA_LOOKUP_SREG
        lookup.number(4, set); // NFTA_LOOKUP_SET_ID
    });
}

fn protocol(list: &mut Attributes<'_>) {
    meta(list, 16); // NFT_META_L4PROTO
    compare(list, &[TCP]);
}

/// Packets for a network, of its family alone.
fn destination(list: &mut Attributes<'_>, network: IpNet) {
    // Where heads of IP have the destination (RFC 791 3.1, RFC 8200 3).
    let (family, offset) = if network.addr().is_ipv4() { (IPV4, 16) } else { (IPV6, 24) };
    meta(list, 15); // NFT_META_NFPROTO
    compare(list, &[family]);
    let (address, mask) = (octets(network.network()), octets(network.netmask()));
    let length = u32::try_from(address.len()).unwrap_or_default();
    payload(list, 1, offset, length); // NFT_PAYLOAD_NETWORK_HEADER
    if network.prefix_len() < network.max_prefix_len() {
        expression(list, "bitwise", |bitwise| {
            bitwise.number(1, REGISTER); // NFTA_BITWISE_SREG
            bitwise.number(2, REGISTER); // NFTA_BITWISE_DREG
            bitwise.number(3, length); // NFTA_BITWISE_LEN
            bitwise.nested(4, |data| data.bytes(1, &mask)); // NFTA_BITWISE_MASK
            bitwise.nested(5, |data| data.bytes(1, &vec![0; mask.len()])); // NFTA_BITWISE_XOR
        });
    }
    compare(list, &address);
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn verdict(list: &mut Attributes<'_>, code: i32) {
    expression(list, "immediate", |immediate| {
        immediate.number(1, VERDICT); // NFTA_IMMEDIATE_DREG
        // NFTA_IMMEDIATE_DATA { NFTA_DATA_VERDICT { NFTA_VERDICT_CODE } }
        immediate.nested(2, |data| data.nested(2, |verdict| verdict.bytes(1, &code.to_be_bytes())));
    });
}

fn redirect(list: &mut Attributes<'_>, port: u16) {
    expression(list, "immediate", |immediate| {
        immediate.number(1, REGISTER);
        immediate.nested(2, |data| data.bytes(1, &port.to_be_bytes()));
    });
    expression(list, "redir", |redir| {
        redir.number(1, REGISTER); // NFTA_REDIR_REG_PROTO_MIN
        redir.number(3, PORT_GIVEN); // NFTA_REDIR_FLAGS
    });
}
