//! From which addresses requests may come.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::api;
use crate::snapshot::{IpAccess, Networks};
use crate::translate::conditions::Problem;

/// The addresses of a section.
pub(super) fn ip_access(given: &api::IpAccess, path: &str, problems: &mut Vec<Problem>) -> IpAccess {
    let api::IpAccess { allow, deny } = given;
    if allow.is_empty() && deny.is_empty() {
        problems.push(Problem::invalid(path, "ipAccess needs allow or deny, for example {allow: ['10.0.0.0/8']}"));
    }
    let mut networks = |texts: &[String], field: &str| {
        let mut read = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
            match text.parse::<IpNet>().ok().or_else(address) {
                // Two ways to read what was meant: the network, or only this address of it.
                Some(network) if network.trunc() != network => problems.push(Problem::invalid(
                    format!("{path}.{field}[{at}]"),
                    format_args!("{text} has bits behind its prefix; write {} or {}", network.trunc(), network.addr()),
                )),
                Some(network) => read.push(network),
                None => problems.push(Problem::invalid(
                    format!("{path}.{field}[{at}]"),
                    format_args!(
                        "{text:?} is no address or network; write for example '192.0.2.7', '10.0.0.0/8' or '2001:db8::/32'"
                    ),
                )),
            }
        }
        Networks::new(read)
    };
    let (allowed, denied) = (networks(allow, "allow"), networks(deny, "deny"));
    IpAccess { allow: (!allow.is_empty()).then_some(allowed), deny: denied }
}
