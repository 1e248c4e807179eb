//! The rules as `nft list ruleset` shows them.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::plan::{Plan, Rule, Then, Which};

/// The table, as `nft` writes it.
pub fn nft(plan: &Plan) -> String {
    let mut text = String::from("table inet floodway {\n");
    let chains = [("output", "output", plan.outbound()), ("prerouting", "prerouting", plan.inbound())];
    for (place, (name, hook, rules)) in chains.into_iter().enumerate() {
        if place > 0 {
            text.push('\n');
        }
        // Writing to a text does not fail.
        let _ =
            writeln!(text, "\tchain {name} {{\n\t\ttype nat hook {hook} priority {}; policy accept;", priority(hook));
        for rule in rules {
            let _ = writeln!(text, "\t\t{}", line(rule));
        }
        text.push_str("\t}\n");
    }
    text + "}\n"
}

/// -100, which has a name where packets arrive (nft(8), "priority").
fn priority(hook: &str) -> &'static str {
    if hook == "prerouting" { "dstnat" } else { "-100" }
}

fn line(Rule(which, then): Rule) -> String {
    let which = match which {
        Which::All => "meta l4proto tcp ".to_owned(),
        Which::User(user) => format!("meta skuid {user} "),
        Which::To(IpNet::V4(network)) if network.prefix_len() == 32 => format!("ip daddr {} ", network.addr()),
        Which::To(IpNet::V6(network)) if network.prefix_len() == 128 => format!("ip6 daddr {} ", network.addr()),
        Which::To(IpNet::V4(network)) => format!("ip daddr {network} "),
        Which::To(IpNet::V6(network)) => format!("ip6 daddr {network} "),
        Which::Ports(ports) => match ports.as_slice() {
            [port] => format!("tcp dport {port} "),
            ports => {
                let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
                format!("tcp dport {{ {} }} ", ports.join(", "))
            }
        },
    };
    match then {
        Then::Return => which + "return",
        Then::Redirect(port) => format!("{which}redirect to :{port}"),
    }
}
