//! `floodway capture`, as it is run in pods: in a network namespace of the test's own, with connections that are redirected, and
//! others that are not. `nft` and `iptables` say what the kernel has.
#![allow(clippy::unwrap_used)]

mod decoded;
mod elsewhere;
#[path = "../apiserver/network.rs"]
#[allow(dead_code)]
mod network;
mod told;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use elsewhere::{Elsewhere, said};
use network::{must_be_inside, run_in_namespace};

const RULES: [&str; 9] = [
    "--inbound-port=8080",
    "--inbound-port=9090",
    "--inbound-port=7070",
    "--exclude-inbound-port=9090",
    "--exclude-outbound-port=5432",
    "--exclude-outbound-address=10.77.0.3",
    "--exclude-outbound-address=10.99.0.0/20",
    "--exclude-outbound-address=fd77::8/127",
    "--exclude-outbound-address=fd77::3/128",
];

/// What `nft list ruleset` shows of these.
const SHOWN: &str = "\
table inet floodway {
	chain output {
		type nat hook output priority -100; policy accept;
		meta skuid 15151 return
		ip daddr 127.0.0.0/8 return
		ip6 daddr ::1 return
		ip daddr 10.77.0.3 return
		ip daddr 10.99.0.0/20 return
		ip6 daddr fd77::8/127 return
		ip6 daddr fd77::3 return
		tcp dport 5432 return
		meta l4proto tcp redirect to :15101
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		tcp dport { 7070, 8080 } redirect to :15106
	}
}
";

fn floodway(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_floodway")).arg("capture").args(flags).output().unwrap()
}

fn capture(flags: &[&str]) -> String {
    let Output { status, stderr, .. } = floodway(flags);
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{flags:?}: {said}");
    said
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

#[test]
fn a_dry_run_prints_the_rules_and_needs_no_right() {
    let output = floodway(&[&RULES[..], &["--dry-run"]].concat());
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), SHOWN);
}

#[test]
fn wrong_flags_are_explained() {
    for (flag, told) in [
        ("--inbound-port=0", "write a port"),
        ("--inbound-port=15101", "--inbound-port=15101 is a port of the sidecar itself"),
        ("--exclude-outbound-address=10.0.0.0/33", "write a block of addresses, for example 10.0.0.0/8"),
    ] {
        let output = floodway(&[flag, "--dry-run"]);
        assert_eq!(output.status.code(), Some(2), "{flag}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(told), "{flag}: {said}");
    }
}

/// The whole transaction for one rule of each kind, byte by byte as the kernel's headers have it.
#[test]
fn the_bytes_are_those_of_the_golden_file() {
    let plan = floodway::capture::Plan {
        inbound_listener: 15106,
        outbound_listener: 15101,
        uid: 15151,
        inbound_ports: vec![8080],
        exclude_outbound_ports: vec![5432],
        exclude_outbound_addresses: vec!["10.0.0.0/8".parse().unwrap()],
    };
    let bytes = floodway::capture::batch(&plan);
    if cfg!(target_endian = "big") {
        return;
    }
    let mut text = String::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
        let (message, others) = rest.split_at(length);
        assert_eq!(length % 4, 0);
        for line in message.chunks(16) {
            text += &line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            text.push('\n');
        }
        text.push('\n');
        rest = others;
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/capture/batch.golden.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(golden).unwrap_or_default(), "UPDATE_GOLDEN=1 rewrites it");
}

#[test]
fn the_kernel_does_what_the_rules_say() {
    run_in_namespace("inside::");
}

fn has_v6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// A place that tells whoever connects its name and where they wanted to go.
fn place(address: &str, name: &'static str) {
    let address: SocketAddr = address.parse().unwrap();
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.bind(&address.into()).unwrap_or_else(|error| panic!("{address}: {error}"));
    socket.listen(128).unwrap();
    let listener = TcpListener::from(socket);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let socket = socket2::SockRef::from(&stream);
            let original = socket.original_dst_v4().or_else(|_| socket.original_dst_v6());
            let original = original.ok().and_then(|address| address.as_socket());
            // Without redirection it is the address of the socket itself.
            let original = original.filter(|original| Some(*original) != stream.local_addr().ok());
            let original = original.map(|original| format!(" for {original}")).unwrap_or_default();
            let _ = stream.write_all(format!("{name}{original}").as_bytes());
        }
    });
}

/// Who answers a connection from this namespace.
fn answer(address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream =
        TcpStream::connect_timeout(&address, Duration::from_secs(30)).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Tests share the namespace.
static NAMESPACE: Mutex<()> = Mutex::new(());

/// Everybody who may be reached, once.
fn places() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        place("127.0.0.1:15101", "outbound");
        place("0.0.0.0:15106", "inbound");
        for port in [8080, 9090, 7070, 5432] {
            place(&format!("0.0.0.0:{port}"), "the app");
        }
        if has_v6() {
            for address in ["fd77::1/64", "fd77::3/64", "fd77::9/64"] {
                said("ip", &["-6", "addr", "add", address, "dev", "floodway0", "nodad"]);
            }
            place("[::1]:15101", "outbound");
            place("[::]:15106", "inbound");
            for port in [8080, 9090, 7070] {
                place(&format!("[fd77::1]:{port}"), "the app");
            }
            place("[fd77::1]:8082", "the app");
            place("[fd77::3]:8082", "the app");
            place("[fd77::9]:8082", "the app");
            place("[::1]:8082", "the app");
        }
    });
}

fn both_ways(how: &str, flags: &[&str]) {
    places();
    let all = [&RULES[..], flags].concat();
    // The second run leaves what the first one made.
    for _ in 0..2 {
        assert_eq!(capture(&all), format!("connections are redirected by {how}\n"));
    }

    // From here: everything but what was left out.
    assert_eq!(answer("10.77.0.1:8080"), "outbound for 10.77.0.1:8080");
    assert_eq!(answer("10.77.0.2:9999"), "outbound for 10.77.0.2:9999", "nobody is there, which outbound finds out");
    assert_eq!(answer("127.0.0.1:8080"), "the app");
    assert_eq!(answer("10.77.0.1:5432"), "the app", "a port is left out");
    assert_eq!(answer("10.77.0.3:8080"), "the app", "an address is left out");
    if has_v6() {
        assert_eq!(answer("[fd77::1]:8082"), "outbound for [fd77::1]:8082");
        assert_eq!(answer("[fd77::3]:8082"), "the app");
        assert_eq!(answer("[fd77::9]:8082"), "the app", "a block of addresses is left out");
        assert_eq!(answer("[::1]:8082"), "the app");
    }

    // The same user as the sidecar goes where it wants to.
    let own: Vec<&str> = all.iter().copied().chain(["--uid=0"]).collect();
    capture(&own);
    assert_eq!(answer("10.77.0.1:8080"), "the app");
    capture(&all);
    assert_eq!(answer("10.77.0.1:8080"), "outbound for 10.77.0.1:8080");
}

fn from_elsewhere(elsewhere: &Elsewhere) {
    let answer = |port| elsewhere.asks("10.77.0.1", port, "");
    assert_eq!(answer(8080), "inbound for 10.77.0.1:8080");
    assert_eq!(answer(7070), "inbound for 10.77.0.1:7070");
    assert_eq!(answer(9090), "the app", "a port is left out");
    assert_eq!(answer(5432), "the app", "it was not named");
    assert_eq!(answer(15106), "inbound");
    if has_v6() {
        let answer = |port| elsewhere.asks("fd77::1", port, "");
        assert_eq!(answer(8080), "inbound for [fd77::1]:8080");
        assert_eq!(answer(7070), "inbound for [fd77::1]:7070");
        assert_eq!(answer(9090), "the app", "a port is left out");
        assert_eq!(answer(15106), "inbound");
    }
}

mod inside {
    use super::*;

    fn alone() -> std::sync::MutexGuard<'static, ()> {
        must_be_inside();
        NAMESPACE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    #[test]
    #[ignore = "runs within the_kernel_does_what_the_rules_say"]
    fn connections_are_redirected_by_nf_tables_and_by_iptables() {
        let _alone = alone();
        let elsewhere = Elsewhere::new();
        both_ways("nf_tables", &[]);
        if is_there("nft") {
            assert_eq!(said("nft", &["list", "ruleset"]), SHOWN);
        } else {
            println!("NOT COMPARED with nft, which is not installed (nftables)");
            assert!(std::env::var_os("CI").is_none(), "nft is missing");
        }
        from_elsewhere(&elsewhere);
        // What is not ours stays.
        if is_there("nft") {
            said("nft", &["add", "table", "inet", "other"]);
            capture(&RULES);
            assert!(said("nft", &["list", "tables"]).contains("table inet other"));
            said("nft", &["delete", "table", "inet", "other"]);
            said("nft", &["delete", "table", "inet", "floodway"]);
        }
        if !is_there("iptables-legacy") || !is_there("nft") {
            println!("NOT RUN with iptables, which is not installed (iptables)");
            assert!(std::env::var_os("CI").is_none(), "iptables is missing");
            return;
        }
        both_ways("legacy iptables", &["--legacy-iptables"]);
        let jumps = said("iptables-legacy", &["-t", "nat", "-S", "OUTPUT"]);
        assert_eq!(jumps.matches("-j FLOODWAY_OUTPUT").count(), 1, "{jumps}");
        from_elsewhere(&elsewhere);
    }

    #[test]
    #[ignore = "runs within the_kernel_does_what_the_rules_say"]
    fn who_may_not_is_told_what_is_missing() {
        let _alone = alone();
        // In a user namespace of its own, to which this network does not belong.
        let output = Command::new("unshare")
            .args(["--user", env!("CARGO_BIN_EXE_floodway"), "capture", "--inbound-port=8080"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("needs the capability NET_ADMIN and to run as root"), "{said}");
    }
}
