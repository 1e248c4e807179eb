//! A kernel that redirects, for IPv4 and IPv6: in a network namespace of the test's own, with the rules that a pod gets, by nf_tables
//! and by legacy iptables. Root, setpriv and ip are needed.

use std::io::BufRead as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::elsewhere::{Elsewhere, said};
use crate::network::{must_be_inside, run_in_namespace};
use crate::support::{Backend, eventually, get, service};

fn run(program: &str, args: &[&str]) -> bool {
    let quiet = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

#[test]
fn what_a_kernel_redirects_goes_where_it_was_meant_to_go() {
    // A namespace of users in which there is nobody but root will not do: the sidecar is another user.
    if run("setpriv", &["--reuid=15151", "--regid=15151", "--clear-groups", "true"]) {
        return run_in_namespace("kernel::inside::");
    }
    assert!(std::env::var_os("CI").is_none(), "this needs root and setpriv (util-linux)");
    eprintln!("skipped: this needs root and setpriv (util-linux)");
}

/// The program that a pod runs, as the user whose connections are left alone.
struct Sidecar(Child);

impl Sidecar {
    fn start(dir: &std::path::Path, inbound: &str) -> Sidecar {
        // The program has to be where somebody else than root may run it.
        let program = dir.join("floodway");
        let _ = std::fs::remove_file(&program);
        std::fs::hard_link(env!("CARGO_BIN_EXE_floodway"), &program)
            .or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_floodway"), &program).map(drop))
            .unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=15151", "--regid=15151", "--clear-groups"]).arg(&program);
        command.args(["sidecar", "--mode=transparent", "--namespace=shop", "--log-format=text", "--access-log=off"]);
        command.args(["--app-port=7070", "--inbound-port=8080", "--outbound=127.0.0.1:15101", inbound]);
        command.args(["--dir", dir.to_str().unwrap()]).env("POD_IP", "10.77.0.1").stderr(Stdio::piped());
        let mut sidecar = Sidecar(command.spawn().unwrap());
        let mut lines = std::io::BufReader::new(sidecar.0.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("serving inbound on ")));
        // Somebody has to hear the rest.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("sidecar: {line}")));
        sidecar
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All that comes back; nothing if the connection breaks.
async fn heard(address: SocketAddr, words: &str) -> Option<String> {
    let mut client = TcpStream::connect(address).await.ok()?;
    client.write_all(words.as_bytes()).await.ok()?;
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.ok()?;
    Some(answers)
}

/// Everything that a pod is asked and asks, by its address of one family and the cluster IP of a Service.
async fn both_ways(elsewhere: &Elsewhere, pod: &str, cluster_ip: &str, other: &str) {
    let at = |ip: &str, port: u16| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port);
    // To a Service, by its cluster IP: each request by itself. Whoever says nothing for two seconds is passed on to where nobody is,
    // which a test that has to wait for a processor may do.
    let request =
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3) + "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    eventually("requests are spread", async || {
        let answers = heard(at(cluster_ip, 80), &request).await.unwrap_or_default();
        (answers.matches("one\n").count(), answers.matches("two\n").count()) == (2, 2)
    })
    .await;
    // To something else: as it is, and by nobody but the sidecar, which goes to loopback from there.
    let listener = TcpListener::bind(at(other, 0)).await.unwrap();
    let meant = listener.local_addr().unwrap();
    let (mut client, accepted) = tokio::join!(async { TcpStream::connect(meant).await.unwrap() }, listener.accept());
    client.write_all(b"\0\x01hello").await.unwrap();
    let mut hello = [0; 7];
    let (mut server, from) = accepted.unwrap();
    server.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"\0\x01hello");
    assert_ne!(from, client.local_addr().unwrap(), "it was not redirected");
    // Nobody listens there: the break comes back.
    drop((listener, server));
    assert_eq!(heard(meant, "hello").await, None);
    // To itself, by the address of the pod: it would come back for ever.
    assert_eq!(heard(at(pod, 15101), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap_or_default(), "");
    // Straight to where the app's connections go, which loopback does not redirect: a proxy.
    let loopback = if meant.is_ipv4() { "127.0.0.1" } else { "::1" };
    let (_, body) = get(TcpStream::connect(at(loopback, 15101)).await.unwrap(), "/", "llm.shop", "").await;
    assert!(body.starts_with("one\n") || body.starts_with("two\n"), "{body}");

    // From elsewhere, to a port of the pod that is captured, and straight to the sidecar.
    for (port, name) in [(8080, "captured\n"), (15106, "app\n")] {
        let words = "GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n";
        let answer = elsewhere.asks(pod, port, words);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(name), "{pod} {port}: {answer}");
        let client = if meant.is_ipv4() { "x-forwarded-for: 10.77.0.100" } else { "x-forwarded-for: fd77::100" };
        assert!(answer.to_ascii_lowercase().contains(client), "{answer}");
    }
}

async fn redirected(elsewhere: &Elsewhere, how: &str, flags: &[&str], inbound: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let objects = service("llm", &[&one, &two], "  loadBalancing: {algorithm: RoundRobin}\n")
        .replace("clusterIP: 10.96.0.1,", "clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, \"fd96::1\"],");
    std::fs::write(dir.path().join("objects.yaml"), objects).unwrap();
    assert!(run("chmod", &["-R", "a+rX", dir.path().to_str().unwrap()]));
    let _sidecar = Sidecar::start(dir.path(), inbound);
    let mut capture = Command::new(env!("CARGO_BIN_EXE_floodway"));
    let captured = capture.args(["capture", "--inbound-port=8080"]).args(flags).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&captured.stderr), format!("connections are redirected by {how}\n"));
    both_ways(elsewhere, "10.77.0.1", "10.96.0.1", "10.77.0.2").await;
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        both_ways(elsewhere, "fd77::1", "fd96::1", "fd77::2").await;
    }
    // Of the two ways in a circle, that by IPv4 is known as one; that by IPv6 leads to nobody.
    let circles = async || {
        let (_, text) = get(TcpStream::connect("127.0.0.1:15190").await.unwrap(), "/metrics", "admin", "").await;
        text.contains("floodway_connections_refused_total{reason=\"circle\",listener=\"outbound\"} 1")
    };
    eventually("a circle is counted", circles).await;
}

mod inside {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "runs within what_a_kernel_redirects_goes_where_it_was_meant_to_go"]
    async fn by_nf_tables_and_by_iptables() {
        must_be_inside();
        // In no test does anybody wait for longer.
        let patience = Duration::from_secs(100);
        let all = async {
            let elsewhere = Elsewhere::new();
            said("ip", &["route", "add", "10.96.0.0/16", "dev", "floodway0"]);
            if std::path::Path::new("/proc/net/if_inet6").exists() {
                for address in ["fd77::1/64", "fd77::2/64"] {
                    said("ip", &["-6", "addr", "add", address, "dev", "floodway0", "nodad"]);
                }
                said("ip", &["-6", "route", "add", "fd96::/64", "dev", "floodway0"]);
            }
            let (_app, _captured) =
                (Backend::at("127.0.0.1:7070", "app").await, Backend::at("127.0.0.1:8080", "captured").await);
            redirected(&elsewhere, "nf_tables", &[], "--inbound=0.0.0.0:15106").await;
            if !run("nft", &["--version"]) || !run("iptables-legacy", &["--version"]) {
                println!("NOT RUN with iptables, which is not installed (iptables, nftables)");
                assert!(std::env::var_os("CI").is_none(), "iptables is missing");
                return;
            }
            said("nft", &["delete", "table", "inet", "floodway"]);
            // Clients of IPv4 come by a socket of both families here.
            redirected(&elsewhere, "legacy iptables", &["--legacy-iptables"], "--inbound=[::]:15106").await;
        };
        assert!(tokio::time::timeout(patience, all).await.is_ok(), "it hangs");
    }
}
