//! A kernel that redirects: in a network namespace of its own, with the rules of nftables that a pod gets. Root and nft are needed;
//! without them this says so and ends.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Backend, echo, eventually, get, said, service};

/// Tells the test that it is in its namespace.
const INSIDE: &str = "FLOODWAY_TEST_NAMESPACE";

/// What the app connects to goes to the sidecar, and so does what comes for its port. Loopback and the sidecar itself are left alone.
const RULES: &str = "
table inet floodway {
  chain out {
    type nat hook output priority -100; policy accept;
    meta skuid 15151 return
    ip daddr 127.0.0.0/8 return
    tcp dport 8080 redirect to :15106
    meta l4proto tcp redirect to :15101
  }
}
";

fn run(program: &str, args: &[&str]) -> bool {
    let quiet = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

#[test]
fn what_a_kernel_redirects_goes_where_it_was_meant_to_go() {
    if std::env::var_os(INSIDE).is_some() {
        return tokio::runtime::Runtime::new().unwrap().block_on(inside());
    }
    let able = run("unshare", &["--net", "nft", "list", "ruleset"]) && run("setpriv", &["--version"]);
    if !able {
        return eprintln!("skipped: this needs root, unshare, setpriv, ip and nft");
    }
    let name = "kernel::what_a_kernel_redirects_goes_where_it_was_meant_to_go";
    let mut command = Command::new("unshare");
    command.args(["--net", std::env::current_exe().unwrap().to_str().unwrap(), "--exact", name, "--nocapture"]);
    assert!(command.env(INSIDE, "yes").status().unwrap().success());
}

async fn inside() {
    for line in ["link set lo up", "addr add 10.0.0.7/32 dev lo", "route add 10.96.0.0/16 dev lo src 10.0.0.7"] {
        assert!(run("ip", &line.split(' ').collect::<Vec<_>>()), "ip {line}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (one, two, app, bytes) =
        (Backend::start("one").await, Backend::start("two").await, Backend::start("app").await, echo("").await);
    let objects = service("llm", &[&one, &two], "  loadBalancing: {algorithm: RoundRobin}\n");
    std::fs::write(dir.path().join("objects.yaml"), objects).unwrap();
    let rules = dir.path().join("rules.nft");
    std::fs::write(&rules, RULES).unwrap();
    assert!(run("chmod", &["-R", "a+rX", dir.path().to_str().unwrap()]));
    // The program has to be where somebody else than root may run it.
    let program = dir.path().join("floodway");
    std::fs::hard_link(env!("CARGO_BIN_EXE_floodway"), &program)
        .or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_floodway"), &program).map(drop))
        .unwrap();
    let mut child = Command::new("setpriv")
        .args(["--reuid=15151", "--regid=15151", "--clear-groups"])
        .arg(&program)
        .args(["sidecar", "--mode=transparent", "--namespace=shop", "--inbound-port=8080", "--log-format=text"])
        .args(["--access-log=off", &format!("--app-port={}", app.port()), "--dir", dir.path().to_str().unwrap()])
        .env("POD_IP", "10.0.0.7")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("serving inbound on 0.0.0.0:15106")));
    assert!(run("nft", &["-f", rules.to_str().unwrap()]));

    // To a Service, by its cluster IP: each request by itself.
    let mut client = TcpStream::connect("10.96.0.1:80").await.unwrap();
    let mut request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    request.push_str("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert_eq!((answers.matches("one\n").count(), answers.matches("two\n").count()), (2, 2), "{answers}");

    // To something else: as it is, and by nobody but the sidecar.
    let elsewhere = SocketAddr::from(([10, 0, 0, 7], bytes.port()));
    let listener = tokio::net::TcpListener::bind("10.0.0.7:0").await.unwrap();
    let other = listener.local_addr().unwrap();
    let (mut client, accepted) = tokio::join!(async { TcpStream::connect(other).await.unwrap() }, listener.accept());
    client.write_all(b"\0\x01hello").await.unwrap();
    let mut heard = [0; 7];
    accepted.unwrap().0.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"\0\x01hello");
    // Nobody listens there: the break comes back.
    let refused = async {
        let mut client = TcpStream::connect(elsewhere).await?;
        client.read_u8().await
    };
    assert!(refused.await.is_err());

    // To a port of the pod: to loopback, where nobody listens on 8080; straight to the sidecar means the app.
    let (status, _) = get(TcpStream::connect("10.0.0.7:8080").await.unwrap(), "/", "a", "").await;
    assert_eq!(status, 502);
    let (_, body) = get(TcpStream::connect("127.0.0.1:15106").await.unwrap(), "/", "a", "").await;
    assert!(body.starts_with("app\n"), "{body}");
    // Straight to where the app's connections go: a proxy.
    let (_, body) = get(TcpStream::connect("127.0.0.1:15101").await.unwrap(), "/", "llm.shop", "").await;
    assert!(body.starts_with("one\n") || body.starts_with("two\n"), "{body}");
    // To the sidecar itself, by the address of the pod: it would come back for ever.
    assert_eq!(
        said(TcpStream::connect("10.0.0.7:15101").await.unwrap(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await,
        ""
    );
    let circles = async || {
        let (_, text) = get(TcpStream::connect("127.0.0.1:15190").await.unwrap(), "/metrics", "admin", "").await;
        text.contains("floodway_connections_refused_total{reason=\"circle\",listener=\"outbound\"} 1")
    };
    eventually("a circle is counted", circles).await;
    child.kill().unwrap();
    child.wait().unwrap();
}
