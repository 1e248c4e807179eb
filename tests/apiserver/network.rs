//! A network of the test's own, because the API server refuses endpoints with loopback addresses: these tests run again
//! in a new network namespace with a veth pair whose one end carries ordinary addresses. Everything they start (etcd,
//! the API server, the gateway, the backends) is in there with them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

const INSIDE: &str = "FLOODWAY_TEST_NETWORK";
/// Addresses of backends: 10.77.0.1 to 10.77.0.9.
const SET_UP: &str = r#"
set -e
ip link set lo up
ip link add floodway0 type veth peer name floodway1
for last in 1 2 3 4 5 6 7 8 9; do ip addr add 10.77.0.$last/24 dev floodway0; done
ip link set floodway0 up
ip link set floodway1 up
exec "$@"
"#;

/// Runs the ignored tests of the module `inside` in a network namespace. Where none can be made, fails if `CI` is set
/// and otherwise says that they were skipped.
pub(crate) fn run_in_namespace(tests: &str) {
    let Some(mut unshare) = namespace() else {
        let text = format!(
            "\n*** {tests}: NOT RUN. They need a network namespace: root, or user namespaces and `unshare` and `ip` \
             (util-linux, iproute2). ***\n"
        );
        assert!(std::env::var_os("CI").is_none(), "{text}");
        // Past the test harness, which would keep it to itself.
        let _ = std::io::stderr().write_all(text.as_bytes());
        return;
    };
    let exe = std::env::current_exe().unwrap();
    let output = unshare
        .args(["sh", "-c", SET_UP, "sh"])
        .arg(exe)
        .args(["--ignored", "--nocapture", tests])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in the network namespace:\n{text}");
    assert!(!text.contains("running 0 tests"), "no test is named {tests}");
    println!("{text}");
}

/// The way to a new network namespace, if there is one.
fn namespace() -> Option<Command> {
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    ways.into_iter().find_map(|way| {
        let mut probe = Command::new("unshare");
        probe.args(way).args(["sh", "-c", SET_UP, "sh", "true"]);
        let works = probe.output().is_ok_and(|output| output.status.success());
        works.then(|| {
            let mut command = Command::new("unshare");
            command.args(way);
            command
        })
    })
}

/// Ends a test that was started outside of a namespace with `--ignored`.
pub(crate) fn must_be_inside() {
    assert!(std::env::var_os(INSIDE).is_some(), "this test runs within the test that makes its network namespace");
}

/// A backend that answers every request with its name. Ends with the process.
pub(crate) fn backend(last: u8, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((IpAddr::from([10, 77, 0, last]), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(&stream, name));
        }
    });
    address
}

fn serve(stream: &TcpStream, name: &str) {
    let mut lines = BufReader::new(stream).lines();
    let mut stream = stream;
    // A request without body ends with an empty line.
    while lines.by_ref().map_while(Result::ok).any(|line| line.is_empty()) {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
