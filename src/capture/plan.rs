//! What is redirected, as two lists of rules. How they are written down is not here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Entries of each list: those of ports are one set, and each of addresses is a rule.
const MOST: usize = 256;

/// What is redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where incoming connections go.
    pub inbound_listener: u16,
    /// Where outgoing connections go.
    pub outbound_listener: u16,
    /// The user whose own connections go where they were meant to.
    pub uid: u32,
    /// The ports whose incoming connections are redirected.
    pub inbound_ports: Vec<u16>,
    /// Outgoing connections to these ports are left alone.
    pub exclude_outbound_ports: Vec<u16>,
    /// And those to these addresses.
    pub exclude_outbound_addresses: Vec<IpNet>,
}

/// Which packets a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// All of TCP.
    All,
    /// Those of a user's sockets.
    User(u32),
    /// Those for addresses.
    To(IpNet),
    /// Those for some ports of TCP: one at least, in their order.
    Ports(Vec<u16>),
}

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// They are left alone.
    Return,
    /// They go to a port of this host.
    Redirect(u16),
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule(pub(super) Which, pub(super) Then);

impl Plan {
    /// What is wrong with it.
    ///
    /// # Errors
    /// The first thing that is.
    pub fn check(&self) -> Result<(), String> {
        for (count, flag) in [
            (self.inbound_ports.len(), "--inbound-port"),
            (self.exclude_outbound_ports.len(), "--exclude-outbound-port"),
            (self.exclude_outbound_addresses.len(), "--exclude-outbound-address"),
        ] {
            if count > MOST {
                return Err(format!("{flag} is there {count} times, more than {MOST}; name fewer"));
            }
        }
        let own = [self.inbound_listener, self.outbound_listener];
        if let Some(port) = self.inbound_ports.iter().find(|port| own.contains(port)) {
            return Err(format!("--inbound-port={port} is a port of the sidecar itself; leave it out"));
        }
        Ok(())
    }

    /// For connections that begin in this network namespace.
    pub(super) fn outbound(&self) -> Vec<Rule> {
        let loopback = [
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
        ];
        let mut rules = vec![Rule(Which::User(self.uid), Then::Return)];
        rules.extend(loopback.map(|network| Rule(Which::To(network), Then::Return)));
        rules.extend(
            self.exclude_outbound_addresses.iter().map(|network| Rule(Which::To(network.trunc()), Then::Return)),
        );
        rules.extend(for_ports(&self.exclude_outbound_ports, Then::Return));
        rules.push(Rule(Which::All, Then::Redirect(self.outbound_listener)));
        rules
    }

    /// For connections that arrive.
    pub(super) fn inbound(&self) -> Vec<Rule> {
        for_ports(&self.inbound_ports, Then::Redirect(self.inbound_listener)).into_iter().collect()
    }
}

/// The rule for some ports, if there are any.
fn for_ports(ports: &[u16], then: Then) -> Option<Rule> {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    (!ports.is_empty()).then_some(Rule(Which::Ports(ports), then))
}

/// Whether a rule says something of packets of IPv4, or of IPv6.
pub(super) fn concerns(which: &Which, v6: bool) -> bool {
    match which {
        Which::To(network) => matches!(network.addr(), IpAddr::V6(_)) == v6,
        Which::All | Which::User(_) | Which::Ports(_) => true,
    }
}
