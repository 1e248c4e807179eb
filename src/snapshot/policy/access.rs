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

/// A set of addresses: disjoint networks in their order, so that an address has at most one that could contain it, which a
/// binary search finds. That takes the place of a trie: as fast, in one flat piece of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Box<[Ipv4Net]>,
    v6: Box<[Ipv6Net]>,
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
        Networks { v4: Ipv4Net::aggregate(&v4).into(), v6: Ipv6Net::aggregate(&v6).into() }
    }

    /// Whether an address is among them. An IPv4 address that is written as IPv6 is an IPv4 address.
    pub fn contain(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => last(&self.v4, |network| Ipv4Net::network(network) <= address)
                .is_some_and(|network| Ipv4Net::contains::<&Ipv4Addr>(network, &address)),
            IpAddr::V6(address) => last(&self.v6, |network| Ipv6Net::network(network) <= address)
                .is_some_and(|network| Ipv6Net::contains::<&Ipv6Addr>(network, &address)),
        }
    }
}

/// The last of those that begin no later.
fn last<T>(sorted: &[T], begins: impl FnMut(&T) -> bool) -> Option<&T> {
    sorted.partition_point(begins).checked_sub(1).and_then(|at| sorted.get(at))
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.v4.iter().map(ToString::to_string).chain(self.v6.iter().map(ToString::to_string)))
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
            for (v4, bits) in asked {
                let address = address(v4, bits);
                prop_assert_eq!(set.contain(address), given.iter().any(|network| network.contains(&address)), "{}", address);
            }
        }
    }
}
