//! Addresses that may pass, to be searched among thousands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Serialize, Serializer};

/// From which addresses requests may come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IpAccess {
    /// These and no others; everyone if `None`.
    pub allow: Option<Networks>,
    /// Not these, in any case.
    pub deny: Networks,
}

impl IpAccess {
    /// Whether requests from an address may pass.
    pub fn allows(&self, address: IpAddr) -> bool {
        !self.deny.contain(address) && self.allow.as_ref().is_none_or(|allow| allow.contain(address))
    }
}

/// A set of addresses: disjoint ranges, each a network, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl Networks {
    /// The addresses of any of these networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push(network),
                IpNet::V6(network) => v6.push(network),
            }
        }
        // Joins those that touch or contain each other, and sorts.
        let v4 = Ipv4Net::aggregate(&v4).into_iter().map(|net| (net.network().into(), net.broadcast().into()));
        let v6 = Ipv6Net::aggregate(&v6).into_iter().map(|net| (net.network().into(), net.broadcast().into()));
        Networks { v4: Ranges::new(v4.collect()), v6: Ranges::new(v6.collect()) }
    }

    /// Whether an address is among them. An IPv4 address that is written as IPv6 is an IPv4 address.
    pub fn contain(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contain(address.into()),
            IpAddr::V6(address) => self.v6.contain(address.into()),
        }
    }
}

/// Disjoint ranges in their order, so that an address has at most one that could contain it: the last that begins no later. A binary
/// search finds it, in a flat piece of memory, and an index says between which two positions to search. Where ranges are spread
/// evenly that is one or two of them; however they lie, it is never more than all. Ten thousand ranges take up to 160 KB of IPv4 and
/// 400 KB of IPv6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges<A> {
    /// First and last address of each.
    ranges: Box<[(A, A)]>,
    /// From the first address of all to that of the last range there are steps of the same width, fewer than twice as many as
    /// ranges. For each step: how many ranges begin before it. At the end: how many there are.
    steps: Box<[u32]>,
    /// The width of a step is a power of two: this one.
    shift: u32,
}

impl<A: Copy + Ord + Into<u128>> Ranges<A> {
    fn new(ranges: Box<[(A, A)]>) -> Self {
        let (Some((first, _)), Some((last, _))) = (ranges.first(), ranges.last()) else {
            return Ranges { ranges, steps: Box::default(), shift: 0 };
        };
        let first: u128 = (*first).into();
        let width = (*last).into() - first;
        let most = 2 * ranges.len() as u128;
        let shift = (0..u128::BITS).find(|shift| width >> shift < most).unwrap_or_default();
        let step = |(begin, _): &(A, A)| ((*begin).into() - first) >> shift;
        let count = (width >> shift) + 1;
        let before = |at: u128| ranges.partition_point(|range| step(range) < at) as u32;
        let steps = (0..=count).map(before).collect();
        Ranges { ranges, steps, shift }
    }

    fn contain(&self, address: A) -> bool {
        let Some((first, _)) = self.ranges.first() else { return false };
        let Some(offset) = address.into().checked_sub((*first).into()) else { return false };
        // Beyond the last step there are no others that begin.
        let step = usize::try_from(offset >> self.shift).unwrap_or(usize::MAX).min(self.steps.len() - 2);
        let (from, to) = (self.steps[step] as usize, self.steps[step + 1] as usize);
        let later = from + self.ranges[from..to].partition_point(|(begin, _)| *begin <= address);
        later.checked_sub(1).is_some_and(|at| address <= self.ranges[at].1)
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Each is a network, so that its ends differ in all bits behind its prefix.
        let v4 = self
            .v4
            .ranges
            .iter()
            .map(|(first, last)| format!("{}/{}", Ipv4Addr::from(*first), (first ^ last).leading_zeros()));
        let v6 = self
            .v6
            .ranges
            .iter()
            .map(|(first, last)| format!("{}/{}", Ipv6Addr::from(*first), (first ^ last).leading_zeros()));
        serializer.collect_seq(v4.chain(v6))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(texts.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn deny_goes_before_allow_and_both_before_nothing() {
        let everyone = IpAccess::default();
        let some = IpAccess {
            allow: Some(networks(&["10.0.0.0/8", "2001:db8::/32"])),
            deny: networks(&["10.9.9.9/32", "2001:db8:bad::/48"]),
        };
        for (address, allowed) in [
            ("10.1.2.3", true),
            ("10.9.9.9", false),
            ("10.9.9.10", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("::ffff:10.1.2.3", true),
            ("::ffff:10.9.9.9", false),
            ("2001:db8::1", true),
            ("2001:db8:bad::1", false),
            ("::1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(some.allows(address), allowed, "{address}");
            assert!(everyone.allows(address));
        }
    }

    #[test]
    fn networks_are_shown_as_they_are_written() {
        let written = ["0.0.0.0/8", "10.1.2.3/32", "192.168.0.0/16", "::/64", "2001:db8::1/128", "fd00::/8"];
        let shown = serde_json::to_value(networks(&written)).unwrap();
        assert_eq!(shown, serde_json::json!(written));
        assert_eq!(
            serde_json::to_value(networks(&["0.0.0.0/0", "::/0"])).unwrap(),
            serde_json::json!(["0.0.0.0/0", "::/0"])
        );
    }

    proptest! {
        /// The set has what any of its networks has, however these overlap.
        #[test]
        fn it_has_what_one_of_them_has(
            given in vec((any::<bool>(), any::<u128>(), 0..=128_u8), 0..60),
            asked in vec((any::<bool>(), any::<u128>()), 1..40),
        ) {
            // Few different bits, so that they meet.
            let address = |v4: bool, bits: u128| match v4 {
                true => IpAddr::V4(Ipv4Addr::from((bits as u32) & 0x0303_0303)),
                false => IpAddr::V6(Ipv6Addr::from(bits & 0x0300_0000_0000_0300_0000_0000_0303_0003 | 1 << 120)),
            };
            let given: Vec<IpNet> = given.into_iter().map(|(v4, bits, length)| {
                let address = address(v4, bits);
                IpNet::new(address, if v4 { length % 33 } else { length }).unwrap()
            }).collect();
            let set = Networks::new(given.iter().copied());
            let ends = given.iter().flat_map(|network| [network.network(), network.broadcast()]);
            let beside = |end: IpAddr| match end {
                IpAddr::V4(end) => [end.to_bits().wrapping_sub(1), end.to_bits().wrapping_add(1)]
                    .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
                IpAddr::V6(end) => [end.to_bits().wrapping_sub(1), end.to_bits().wrapping_add(1)]
                    .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
            };
            let asked = asked.into_iter().map(|(v4, bits)| address(v4, bits));
            for address in asked.chain(ends.clone()).chain(ends.flat_map(beside)) {
                // What is asked for is an IPv4 address if it is written as IPv6.
                let address = address.to_canonical();
                prop_assert_eq!(set.contain(address), given.iter().any(|network| network.contains(&address)), "{}", address);
            }
        }
    }
}
