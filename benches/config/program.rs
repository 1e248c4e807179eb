//! The program as it is shipped: its size, and a running one with its ports and memory.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::measure::resident;
use crate::samples::ENDPOINTS;

/// `FLOODWAY` names another program to measure, built with another allocator, for example.
pub(crate) fn path() -> PathBuf {
    std::env::var_os("FLOODWAY").map_or(env!("CARGO_BIN_EXE_floodway").into(), PathBuf::from)
}

/// A running program, which is killed when dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) http: SocketAddr,
    admin: SocketAddr,
    /// From its start to the first answer that it is ready.
    pub(crate) ready: Duration,
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Program {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(command: &[&str], environment: &[(&str, &str)]) -> Self {
        let (http, admin) = (free(), free());
        let began = Instant::now();
        let child = Command::new(path())
            .args(command)
            .args(["--http", &http.to_string(), "--admin", &admin.to_string(), "--access-log", "off"])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut program = Program { child, http, admin, ready: Duration::ZERO };
        let patience = began + Duration::from_secs(120);
        while !ask(program.admin, "admin", "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            assert!(Instant::now() < patience, "{} is not ready", path().display());
            std::thread::sleep(Duration::from_millis(1));
        }
        program.ready = began.elapsed();
        program
    }

    /// Resident memory, when it has come to rest.
    pub(crate) fn resident(&self) -> u64 {
        let mut last = 0;
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = resident(&self.child.id().to_string());
            if now == last {
                return now;
            }
            last = now;
        }
    }

    /// Resident memory at its highest.
    pub(crate) fn peak(&self) -> u64 {
        crate::measure::status_bytes(&self.child.id().to_string(), "VmHWM:")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(address: SocketAddr, host: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A kept-alive connection to the proxy that asks again and again.
pub(crate) struct Asker(TcpStream);

impl Asker {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Asker(stream)
    }

    /// Asks until a host is served; when the answer was there.
    pub(crate) fn until_served(&mut self, host: &str) -> Instant {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            if self.status(host) == 200 {
                return Instant::now();
            }
            assert!(Instant::now() < patience, "{host} is not served");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn status(&mut self, host: &str) -> u16 {
        write!(self.0, "GET /v1/x HTTP/1.1\r\nHost: {host}\r\nAccept: text/plain\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = self.0.read(&mut chunk).unwrap();
            assert!(read > 0, "the proxy closed the connection");
            bytes.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                return head[9..12].parse().unwrap();
            }
        }
    }
}

/// A route that answers by itself, with nothing behind it that could be slow.
pub(crate) fn responding(name: &str, host: &str) -> Value {
    json!({
        "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"hosts": [host], "rules": [{"respond": {"status": 200, "body": "ok"}}]},
    })
}

/// The route, Service and slice of one app, as documents.
pub(crate) fn app(index: usize) -> [Value; 3] {
    let name = format!("app-{index}");
    let endpoints: Vec<Value> = (0..ENDPOINTS)
        .map(|position| {
            json!({
                "addresses": [format!("10.{}.{}.{position}", index / 256, index % 256)],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("node-{position}"),
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": format!("{name}-{position}")},
            })
        })
        .collect();
    [
        json!({
            "apiVersion": "floodway.dev/v1alpha1", "kind": "ProxyRoute",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "hosts": [format!("{name}.example.com")],
                "rules": [{
                    "name": "main",
                    "matches": [{"path": {"type": "Prefix", "value": "/v1"}}],
                    "backends": [{"service": {"name": name, "port": 8080}}],
                }],
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{name}-x1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": name},
            },
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        }),
    ]
}
