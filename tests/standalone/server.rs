//! A running `floodway standalone`, and ways to ask it.
#![allow(clippy::disallowed_methods)] // The program under test has the clock of the world.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything takes; what takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn floodway(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodway"));
    command.args(args).env_remove("FLOODWAY_CONFIG").env_remove("KUBECONFIG");
    command
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) struct Server {
    child: Child,
    said: Arc<Mutex<String>>,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Server {
    /// Starts it on free ports, and waits until it serves.
    pub(crate) fn start(dir: &Path, more: &[&str]) -> Server {
        let dir = dir.to_str().unwrap();
        let ports = ["standalone", dir, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "2"];
        Server::run(&ports.iter().chain(more).copied().collect::<Vec<_>>())
    }

    /// The same for a sidecar without an app; `http` is what comes in.
    pub(crate) fn beside_nothing(dir: &Path, more: &[&str]) -> Server {
        let inbound = ["sidecar", "--dir", dir.to_str().unwrap(), "--inbound", "127.0.0.1:0"];
        let others = ["--outbound", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Server::run(&inbound.iter().chain(&others).chain(more).copied().collect::<Vec<_>>())
    }

    fn run(args: &[&str]) -> Server {
        let args: Vec<&str> = args.iter().chain(&["--log-format", "text"]).copied().collect();
        let mut child = floodway(&args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (pipe, sink) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&said));
        std::thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                let mut said = sink.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
        let mut addresses = None;
        eventually("it serves", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended: {}", said.lock().unwrap());
            addresses = serving(&said.lock().unwrap());
            addresses.is_some()
        });
        let (http, admin) = addresses.unwrap();
        Server { child, said, http, admin }
    }

    /// Everything it said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Status and body of a GET; status 0 if it cannot be asked.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        get(self.http, path).unwrap_or_default()
    }

    pub(crate) fn admin(&self, path: &str) -> (u16, String) {
        get(self.admin, path).unwrap_or_default()
    }

    /// The same with another method.
    pub(crate) fn ask_admin(&self, method: &str, path: &str) -> (u16, String) {
        ask(self.admin, method, path).unwrap_or_default()
    }

    pub(crate) fn waits_for(&self, path: &str, status: u16, body: &str) {
        eventually(&format!("{path} answers {status} {body}; it said: {}", self.said()), || {
            self.get(path) == (status, body.to_owned())
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first address and the admin port in `serving http on 127.0.0.1:1; admin on 127.0.0.1:2; 3 routes`.
fn serving(said: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = said.lines().find_map(|line| line.split_once("serving "))?.1.split_once(" on ")?.1;
    let (served, rest) = line.split_once("; admin on ")?;
    let http = served.split(';').next()?;
    let (admin, _) = rest.split_once(';')?;
    Some((http.parse().ok()?, admin.parse().ok()?))
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    ask(address, "GET", path)
}

fn ask(address: SocketAddr, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}
