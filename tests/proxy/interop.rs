//! Clients and servers of other makers: gRPC's interoperability tests pass through the proxy, and h2spec finds nothing in
//! the listener but what is said here. `tests/tools/build.sh` builds them.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use floodway::snapshot::{Protocol, Snapshot};

use super::clients::*;
use super::support::*;

/// A program that was built for the tests. Where it is missing, this fails if `CI` is set and says so otherwise.
fn tool(name: &str) -> Option<PathBuf> {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/http2-tools").join(name);
    if tool.exists() {
        return Some(tool);
    }
    let text = format!("{} is missing; `make test-tools` builds it", tool.display());
    assert!(std::env::var_os("CI").is_none(), "{text}");
    eprintln!("NOT RUN: {text}");
    None
}

fn to_http2(endpoint: SocketAddr) -> Snapshot {
    snapshot(vec![forward("", "backend")], vec![cluster("backend", Protocol::Http2, &[endpoint])])
}

/// A process, until dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// gRPC's server for interoperability tests, and its port.
fn grpc_server() -> Option<(Running, u16)> {
    let mut command = Command::new(tool("grpc-interop-server")?);
    command.args(["-port", "0"]).env("GRPC_GO_LOG_SEVERITY_LEVEL", "info").stderr(Stdio::piped());
    let mut server = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(server.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let listening = lines.find(|line| line.contains("listening on")).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    Some((server, listening.rsplit(':').next().unwrap().parse().unwrap()))
}

/// All cases of the Go client that need neither TLS nor credentials nor a server that measures its load.
const CASES: [&str; 16] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
];

#[tokio::test]
async fn grpc_clients_and_servers_understand_each_other_through_the_proxy() {
    let (Some((_server, port)), Some(client)) = (grpc_server(), tool("grpc-interop-client")) else { return };
    let plane = Plane::start(to_http2(SocketAddr::from(([127, 0, 0, 1], port))));
    let proxy = plane.address.port().to_string();
    let cases = CASES.map(|case| {
        let mut command = Command::new(&client);
        command.args(["-server_host", "127.0.0.1", "-server_port", &proxy, "-test_case", case]);
        // How fast they are is not asked here.
        command.args(["-soak_overall_timeout_seconds", "60", "-soak_per_iteration_max_acceptable_latency_ms", "20000"]);
        (case, tokio::task::spawn_blocking(move || command.output().unwrap()))
    });
    for (case, running) in cases {
        let output = within(running).await.unwrap();
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    }
    plane.metric_becomes("floodway_active_streams", "", 0.0).await;
    eventually("nothing in flight", || plane.in_flight() == 0).await;
}

/// What h2spec finds, by section and case, each with the reason why it stays.
const KNOWN: [(&str, &str); 1] = [
    // One port serves both versions: RFC 9113 3.4 is about connections that begin with the preface, and this one is a
    // malformed request of HTTP/1.1, which is answered with 400 and closed. h2spec takes any answer for a failure.
    ("http2/3.5", "Sends invalid connection preface"),
];

#[tokio::test]
async fn h2spec_finds_nothing_new() {
    let Some(h2spec) = tool("h2spec") else { return };
    let backend = http2_backend(|mut request, mut answer| async move {
        let _ = content(request.body_mut()).await;
        if let Ok(mut stream) = answer.send_response(http::Response::new(()), false) {
            let _ = stream.send_data(Bytes::from_static(b"hello"), true);
        }
    });
    let plane = Plane::start(to_http2(backend.await));
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(h2spec);
    command.args(["--strict", "-h", "127.0.0.1", "-p", &plane.address.port().to_string(), "-j"]).arg(report.path());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = tokio::time::timeout(std::time::Duration::from_secs(120), output).await.unwrap().unwrap();
    let report = std::fs::read_to_string(report.path()).unwrap();
    let cases: Vec<&str> = report.split("<testcase ").skip(1).collect();
    assert!(cases.len() > 140, "{}", String::from_utf8_lossy(&output.stderr));
    let failed = cases.iter().filter(|case| ["<error", "<failure", "<skipped"].iter().any(|mark| case.contains(mark)));
    let named = failed.map(|case| (attribute(case, "package"), attribute(case, "classname")));
    assert_eq!(named.collect::<BTreeSet<_>>(), BTreeSet::from(KNOWN), "{}", String::from_utf8_lossy(&output.stdout));
}

fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    let (_, rest) = element.split_once(&format!("{name}=\"")).unwrap();
    rest.split('"').next().unwrap()
}
