//! The transaction as a kernel reads it: whatever is to be redirected, its messages are well formed, and what they say of a packet is
//! what the plan says. Read and done here by somebody else than who writes it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use floodway::capture::{Plan, batch};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::prelude::*;

/// An attribute: its type, and whether it holds others.
#[derive(Debug)]
struct Attribute<'a> {
    kind: u16,
    nested: bool,
    content: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// linux/netlink.h: `struct nlattr { u16 len; u16 type; }`, each at a multiple of 4, with zeros between.
fn attributes(mut bytes: &[u8]) -> Vec<Attribute<'_>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        assert!(bytes.len() >= 4, "{bytes:x?} is no attribute");
        let length = usize::from(u16_at(bytes, 0));
        assert!((4..=bytes.len()).contains(&length), "{length} of {}", bytes.len());
        let kind = u16_at(bytes, 2);
        assert_eq!(kind & 0x4000, 0, "NLA_F_NET_BYTEORDER is not what nf_tables reads");
        all.push(Attribute { kind: kind & 0x3fff, nested: kind & 0x8000 != 0, content: &bytes[4..length] });
        let next = length.next_multiple_of(4);
        assert!(next <= bytes.len(), "it is not filled up");
        assert!(bytes[length..next].iter().all(|byte| *byte == 0), "{:x?}", &bytes[length..next]);
        bytes = &bytes[next..];
    }
    all
}

/// What is in an attribute of this kind, of which there is one.
fn one<'a>(all: &[Attribute<'a>], kind: u16, nested: bool) -> &'a [u8] {
    let mut of_kind = all.iter().filter(|attribute| attribute.kind == kind);
    let attribute = of_kind.next().unwrap_or_else(|| panic!("no {kind} in {all:?}"));
    assert!(of_kind.next().is_none() && attribute.nested == nested, "{all:?}");
    attribute.content
}

fn number(all: &[Attribute<'_>], kind: u16) -> u32 {
    u32::from_be_bytes(one(all, kind, false).try_into().unwrap())
}

fn text<'a>(all: &[Attribute<'a>], kind: u16) -> &'a str {
    let bytes = one(all, kind, false);
    let (zero, text) = bytes.split_last().unwrap();
    assert_eq!(*zero, 0);
    std::str::from_utf8(text).unwrap()
}

/// What a rule does one after the other.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Meta(u32),
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    Mask(Vec<u8>),
    Is(Vec<u8>),
    IsIn(u32),
    Return,
    /// A port into the register.
    Port(Vec<u8>),
    Redirect,
}

fn step(element: &Attribute<'_>) -> Step {
    assert!(element.kind == 1 && element.nested);
    let element = attributes(element.content);
    let data = attributes(one(&element, 2, true));
    let value = |kind| one(&attributes(one(&data, kind, true)), 1, false).to_vec();
    match text(&element, 1) {
        "meta" => {
            assert_eq!(number(&data, 1), 1);
            Step::Meta(number(&data, 2))
        }
        "payload" => {
            assert_eq!(number(&data, 1), 1);
            Step::Payload { base: number(&data, 2), offset: number(&data, 3), length: number(&data, 4) }
        }
        "bitwise" => {
            assert_eq!((number(&data, 1), number(&data, 2)), (1, 1));
            assert!(value(5).iter().all(|byte| *byte == 0));
            assert_eq!((value(4).len(), value(5).len()), (number(&data, 3) as usize, number(&data, 3) as usize));
            Step::Mask(value(4))
        }
        "cmp" => {
            assert_eq!((number(&data, 1), number(&data, 2)), (1, 0));
            Step::Is(value(3))
        }
        "lookup" => {
            assert_eq!((text(&data, 1), number(&data, 2)), ("__set%d", 1));
            Step::IsIn(number(&data, 4))
        }
        "immediate" if number(&data, 1) == 0 => {
            let verdict = attributes(one(&attributes(one(&data, 2, true)), 2, true));
            assert_eq!(number(&verdict, 1).cast_signed(), -5);
            Step::Return
        }
        "immediate" => {
            assert_eq!(number(&data, 1), 1);
            Step::Port(value(2))
        }
        "redir" => {
            assert_eq!((number(&data, 1), number(&data, 3)), (1, 2));
            Step::Redirect
        }
        other => panic!("{other}"),
    }
}

/// What the kernel has in the end.
#[derive(Debug, Default)]
struct Table {
    chains: BTreeMap<String, Vec<Vec<Step>>>,
    sets: BTreeMap<u32, Vec<Vec<u8>>>,
}

fn table(mut bytes: &[u8]) -> Table {
    let (mut table, mut sequence, mut kinds, mut acknowledged) = (Table::default(), 0, Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let length = u32_at(bytes, 0) as usize;
        assert!(length >= 20 && length.is_multiple_of(4) && length <= bytes.len(), "{length} of {}", bytes.len());
        let (message, rest) = bytes.split_at(length);
        let (kind, flags) = (u16_at(message, 4), u16_at(message, 6));
        assert_eq!(u32_at(message, 8), sequence, "they are counted");
        assert_eq!(flags & 1, 1, "NLM_F_REQUEST");
        if flags & 4 != 0 {
            acknowledged.push(sequence);
        }
        kinds.push(kind);
        let (family, content) = (message[16], attributes(&message[20..]));
        assert_eq!(message[17], 0, "NFNETLINK_V0");
        match kind {
            16 | 17 => {
                assert!(content.is_empty() && family == 0);
                assert_eq!(u16::from_be_bytes([message[18], message[19]]), 10, "of nf_tables");
            }
            0xa00 | 0xa02 => assert_eq!((text(&content, 1), family), ("floodway", 1)),
            0xa03 => {
                assert_eq!((text(&content, 1), text(&content, 7), number(&content, 5)), ("floodway", "nat", 1));
                let hook = attributes(one(&content, 4, true));
                assert_eq!(number(&hook, 2).cast_signed(), -100);
                let name = text(&content, 3);
                assert_eq!(number(&hook, 1), if name == "output" { 3 } else { 0 });
                assert!(table.chains.insert(name.to_owned(), Vec::new()).is_none());
            }
            0xa09 => {
                assert_eq!((text(&content, 1), text(&content, 2)), ("floodway", "__set%d"));
                assert_eq!([3, 4, 5].map(|kind| number(&content, kind)), [3, 13, 2]);
                assert!(table.sets.insert(number(&content, 10), Vec::new()).is_none(), "numbers are not used twice");
            }
            0xa0c => {
                assert_eq!((text(&content, 1), text(&content, 2)), ("floodway", "__set%d"));
                let set = table.sets.get_mut(&number(&content, 4)).unwrap();
                for element in attributes(one(&content, 3, true)) {
                    assert!(element.kind == 1 && element.nested);
                    let key = attributes(one(&attributes(element.content), 1, true));
                    set.push(one(&key, 1, false).to_vec());
                }
                let mut sorted = set.clone();
                sorted.sort();
                sorted.dedup();
                assert_eq!(*set, sorted, "nothing is there twice, which the kernel would refuse");
            }
            0xa06 => {
                assert_eq!((text(&content, 1), flags & 0xc00), ("floodway", 0xc00));
                let steps: Vec<_> = attributes(one(&content, 4, true)).iter().map(step).collect();
                // A set that belongs to a rule belongs to one.
                table.chains.get_mut(text(&content, 2)).unwrap().push(steps);
            }
            other => panic!("{other:x}"),
        }
        (bytes, sequence) = (rest, sequence + 1);
    }
    assert_eq!(kinds[..4], [16, 0xa00, 0xa02, 0xa00], "what an earlier run has left goes");
    assert_eq!(*kinds.last().unwrap(), 17);
    assert_eq!(acknowledged, [sequence - 2], "the last before the end, and no other");
    let used = table.chains.values().flatten().flatten().filter(|step| matches!(step, Step::IsIn(_))).count();
    assert_eq!(used, table.sets.len());
    table
}

/// The first packet of a connection.
#[derive(Clone, Debug)]
struct Packet {
    user: u32,
    protocol: u8,
    to: IpAddr,
    port: u16,
}

/// Where a chain has a packet go, if not where it was meant to.
fn goes(table: &Table, chain: &str, packet: &Packet) -> Option<u16> {
    'rules: for rule in &table.chains[chain] {
        let mut register = Vec::new();
        for step in rule {
            match step {
                Step::Meta(10) => register = packet.user.to_ne_bytes().to_vec(),
                Step::Meta(15) => register = vec![if packet.to.is_ipv4() { 2 } else { 10 }],
                Step::Meta(16) => register = vec![packet.protocol],
                Step::Payload { base: 2, offset: 2, length: 2 } => register = packet.port.to_be_bytes().to_vec(),
                Step::Payload { base: 1, offset, length } => {
                    let octets = match packet.to {
                        IpAddr::V4(ip) => ip.octets().to_vec(),
                        IpAddr::V6(ip) => ip.octets().to_vec(),
                    };
                    assert_eq!(*offset, if octets.len() == 4 { 16 } else { 24 });
                    assert_eq!(*length as usize, octets.len());
                    register = octets;
                }
                Step::Mask(mask) => register.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask),
                Step::Is(value) => {
                    assert_eq!(register.len(), value.len());
                    if register != *value {
                        continue 'rules;
                    }
                }
                Step::IsIn(set) => {
                    if !table.sets[set].contains(&register) {
                        continue 'rules;
                    }
                }
                Step::Return => return None,
                Step::Port(port) => register.clone_from(port),
                Step::Redirect => return Some(u16::from_be_bytes(register.try_into().unwrap())),
                other => panic!("{other:?}"),
            }
        }
    }
    None
}

fn network() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(ip, length)| Ipv4Net::new_assert(Ipv4Addr::from(ip), length).into()),
        (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(ip, length)| Ipv6Net::new_assert(Ipv6Addr::from(ip), length).into()),
    ]
}

/// Ports that are often the same, as many as there may be.
fn ports() -> impl Strategy<Value = Vec<u16>> {
    prop_oneof![vec(1..20_u16, 0..8), vec(1..=u16::MAX, 0..=256)]
}

fn plan() -> impl Strategy<Value = Plan> {
    (1..=u16::MAX, 1..=u16::MAX, any::<u32>(), ports(), ports(), vec(network(), 0..12)).prop_map(
        |(
            inbound_listener,
            outbound_listener,
            uid,
            inbound_ports,
            exclude_outbound_ports,
            exclude_outbound_addresses,
        )| Plan {
            inbound_listener,
            outbound_listener,
            uid,
            inbound_ports,
            exclude_outbound_ports,
            exclude_outbound_addresses,
        },
    )
}

/// A packet that something of a plan is likely to concern.
fn packet(plan: &Plan) -> impl Strategy<Value = Packet> + use<> {
    let some = |ports: &[u16]| match ports.is_empty() {
        true => any::<u16>().boxed(),
        false => proptest::sample::select(ports.to_vec()).boxed(),
    };
    let ports = prop_oneof![some(&plan.inbound_ports), some(&plan.exclude_outbound_ports), any::<u16>(), 1..20_u16];
    let mut known: Vec<IpAddr> =
        vec!["127.0.0.1".parse().unwrap(), "127.9.9.9".parse().unwrap(), "::1".parse().unwrap()];
    for network in &plan.exclude_outbound_addresses {
        known.extend([network.network(), network.broadcast(), network.addr()]);
    }
    let to = prop_oneof![
        proptest::sample::select(known),
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    let user = prop_oneof![Just(plan.uid), any::<u32>()];
    (user, prop_oneof![5 => Just(6_u8), 1 => Just(17)], to, ports).prop_map(|(user, protocol, to, port)| Packet {
        user,
        protocol,
        to,
        port,
    })
}

proptest! {
    #[test]
    fn the_kernel_reads_what_the_plan_says((plan, packets) in plan().prop_flat_map(|plan| {
        let packets = vec(packet(&plan), 16);
        (Just(plan), packets)
    })) {
        let table = table(&batch(&plan));
        // However many ports there are.
        prop_assert!(table.chains["prerouting"].len() <= 1);
        prop_assert!(table.chains["output"].len() <= 5 + plan.exclude_outbound_addresses.len());
        for packet in packets {
            let tcp = packet.protocol == 6;
            let left_alone = packet.user == plan.uid
                || packet.to.is_loopback()
                || plan.exclude_outbound_addresses.iter().any(|network| network.contains(&packet.to))
                || plan.exclude_outbound_ports.contains(&packet.port);
            prop_assert_eq!(
                goes(&table, "output", &packet),
                (tcp && !left_alone).then_some(plan.outbound_listener),
                "{:?}", packet
            );
            prop_assert_eq!(
                goes(&table, "prerouting", &packet),
                (tcp && plan.inbound_ports.contains(&packet.port)).then_some(plan.inbound_listener),
                "{:?}", packet
            );
        }
    }
}
