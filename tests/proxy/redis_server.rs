//! A real `redis-server`, on loopback, for limits that all replicas count together; and raw questions to it.
#![allow(clippy::disallowed_methods)] // A server of another maker has the clock of the world.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, until dropped. It can be killed and started again at the same address.
pub struct Redis {
    pub address: SocketAddr,
    child: Option<Child>,
    folder: tempfile::TempDir,
    more: Vec<String>,
}

/// The program. Where it is missing, this fails if `CI` is set and says so otherwise.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("redis-server")).find(|program| program.exists());
    if found.is_none() {
        let text = "redis-server is missing: install the package redis-server ('apt-get install redis-server')";
        assert!(std::env::var_os("CI").is_none(), "{text}");
        eprintln!("NOT RUN: {text}");
    }
    found
}

/// A port that nobody has, below those that the kernel gives to others meanwhile.
fn port() -> SocketAddr {
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], fastrand::u16(20_000..30_000)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

impl Redis {
    /// A server that is ready; `None` if there is no program.
    pub fn start(more: &[&str]) -> Option<Redis> {
        Redis::start_with(|| more.iter().map(|&word| word.to_owned()).collect())
    }

    /// The same with TLS at another address, by the certificate and the key in these files.
    pub fn start_with_tls(certificate: &str, key: &str, more: &[&str]) -> Option<(Redis, SocketAddr)> {
        let mut secure = port();
        let redis = Redis::start_with(|| {
            secure = port();
            let secure = secure.port().to_string();
            let tls = ["--tls-port", &secure, "--tls-cert-file", certificate, "--tls-key-file", key];
            let words = tls.into_iter().chain(["--tls-auth-clients", "no"]).chain(more.iter().copied());
            words.map(str::to_owned).collect()
        })?;
        Some((redis, secure))
    }

    /// Tried with other ports when one of them is somebody's by then.
    fn start_with(mut more: impl FnMut() -> Vec<String>) -> Option<Redis> {
        program()?;
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let mut redis = Redis { address: port(), child: None, folder, more: more() };
            if redis.again() {
                return Some(redis);
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts it at its address; whether it did.
    pub fn again(&mut self) -> bool {
        let (port, folder) = (self.address.port().to_string(), self.folder.path().to_str().unwrap());
        let args = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--dir", folder];
        let mut command = Command::new(program().unwrap());
        let mut child =
            command.args(args).args(&self.more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + PATIENCE;
        let ready = loop {
            if child.try_wait().unwrap().is_some() {
                break false;
            }
            if let Ok(answer) = ask(self.address, "PING")
                && (answer.starts_with("+PONG") || answer.starts_with("-NOAUTH"))
            {
                break true;
            }
            assert!(Instant::now() < end, "redis-server is not ready");
            std::thread::sleep(Duration::from_millis(5));
        };
        self.child = Some(child);
        ready
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `-STOP` or `-CONT`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// The answer to a command.
    pub fn ask(&self, command: &str) -> String {
        ask(self.address, command).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The answer to a command, up to a silence: tests read little, and at rest.
fn ask(address: SocketAddr, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // QUIT ends the connection behind the answer.
    write!(stream, "{command}\r\nQUIT\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
