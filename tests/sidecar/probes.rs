//! Probes of the kubelet, which the sidecar asks the app in its place; and apps whose API server is away.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::net::{TcpListener, TcpStream};

use crate::support::{Backend, Pod, eventually, get};

#[tokio::test]
async fn the_app_is_asked_as_the_kubelet_would_ask_it() {
    let app = Backend::start("app").await;
    let port = app.port();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = nobody.local_addr().unwrap().port();
    drop(nobody);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = silent.local_addr().unwrap().port();
    let probe = |name: &str, what: String| format!("--probe={{\"name\":\"app/{name}\",{what}}}");
    let flags = [
        format!("--app-port={port}"),
        probe(
            "readiness",
            format!(
                "\"httpGet\":{{\"path\":\"/ready\",\"port\":{port},\"httpHeaders\":[{{\"name\":\"x-probe\",\"value\":\"yes\"}}]}}"
            ),
        ),
        probe("liveness", format!("\"httpGet\":{{\"path\":\"/busy\",\"port\":{port}}}")),
        probe("startup", format!("\"tcpSocket\":{{\"port\":{port}}}")),
        probe("closed", format!("\"tcpSocket\":{{\"port\":{closed}}}")),
        probe("hangs", format!("\"httpGet\":{{\"port\":{hangs}}},\"timeoutSeconds\":1")),
        probe("secure", format!("\"httpGet\":{{\"port\":{port},\"scheme\":\"HTTPS\"}}")),
        probe("grpc", format!("\"grpc\":{{\"port\":{port},\"service\":\"a\"}}")),
    ];
    let pod = Pod::start("", &flags.each_ref().map(String::as_str)).await;
    for (name, status) in [
        ("app/readiness", 200),
        ("app/liveness", 503),
        ("app/startup", 200),
        ("app/closed", 503),
        ("app/hangs", 503),
        ("app/secure", 503),
        ("app/grpc", 503),
        ("app/unknown", 404),
        ("other/readiness", 404),
    ] {
        let (answered, why) = pod.admin(&format!("/probe/{name}")).await;
        assert_eq!(answered, status, "{name}: {why}");
    }
    drop(silent);
}

/// The program as the injector starts it, without a cluster to ask.
struct Program {
    child: Child,
    inbound: SocketAddr,
    admin: SocketAddr,
}

impl Program {
    fn start(kubeconfig: &Path, more: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_floodway"));
        let ports = ["--inbound=127.0.0.1:0", "--outbound=127.0.0.1:0", "--admin=127.0.0.1:0"];
        command
            .args(["sidecar", "--mode=transparent", "--log=off", "--log-format=text"])
            .args(ports)
            .args(more)
            .env("KUBECONFIG", kubeconfig)
            .env_remove("FLOODWAY_CONFIG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // serving inbound on A; outbound on B; admin on C; 1 route
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix("serving inbound on ").map(str::to_owned)).unwrap();
        let inbound = line.split([';', ',']).next().unwrap().parse().unwrap();
        let admin = line.split("admin on ").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
        Program { child, inbound, admin }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_starts_while_the_api_server_is_away() {
    let app = Backend::start("app").await;
    // Bound and not listened on: connections there are refused.
    let away = tokio::net::TcpSocket::new_v4().unwrap();
    away.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let api = away.local_addr().unwrap();
    let mut kubeconfig = tempfile::NamedTempFile::new().unwrap();
    write!(
        kubeconfig,
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'http://{api}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    )
    .unwrap();
    let port = format!("--app-port={}", app.port());
    let open = Program::start(kubeconfig.path(), &[&port]);
    let guarded = Program::start(kubeconfig.path(), &[&port, "--policy=signed-in"]);
    for Program { admin, .. } in [&open, &guarded] {
        eventually("it is ready", async || {
            get(TcpStream::connect(admin).await.unwrap(), "/readyz", "admin", "").await.0 == 200
        })
        .await;
    }
    let ask = async |program: &Program| get(TcpStream::connect(program.inbound).await.unwrap(), "/", "a", "").await.0;
    assert_eq!((ask(&open).await, ask(&guarded).await), (200, 503));
}
