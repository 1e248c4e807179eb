//! Names under which a sidecar's table has its routes: by the port that a connection was meant for, or by the host and port that it was
//! meant for or that a request names. They are hosts to the router, and no client can choose one that is not meant.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The name of what came for a port of the pod itself.
pub fn of_port(port: u16) -> String {
    port.to_string()
}

/// The name of what goes to a port of a host: `8080.llm.shop`. The host is in lower case, or an address as URLs have it.
pub fn of_host(host: &str, port: u16) -> String {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match literal.and_then(|literal| literal.parse::<Ipv6Addr>().ok()) {
        Some(address) => of_address((address, port).into()),
        None => format!("{port}.{host}"),
    }
}

/// The name of what goes to an address: `80.10.96.0.5`, or `80.fd00.0.0.0.0.0.0.5`.
pub fn of_address(address: SocketAddr) -> String {
    let port = address.port();
    match address.ip().to_canonical() {
        IpAddr::V4(address) => format!("{port}.{address}"),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:x}")).join(".");
            format!("{port}.{groups}")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::snapshot::HostPattern;

    #[test]
    fn hosts_and_addresses_have_the_same_names_and_all_are_hosts() {
        for (host, address) in [("10.96.0.5", "10.96.0.5:80"), ("[fd00::5]", "[fd00::5]:80"), ("[::1]", "[::1]:80")] {
            let name = of_address(address.parse().unwrap());
            assert_eq!(of_host(host, 80), name);
            assert_eq!(HostPattern::parse(&name).unwrap(), HostPattern::Exact(name.as_str().into()));
        }
        assert_eq!(of_address("[::ffff:10.0.0.1]:8080".parse().unwrap()), "8080.10.0.0.1");
        assert_eq!((of_host("llm.shop", 8080), of_port(8080)), ("8080.llm.shop".to_owned(), "8080".to_owned()));
    }
}
