//! The same by iptables, for kernels without nf_tables: chains of our own in the table `nat`, which a second run empties first. Its
//! programs are in the image that `injector.capture.image` of the chart names; that of the sidecar has none.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::plan::{Plan, Rule, Then, Which, concerns};

const OUTPUT: &str = "FLOODWAY_OUTPUT";
const PREROUTING: &str = "FLOODWAY_PREROUTING";
/// Bytes of what a program says that are repeated.
const SHOWN: usize = 500;

/// Runs the programs; or a sentence with the remedy.
pub(super) fn program(plan: &Plan) -> Result<(), String> {
    for v6 in [false, true] {
        // Kernels without IPv6 have nothing to redirect there.
        if v6 && !Path::new("/proc/net/if_inet6").exists() {
            continue;
        }
        let program = if v6 { "ip6tables" } else { "iptables" };
        let found = [format!("{program}-legacy"), program.to_owned()]
            .into_iter()
            .find_map(|name| Some((on_path(&name)?, on_path(&format!("{name}-restore"))?)));
        let Some((check, restore)) = found else {
            return Err(format!(
                "there is no {program}-legacy and no {program}: set injector.capture.image of the chart to an image that has them \
                 (the target `capture` of the Dockerfile), and injector.capture.legacyIptables to true; or use mode local"
            ));
        };
        let jumps = |chain: &str, own: &str| {
            let mut asked = Command::new(&check);
            asked.args(["-w", "5", "-t", "nat", "-C", chain, "-p", "tcp", "-j", own]);
            asked.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            asked.status().is_ok_and(|status| status.success())
        };
        let text = restorable(plan, v6, jumps("OUTPUT", OUTPUT), jumps("PREROUTING", PREROUTING));
        run(&restore, &text)?;
    }
    Ok(())
}

/// What `iptables-restore --noflush` reads. A chain that is declared is emptied, if it is there (iptables-restore(8)).
fn restorable(plan: &Plan, v6: bool, leaves: bool, arrives: bool) -> String {
    let mut text = format!("*nat\n:{OUTPUT} - [0:0]\n:{PREROUTING} - [0:0]\n");
    for (chain, own, jumps, rules) in
        [("OUTPUT", OUTPUT, leaves, plan.outbound()), ("PREROUTING", PREROUTING, arrives, plan.inbound())]
    {
        for rule in rules.iter().filter(|Rule(which, _)| concerns(which, v6)) {
            for line in lines(rule) {
                // Writing to a text does not fail.
                let _ = writeln!(text, "-A {own} {line}");
            }
        }
        if !jumps {
            let _ = writeln!(text, "-A {chain} -p tcp -j {own}");
        }
    }
    text + "COMMIT\n"
}

/// A rule, without its chain: for several ports as many, since sets are another program's.
fn lines(Rule(which, then): &Rule) -> Vec<String> {
    let all = match which {
        Which::All => vec!["-p tcp".to_owned()],
        Which::User(user) => vec![format!("-p tcp -m owner --uid-owner {user}")],
        Which::To(network) => vec![format!("-p tcp -d {network}")],
        Which::Ports(ports) => ports.iter().map(|port| format!("-p tcp --dport {port}")).collect(),
    };
    let target = match then {
        Then::Return => "RETURN".to_owned(),
        Then::Redirect(port) => format!("REDIRECT --to-ports {port}"),
    };
    all.into_iter().map(|which| format!("{which} -j {target}")).collect()
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn run(restore: &Path, text: &str) -> Result<(), String> {
    let name = restore.display();
    let failed = |what: String| format!("{name} failed: {what}");
    let mut child = Command::new(restore)
        .args(["-w", "5", "--noflush"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // Who ends without reading says why below.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String =
        said.trim().chars().take(SHOWN).map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let rights = if said.contains("Permission denied") {
        "; it needs the capabilities NET_ADMIN and NET_RAW, and to run as root"
    } else {
        ""
    };
    Err(failed(said + rights))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_family_has_its_own_rules_and_jumps_once() {
        let plan = Plan {
            inbound_listener: 15106,
            outbound_listener: 15101,
            uid: 15151,
            inbound_ports: vec![9090, 8080],
            exclude_outbound_ports: vec![5432],
            exclude_outbound_addresses: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        };
        let first = "\
*nat
:FLOODWAY_OUTPUT - [0:0]
:FLOODWAY_PREROUTING - [0:0]
-A FLOODWAY_OUTPUT -p tcp -m owner --uid-owner 15151 -j RETURN
-A FLOODWAY_OUTPUT -p tcp -d 127.0.0.0/8 -j RETURN
-A FLOODWAY_OUTPUT -p tcp -d 10.0.0.0/8 -j RETURN
-A FLOODWAY_OUTPUT -p tcp --dport 5432 -j RETURN
-A FLOODWAY_OUTPUT -p tcp -j REDIRECT --to-ports 15101
-A OUTPUT -p tcp -j FLOODWAY_OUTPUT
-A FLOODWAY_PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 15106
-A FLOODWAY_PREROUTING -p tcp --dport 9090 -j REDIRECT --to-ports 15106
-A PREROUTING -p tcp -j FLOODWAY_PREROUTING
COMMIT
";
        assert_eq!(restorable(&plan, false, false, false), first);
        let again = restorable(&plan, true, true, true);
        assert!(!again.contains("-A OUTPUT") && !again.contains("-A PREROUTING"), "{again}");
        assert!(again.contains("-d ::1/128 -j RETURN\n-A FLOODWAY_OUTPUT -p tcp -d fd00::/8 -j RETURN"), "{again}");
    }
}
